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

// vault is a bundle of a tool with a sensitive argument, and rules that read it.
var vault = map[string]string{
	"bundle.yaml": "name: vault\n",
	"protos/vault.proto": `syntax = "proto3";
package vault.v1;
import "buf/validate/validate.proto";
import "writ/v1/options.proto";
service Vault {
  // Send money.
  rpc Send(SendRequest) returns (SendResponse) {
    option (writ.v1.tool) = {name: "vault.send" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}
message SendRequest {
  int64 cents = 1 [(buf.validate.field).int64.gt = 0];
  string iban = 2 [(buf.validate.field).string.len = 22, (writ.v1.field).sensitivity = SENSITIVITY_REDACT];
  repeated Party parties = 3 [(buf.validate.field).repeated.max_items = 5];
}
message Party { string name = 1 [(buf.validate.field).string.max_len = 9]; string phone = 2 [(buf.validate.field).string.max_len = 9, (writ.v1.field).sensitivity = SENSITIVITY_HASH]; }
message SendResponse {}
`,
	"grants/all.yaml": `grants:
  - {name: german, effect: GRANT_EFFECT_ALLOW, tools: [vault.send], condition: 'args.iban.startsWith("DE")'}
  - {name: small, effect: GRANT_EFFECT_ALLOW, tools: [vault.send], condition: 'args.cents < 10000'}
  - {name: notorious, effect: GRANT_EFFECT_DENY, tools: [vault.send], condition: 'args.parties.exists(p, p.phone == "666")'}
`,
	"checks/all.yaml": `checks:
  - {name: not_that_one, tools: [vault.send], expression: 'args.iban != "DE00000000000000000000"', on_failure: ON_FAILURE_DENY, message: m}
  - {name: named, tools: [vault.send], expression: 'args.parties.all(p, p.name != "")', on_failure: ON_FAILURE_DENY, message: m}
  - {name: few, tools: [vault.send], expression: 'args.cents < 100000', on_failure: ON_FAILURE_NEEDS_APPROVAL, message: m}
`,
	"risk/all.yaml": "rules:\n  - {name: foreign, tools: [vault.send], score: 20, condition: '!args.iban.startsWith(\"DE\")'}\n",
}

// sent is a call with sensitive arguments as a record holds it: without them.
func sent(t *testing.T, files map[string]string, arguments, public string, closed ...string) (*policy.Bundle, *writv1.Record, *writv1.DecisionRecord) {
	t.Helper()
	bundle := load(t, files)
	body := &writv1.DecisionRecord{
		Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE, Arguments: []byte(public), Tool: "vault.send",
		Principal: &writv1.Principal{User: "ann", Tenant: "acme"},
		Envelope:  &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "vault.send", Args: &writv1.Json{Text: []byte(arguments)}}},
		Facts:     bundles.DefaultFacts(time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)),
	}
	made := policy.Decide(bundle, bundles.CallOf(body.GetPrincipal(), body.GetEnvelope()), body.GetFacts())
	body.Decision, body.Facts.Witnesses = proto.CloneOf(made.Decision), made.Witnesses
	body.SchemaDigest = bundle.Tool("vault.send").SchemaDigest[:]
	record := &writv1.Record{}
	for _, path := range closed {
		record.Commitments = append(record.Commitments, &writv1.Commitment{Path: "arguments." + path})
	}
	return bundle, record, body
}

func TestWhatReadsASensitiveArgumentIsWitnessed(t *testing.T) {
	t.Parallel()
	const iban = "DE02120300000000202051"
	for name, c := range map[string]struct {
		arguments, public string
		closed            []string
		verdict           writv1.Verdict
	}{
		"a grant rests on it": {
			`{"cents":50000,"iban":"` + iban + `"}`, `{"cents":50000}`, []string{"iban"}, writv1.Verdict_VERDICT_ALLOW,
		},
		"no grant holds with it": {
			`{"cents":50000,"iban":"FR76300060000112345678"}`, `{"cents":50000}`, []string{"iban"}, writv1.Verdict_VERDICT_DENY,
		},
		"a check fails by it": {
			`{"cents":50,"iban":"DE00000000000000000000"}`, `{"cents":50}`, []string{"iban"}, writv1.Verdict_VERDICT_DENY,
		},
		"a grant denies by one in a list": {
			`{"cents":50,"iban":"` + iban + `","parties":[{"name":"a","phone":"1"},{"name":"b","phone":"666"}]}`,
			`{"cents":50,"parties":[{"name":"a"},{"name":"b"}]}`,
			[]string{"iban", "parties.0.phone", "parties.1.phone"},
			writv1.Verdict_VERDICT_DENY,
		},
		"an open argument asks for an approval": {
			`{"cents":5000000,"iban":"` + iban + `"}`, `{"cents":5000000}`, []string{"iban"}, writv1.Verdict_VERDICT_NEEDS_APPROVAL,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundle, record, body := sent(t, vault, c.arguments, c.public, c.closed...)
			if body.GetDecision().GetVerdict() != c.verdict {
				t.Fatalf("the decision was %s", body.GetDecision())
			}
			got, err := replay.Decide(bundle, record, body)
			if err != nil || !got.Same || !got.Witnessed {
				t.Errorf("Decide = %+v, %v", got, err)
			}
			for _, w := range body.GetFacts().GetWitnesses() {
				forged := proto.CloneOf(body)
				for _, f := range forged.GetFacts().GetWitnesses() {
					if string(f.GetExpression()) == string(w.GetExpression()) {
						f.Outcome = 3 - f.GetOutcome()
					}
				}
				if got, err := replay.Decide(bundle, record, forged); err != nil || got.Same {
					t.Errorf("a forged witness %x gives the same decision: %v", w.GetExpression(), err)
				}
			}
			body.Facts.Witnesses = nil
			if got, err := replay.Decide(bundle, record, body); err != nil || !strings.HasPrefix(got.Why, "closed: "+c.closed[0]) {
				t.Errorf("without witnesses: %+v, %v", got, err)
			}
		})
	}
}

func TestAnotherBundleThatNeedsAClosedValueSaysSo(t *testing.T) {
	t.Parallel()
	const public = `{"cents":50}`
	const closed = "closed: iban"
	schema := strings.Replace(vault["protos/vault.proto"], "len = 22", "len = 23", 1)
	for name, c := range map[string]struct {
		change map[string]string
		why    string
	}{
		"the same expressions in other rules": {map[string]string{"risk/all.yaml": "rules:\n  - {name: other, tools: [vault.send], score: 5, condition: '!args.iban.startsWith(\"DE\")'}\n"}, ""},
		"rules that read what is open":        {map[string]string{"checks/all.yaml": "checks:\n  - {name: c, tools: [vault.send], expression: 'args.cents > 1', on_failure: ON_FAILURE_DENY, message: m}\n"}, ""},
		"another expression that reads it":    {map[string]string{"checks/all.yaml": "checks:\n  - {name: c, tools: [vault.send], expression: 'args.iban != \"x\"', on_failure: ON_FAILURE_DENY, message: m}\n"}, closed},
		"one that reads all arguments":        {map[string]string{"checks/all.yaml": "checks:\n  - {name: c, tools: [vault.send], expression: '[args].size() == 1', on_failure: ON_FAILURE_DENY, message: m}\n"}, closed},
		"another schema":                      {map[string]string{"protos/vault.proto": schema}, closed},
		"a budget of bytes": {
			map[string]string{"budgets/all.yaml": "budgets:\n  - {name: few, tools: [vault.send], scopes: [BUDGET_SCOPE_USER], dimension: DIMENSION_BYTES_OUT, limit: 500, window: 60s}\n"},
			"facts: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, record, body := sent(t, vault, `{"cents":50,"iban":"DE02120300000000202051"}`, public, "iban")
			files := maps.Clone(vault)
			maps.Copy(files, c.change)
			got, err := replay.Decide(load(t, files), record, body)
			if err != nil || !strings.HasPrefix(got.Why, c.why) || (got.Decision == nil) != (c.why != "") {
				t.Errorf("Decide = %+v, %v", got, err)
			}
		})
	}
}

func TestWhatTheSchemaRefusedIsNotDecidedAgainWithoutIt(t *testing.T) {
	t.Parallel()
	bundle, record, body := sent(t, vault, `{"cents":50,"iban":"short"}`, `{"cents":50}`, "iban")
	if body.GetDecision().GetReason() != writv1.Reason_REASON_SCHEMA_RULE_VIOLATED {
		t.Fatal(body.GetDecision())
	}
	if got, err := replay.Decide(bundle, record, body); err != nil || got.Why != "closed: iban" {
		t.Errorf("Decide = %+v, %v", got, err)
	}
}

func TestWhatReadsASensitiveArgumentBesideExpressionsIsClosed(t *testing.T) {
	t.Parallel()
	with := func(option string) map[string]string {
		files := maps.Clone(vault)
		files["protos/vault.proto"] = strings.Replace(files["protos/vault.proto"], "(writ.v1.field).sensitivity = SENSITIVITY_REDACT", option, 1)
		return files
	}
	within := map[string]string{
		"bundle.yaml": "name: vault\n",
		"protos/vault.proto": `syntax = "proto3";
package vault.v1;
import "writ/v1/options.proto";
service Vault {
  // Send money.
  rpc Send(SendRequest) returns (SendResponse) {
    option (writ.v1.tool) = {name: "vault.send" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}
message SendRequest { int64 cents = 1; Owner iban = 2 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT]; }
message Owner { string tenant = 1 [(writ.v1.field).binding = BINDING_TENANT]; }
message SendResponse {}
`,
		"grants/all.yaml": "grants:\n  - {name: all, effect: GRANT_EFFECT_ALLOW, tools: [vault.send]}\n",
	}
	const iban = `"DE02120300000000202051"`
	for name, c := range map[string]struct {
		files map[string]string
		value string
	}{
		"a demand on where it came from": {with("(writ.v1.field) = {sensitivity: SENSITIVITY_REDACT provenance: {least: ORIGIN_TRUSTED}}"), iban},
		"the tenant":                     {with("(writ.v1.field) = {sensitivity: SENSITIVITY_REDACT binding: BINDING_TENANT}"), iban},
		"the tenant within it":           {within, `{"tenant":"acme"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundle, record, body := sent(t, c.files, `{"cents":50,"iban":`+c.value+`}`, `{"cents":50}`, "iban")
			body.Facts.Session = &writv1.SessionSummary{}
			if got, err := replay.Decide(bundle, record, body); err != nil || got.Why != "closed: iban" {
				t.Errorf("Decide = %+v, %v", got, err)
			}
		})
	}
}
