// SPDX-License-Identifier: Apache-2.0

package replay_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/agent/replay"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var shelf = map[string]string{
	"bundle.yaml": "name: shelf\n",
	"protos/shelf.proto": `syntax = "proto3";
package shelf.v1;
import "buf/validate/validate.proto";
import "writ/v1/options.proto";
service Shelf {
  // Take a thing.
  rpc Take(TakeRequest) returns (TakeResponse) {
    option (writ.v1.tool) = {name: "shelf.take" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}
message TakeRequest { string thing = 1 [(buf.validate.field).string.max_len = 20]; }
message TakeResponse {}
`,
	"grants/all.yaml": "grants:\n  - {name: all, effect: GRANT_EFFECT_ALLOW, tools: [shelf.take]}\n",
}

// load loads the shelf's bundle with other files beside its own.
func load(t *testing.T, more map[string]string) *policy.Bundle {
	t.Helper()
	dir, files := t.TempDir(), maps.Clone(shelf)
	maps.Copy(files, more)
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bundle, err := bundles.LoadDir(t.Context(), dir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// recorded is a call as the shelf's bundle decided it.
func recorded(t *testing.T) (*policy.Bundle, *writv1.Record, *writv1.DecisionRecord) {
	t.Helper()
	bundle := load(t, nil)
	body := &writv1.DecisionRecord{
		Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE, Arguments: []byte(`{"thing":"cup"}`),
		Principal: &writv1.Principal{User: "ann", Tenant: "acme"},
		Envelope:  &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "shelf.take", Args: &writv1.Json{Text: []byte(`{"thing":"cup"}`)}}},
		Facts:     bundles.DefaultFacts(time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)),
	}
	// Decisions share their checks: what a test forges is its own.
	body.Decision = proto.CloneOf(policy.Decide(bundle, bundles.CallOf(body.GetPrincipal(), body.GetEnvelope()), body.GetFacts()).Decision)
	if body.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		t.Fatal(body.GetDecision())
	}
	return bundle, &writv1.Record{}, body
}

func TestARecordIsDecidedAgainOrItIsSaidWhyNot(t *testing.T) {
	t.Parallel()
	check := func(expression string) map[string]string {
		return map[string]string{"checks/all.yaml": "checks:\n  - {name: c, tools: [shelf.take], expression: '" + expression + "', on_failure: ON_FAILURE_DENY, message: m}\n"}
	}
	for name, c := range map[string]struct {
		bundle map[string]string // files beside those of the bundle that decided
		change func(*writv1.Record, *writv1.DecisionRecord)
		same   bool
		now    writv1.Verdict
		why    string
	}{
		"as it was":                  {same: true, now: writv1.Verdict_VERDICT_ALLOW},
		"a decision that was forged": {change: func(_ *writv1.Record, b *writv1.DecisionRecord) { b.Decision.Checks[0].Name = "x" }, now: writv1.Verdict_VERDICT_ALLOW},
		"an argument that was forged": {
			change: func(_ *writv1.Record, b *writv1.DecisionRecord) {
				b.Arguments = []byte(`{"thing":"a thing that is longer than may be"}`)
			},
			now: writv1.Verdict_VERDICT_DENY,
		},
		"another bundle that denies": {bundle: check(`args.thing == "pot"`), now: writv1.Verdict_VERDICT_DENY},
		"a sensitive argument": {change: func(r *writv1.Record, _ *writv1.DecisionRecord) {
			r.Commitments = []*writv1.Commitment{{Path: "arguments.thing"}}
		}, why: "closed: thing"},
		"a commitment that is a result": {change: func(r *writv1.Record, _ *writv1.DecisionRecord) {
			r.Commitments = []*writv1.Commitment{{Path: "result.x"}}
		}, same: true, now: writv1.Verdict_VERDICT_ALLOW},
		"unreadable arguments":          {change: func(_ *writv1.Record, b *writv1.DecisionRecord) { b.Arguments = nil }, why: "arguments: "},
		"a refusal around the function": {change: func(_ *writv1.Record, b *writv1.DecisionRecord) { b.Origin = 0 }, why: "refused: "},
		"a bundle that asks the session": {
			bundle: check(`session.calls() < 3`), why: "facts: the session",
		},
		"a bundle that asks where values came from": {
			bundle: check(`provenance(args.thing).trusted()`), why: "facts: ",
		},
		"a bundle with a budget": {
			bundle: map[string]string{"budgets/all.yaml": "budgets:\n  - {name: few, tools: [shelf.take], scopes: [BUDGET_SCOPE_USER], dimension: DIMENSION_CALLS, limit: 5, window: 60s}\n"},
			why:    "facts: the balance of the budget few",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundle, record, body := recorded(t)
			if c.bundle != nil {
				bundle = load(t, c.bundle)
			}
			if c.change != nil {
				c.change(record, body)
			}
			before := proto.CloneOf(body)
			got, err := replay.Decide(bundle, record, body)
			if err != nil || got.Same != c.same || got.Decision.GetVerdict() != c.now || !strings.HasPrefix(got.Why, c.why) || (got.Decision == nil) != (c.why != "") {
				t.Errorf("Decide = %+v, %v", got, err)
			}
			if !proto.Equal(before, body) {
				t.Error("the record was changed")
			}
		})
	}
}
