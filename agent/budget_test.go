// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// modelFiles make of the workshop a model that is paid by the token.
var modelFiles = map[string]string{
	"protos/model.proto": `syntax = "proto3";
package model.v1;

import "writ/v1/options.proto";

service Model {
  // Ask a model.
  rpc Ask(AskRequest) returns (AskResponse) {
    option (writ.v1.tool) = {
      name: "model.ask" risk: RISK_LOW effect: TOOL_EFFECT_READ command: {path: "/bin/true"}
      cost: {money_nano_dollars: 0, output_token_nano_dollars: 10}
    };
  }
}
message AskRequest {
  int64 max_tokens = 1 [(writ.v1.field).budget = {dimension: DIMENSION_OUTPUT_TOKENS}];
}
message AskResponse {
  int64 tokens = 1 [(writ.v1.field).budget = {dimension: DIMENSION_OUTPUT_TOKENS}];
}
`,
	"grants/model.yaml": `grants:
  - {name: askers, effect: GRANT_EFFECT_ALLOW, principals: {roles: [maker]}, tools: [model.ask]}
`,
	"budgets/model.yaml": `budgets:
  - {name: tokens, tools: [model.ask], scopes: [BUDGET_SCOPE_USER], dimension: DIMENSION_OUTPUT_TOKENS, limit: 1000, rolling: 86400s, alert_percents: [50, 90]}
  - {name: money, tools: [model.ask], scopes: [BUDGET_SCOPE_SESSION], dimension: DIMENSION_MONEY, limit: 10000, endless: true, alert_percents: [80]}
`,
}

// asking is a request for at most that many tokens.
func asking(most int) *agent.Request {
	r := request("model.ask", "")
	r.Arguments = tools.Arguments{JSON: fmt.Appendf(nil, `{"max_tokens":%d}`, most)}
	return r
}

// answers answers with that many tokens.
func answers(tokens int) craft {
	return func(context.Context, tools.Execution) (*tools.Result, error) {
		return &tools.Result{JSON: fmt.Appendf(nil, `{"tokens":%d}`, tokens)}, nil
	}
}

// balances are the amounts that the state's dump has.
func balances(dump string) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(dump) {
		fields := strings.Fields(line)
		if len(fields) == 4 && fields[0] == "budget" && !strings.Contains(fields[1], "things") {
			name, _, _ := strings.Cut(fields[1], ",")
			found[name] = fields[3]
		}
	}
	return found
}

func TestABillTakesThePlaceOfTheWorstCase(t *testing.T) {
	t.Parallel()
	const tokens, money = "6:tokens3~86400000000000", "5:money4"
	for name, c := range map[string]struct {
		craft   craft
		outcome func(*agent.Admission) agent.Outcome
		want    map[string]string
		spent   int64
	}{
		"what was not taken is given back":       {answers(100), nil, map[string]string{tokens: "100", money: "1000"}, 100},
		"an overrun is taken too":                {answers(450), nil, map[string]string{tokens: "450", money: "4500"}, 450},
		"a lie below zero is taken for the most": {answers(-1), nil, map[string]string{tokens: "400", money: "4000"}, 400},
		"what nobody saw is taken for the most": {answers(1), func(*agent.Admission) agent.Outcome {
			return agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_UNKNOWN}
		}, map[string]string{tokens: "400", money: "4000"}, 400},
		"what did not start is given back": {answers(1), func(*agent.Admission) agent.Outcome {
			return agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED}
		}, map[string]string{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openWorkshop(t, workshopOptions{craft: c.craft, files: modelFiles})
			admission := w.allow(asking(400))
			var outcome agent.Outcome
			if c.outcome != nil {
				outcome = c.outcome(admission)
			} else {
				outcome = admission.Run(t.Context(), nil).Outcome()
			}
			if err := admission.Finish(outcome); err != nil {
				t.Fatal(err)
			}
			live := w.agent.State().Dump()
			if diff := cmp.Diff(c.want, balances(live)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(live, w.folded()); diff != "" {
				t.Errorf("(-live +folded):\n%s", diff)
			}
			entries := w.entries()
			var spent int64
			for _, s := range entries[len(entries)-1].outcome.GetSpent() {
				if s.GetDimension() == writv1.Dimension_DIMENSION_OUTPUT_TOKENS {
					spent = s.GetAmount()
				}
			}
			if spent != c.spent {
				t.Errorf("the outcome says that %d tokens were spent, want %d", spent, c.spent)
			}
		})
	}
}

func TestManyAtATimeNeverTakeMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{craft: answers(100), files: modelFiles})
	var group sync.WaitGroup
	var mu sync.Mutex
	var allowed []*agent.Admission
	for range 50 {
		group.Go(func() {
			admission := w.agent.Admit(t.Context(), asking(100))
			if !admission.Allowed() {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			allowed = append(allowed, admission)
		})
	}
	group.Wait()
	if len(allowed) != 10 {
		t.Fatalf("%d calls are allowed, want 10", len(allowed))
	}
	refused := w.agent.Admit(t.Context(), asking(1)).Decision()
	check := refused.GetChecks()[len(refused.GetChecks())-1]
	for _, c := range refused.GetChecks() {
		if c.GetName() == "tokens" {
			check = c
		}
	}
	if check.GetRoom().GetLeft() != 0 || check.GetRoom().GetAsked() != 1 || !check.GetRoom().GetRefillTime().AsTime().After(time.Now()) {
		t.Errorf("check = %v, want what is left and when it refills", check)
	}
	for _, admission := range allowed[:5] {
		if err := admission.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED}); err != nil {
			t.Fatal(err)
		}
	}
	w.allow(asking(500))
}

func TestACrashSettlesAtTheWorstCase(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{craft: answers(1), files: modelFiles})
	w.allow(asking(300))
	before := balances(w.agent.State().Dump())
	// The process is gone: what it held open is folded, and nobody finishes it.
	if diff := cmp.Diff(before, balances(w.folded())); diff != "" {
		t.Errorf("(-before +after the crash):\n%s", diff)
	}
	if before["6:tokens3~86400000000000"] != "300" {
		t.Errorf("balances = %v", before)
	}
}

func TestAlertsAreGivenOnceInAWindow(t *testing.T) {
	t.Parallel()
	alerts := make(chan *writv1.AlertRecord, 100)
	w := openWorkshop(t, workshopOptions{craft: answers(300), files: modelFiles, alert: func(a *writv1.AlertRecord) { alerts <- a }})
	want := func(what string) {
		t.Helper()
		a := <-alerts
		got := fmt.Sprintf("%s %s %d%%: %d of %d", strings.TrimPrefix(a.GetKind().String(), "ALERT_KIND_"), a.GetBudget(), a.GetPercent(), a.GetTaken(), a.GetLimit())
		if got != what {
			t.Errorf("alert %q, want %q", got, what)
		}
	}
	w.allow(asking(100))
	w.allow(asking(450))
	want("THRESHOLD tokens 50%: 550 of 1000")
	w.allow(asking(50))
	w.agent.Admit(t.Context(), asking(500))
	want("EXHAUSTED money 0%: 6000 of 10000")
	want("EXHAUSTED tokens 0%: 600 of 1000")
	w.agent.Admit(t.Context(), asking(500))
	billed := w.allow(asking(200))
	want("THRESHOLD money 80%: 8000 of 10000")
	if err := billed.Finish(billed.Run(t.Context(), nil).Outcome()); err != nil {
		t.Fatal(err)
	}
	want("OVERRUN money 0%: 1000 of 10000")
	want("OVERRUN tokens 0%: 100 of 1000")
	if len(alerts) != 0 {
		t.Errorf("%d more alerts", len(alerts))
	}
	if diff := cmp.Diff(w.agent.State().Dump(), w.folded()); diff != "" {
		t.Errorf("(-live +folded):\n%s", diff)
	}
	// What was given stays given after a restart.
	if state := w.reopened(); !strings.Contains(state, "alert 6:tokens") {
		t.Errorf("the alerts are lost:\n%s", state)
	}
}

func TestDriftIsAnAlert(t *testing.T) {
	t.Parallel()
	alerts := make(chan *writv1.AlertRecord, 100)
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	w := openWorkshop(t, workshopOptions{clock: func() time.Time { return now }, alert: func(a *writv1.AlertRecord) { alerts <- a }})
	call := func(tool string) {
		if err := w.allow(request(tool, "x")).Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 * 24 {
		call("workshop.send")
		now = now.Add(time.Hour)
	}
	if len(alerts) != 0 {
		t.Fatalf("%d alerts", len(alerts))
	}
	for range 10 {
		for range 10 {
			call("workshop.send")
		}
		now = now.Add(10 * time.Second)
	}
	if a := <-alerts; a.GetKind() != writv1.AlertKind_ALERT_KIND_DRIFT || a.GetDrift().GetSeries() != "calls" {
		t.Errorf("alert %v, want one of drift", a)
	}
	if diff := cmp.Diff(w.agent.State().Dump(), w.folded()); diff != "" {
		t.Errorf("(-live +folded):\n%s", diff)
	}
}
