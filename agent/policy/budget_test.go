// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// drawFacts returns the facts of a call with any balances.
func drawFacts(t *rapid.T, bundle *policy.Bundle, call *policy.Call) *writv1.Facts {
	facts := &writv1.Facts{Time: noon.GetTime()}
	for _, key := range bundle.Balances(call, nil) {
		if rapid.IntRange(0, 4).Draw(t, "missing") == 0 {
			continue
		}
		start := key.WindowStart(noon.GetTime().AsTime()).Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "window")) * time.Hour)
		facts.Balances = append(facts.Balances, &writv1.Balance{
			Budget: key.Budget, Key: key.Scope, Dimension: key.Dimension,
			WindowStart: timestamppb.New(start), Taken: rapid.Int64Range(0, 4).Draw(t, "taken"),
		})
	}
	return facts
}

func TestADecisionStandsWhereItWouldBeMadeAgain(t *testing.T) {
	t.Parallel()
	source := made(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		changed := *source
		changed.Budgets = nil
		for i := range rapid.IntRange(0, 3).Draw(t, "budgets") {
			changed.Budgets = append(changed.Budgets, &writv1.Budget{
				Name: fmt.Sprintf("b%d", i), Tools: []string{"*"}, Dimension: writv1.Dimension_DIMENSION_CALLS,
				Scopes: []writv1.BudgetScope{writv1.BudgetScope_BUDGET_SCOPE_USER},
				Limit:  rapid.Int64Range(1, 4).Draw(t, "limit"), Window: durationpb.New(time.Hour),
			})
		}
		grant := &writv1.Grant{Name: "all", Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW, Tools: []string{"*"}}
		if rapid.IntRange(0, 3).Draw(t, "condition") == 0 {
			grant.Condition = "args.number > 100"
		}
		bundle := with(t, &changed, grant)
		call := benchCall()
		before, after := drawFacts(t, bundle, call), drawFacts(t, bundle, call)
		first, again := policy.Decide(bundle, call, before), policy.Decide(bundle, call, after)
		same := first.Decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW && proto.Equal(first.Decision, again.Decision)
		if stands := bundle.Stands(call, first, after); stands != same {
			t.Fatalf("stands %v, and the same is decided %v\nbefore %v\nafter %v\nfirst %v\nagain %v",
				stands, same, before, after, first.Decision, again.Decision)
		}
	})
}

// TestABillIsWhatWasReservedLessWhatIsGivenBackAndMoreWhatOverran settles calls with any
// bill, over all budgets of a bundle.
func TestABillIsWhatWasReservedLessWhatIsGivenBackAndMoreWhatOverran(t *testing.T) {
	t.Parallel()
	bundle, err := bundles.LoadDir(t.Context(), "testdata/bundles/newsroom", bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	states := []writv1.OutcomeState{
		writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, writv1.OutcomeState_OUTCOME_STATE_FAILED, writv1.OutcomeState_OUTCOME_STATE_UNKNOWN,
		writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED, writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
	}
	rapid.Check(t, func(t *rapid.T) {
		call := bundles.CallOf(&writv1.Principal{User: "ida", Roles: []string{"writer"}, Tenant: "desk"}, &writv1.Envelope{
			ToolCall: &writv1.ToolCall{Name: "model.ask", Args: &writv1.Json{
				Text: fmt.Appendf(nil, `{"question":"why?","max_tokens":%d}`, rapid.Int64Range(0, 5000).Draw(t, "most")),
			}},
		})
		made := policy.Decide(bundle, call, noon)
		if made.Decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
			t.Fatalf("%v", made.Decision)
		}
		sums := make(map[string]int64)
		var reserved []*writv1.Reserve
		for _, effect := range made.Decision.GetEffects() {
			reserved = append(reserved, effect.GetReserve())
			sums[effect.GetReserve().GetBudget()] += effect.GetReserve().GetAmount()
		}
		worst := maps.Clone(sums)
		bill := policy.Bill{State: rapid.SampledFrom(states).Draw(t, "state"), Time: noon.GetTime().AsTime().Add(time.Hour)}
		tokens := rapid.Int64Range(0, 10_000).Draw(t, "tokens")
		if rapid.Bool().Draw(t, "told") {
			bill.Spent = []*writv1.Spending{{Dimension: writv1.Dimension_DIMENSION_OUTPUT_TOKENS, Amount: tokens}}
		}
		settled := bundle.Settle(call, reserved, noon, bill)
		for _, back := range settled.GivenBack {
			sums[back.GetBudget()] -= back.GetAmount()
		}
		for _, over := range settled.Overrun {
			sums[over.GetBudget()] += over.GetAmount()
			if over.GetAmount() <= 0 {
				t.Fatalf("overrun %v", over)
			}
		}
		seen := bill.State == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || bill.State == writv1.OutcomeState_OUTCOME_STATE_FAILED
		for budget, sum := range sums {
			want := worst[budget]
			switch {
			case bill.State == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED:
				want = 0
			case seen && bill.Spent != nil && budget == "output":
				want = tokens
			case seen && bill.Spent != nil && (budget == "run_money" || budget == "soft_money"):
				want = 1_000_000 + 8000*250 + tokens*1000
			}
			if sum != want {
				t.Fatalf("%s: %d is taken in the end, want %d of at most %d", budget, sum, want, worst[budget])
			}
		}
	})
}
