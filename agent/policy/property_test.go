// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// made returns a source with count tools, tool.t0 and so on, which take a text
// and a number.
func made(t testing.TB, count int) *policy.Source {
	t.Helper()
	var proto strings.Builder
	proto.WriteString("syntax = \"proto3\";\npackage made.v1;\nimport \"writ/v1/options.proto\";\n")
	proto.WriteString("message Answer { string text = 1; }\nservice Made {\n")
	for i := range count {
		fmt.Fprintf(&proto, "  rpc T%d(Ask%d) returns (Answer) { option (writ.v1.tool) = {name: \"tool.t%d\" risk: RISK_LOW effect: TOOL_EFFECT_READ}; }\n", i, i, i)
	}
	proto.WriteString("}\n")
	for i := range count {
		fmt.Fprintf(&proto, "message Ask%d { string text = 1; int64 number = 2; }\n", i)
	}
	files := fstest.MapFS{"made.proto": {Data: []byte(proto.String())}}
	set, err := schemas.Compile(t.Context(), files, []string{"made.proto"})
	if err != nil {
		t.Fatal(err)
	}
	found, err := tools.Load(set)
	if err != nil {
		t.Fatal(err)
	}
	return &policy.Source{
		Manifest:  &writv1.BundleManifest{Name: "made"},
		Tools:     found,
		Files:     set.Files(),
		Catalogue: &writv1.Catalogue{},
	}
}

// fatal is what tests and properties have in common.
type fatal interface{ Fatalf(string, ...any) }

// with returns the bundle of a source with other grants.
func with(t fatal, source *policy.Source, grants ...*writv1.Grant) *policy.Bundle {
	changed := *source
	changed.Grants = grants
	bundle, issues := policy.New(&changed)
	if bundle == nil {
		t.Fatalf("New: %v", issues)
	}
	return bundle
}

// pick draws a subset of the values.
func pick(t *rapid.T, name string, values ...string) []string {
	var picked []string
	for _, value := range values {
		if rapid.IntRange(0, 2).Draw(t, name+"/"+value) == 0 {
			picked = append(picked, value)
		}
	}
	return picked
}

// conditions hold, do not hold, rest on the call, or err.
var conditions = []string{
	"", "true", "false", "args.number > 5", "principal.user == \"ann\"", "10 / args.number > 1",
	"claimed.intent == \"x\"", "principal.roles.exists(r, r == \"a\")",
}

func drawGrant(t *rapid.T, name string) *writv1.Grant {
	selector := &writv1.PrincipalSelector{
		Users:     pick(t, name+" users", "ann", "bob"),
		Roles:     pick(t, name+" roles", "a", "b"),
		Tenants:   pick(t, name+" tenants", "north", "south"),
		Workloads: pick(t, name+" workloads", "spiffe://x/one", "spiffe://x/*", "spiffe://x/deep/*"),
	}
	if rapid.Bool().Draw(t, name+" for all") {
		selector = nil
	}
	return &writv1.Grant{
		Name:       name,
		Effect:     writv1.GrantEffect(rapid.IntRange(1, 2).Draw(t, name+" effect")),
		Principals: selector,
		Tools:      append(pick(t, name+" tools", "*", "tool.*", "tool.t1"), "tool.t0"),
		Condition:  rapid.SampledFrom(conditions).Draw(t, name+" condition"),
	}
}

func drawCall(t *rapid.T) *policy.Call {
	principal := &writv1.Principal{
		Workload: rapid.SampledFrom([]string{"", "spiffe://x/one", "spiffe://x/deep/two", "spiffe://y/one"}).Draw(t, "workload"),
		User:     rapid.SampledFrom([]string{"", "ann", "bob", "eve"}).Draw(t, "user"),
		Roles:    pick(t, "roles", "a", "b", "c"),
		Tenant:   rapid.SampledFrom([]string{"", "north", "south"}).Draw(t, "tenant"),
	}
	tool := rapid.SampledFrom([]string{"tool.t0", "tool.t1", "tool.t2"}).Draw(t, "tool")
	number := rapid.IntRange(0, 12).Draw(t, "number")
	return bundles.CallOf(principal, &writv1.Envelope{ToolCall: &writv1.ToolCall{
		Name: tool,
		Args: &writv1.Json{Text: fmt.Appendf(nil, `{"number":%d}`, number)},
	}})
}

var noon = bundles.DefaultFacts(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))

func allowed(bundle *policy.Bundle, call *policy.Call) bool {
	return policy.Decide(bundle, call, noon).Decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW
}

func drawGrants(t *rapid.T) []*writv1.Grant {
	count := rapid.IntRange(0, 6).Draw(t, "count")
	grants := make([]*writv1.Grant, count)
	for i := range grants {
		grants[i] = drawGrant(t, fmt.Sprintf("grant%d", i))
	}
	return grants
}

func TestAnAddedGrantOnlyChangesWhatItSpeaksOf(t *testing.T) {
	t.Parallel()
	source := made(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		grants, added, call := drawGrants(t), drawGrant(t, "added"), drawCall(t)
		before := allowed(with(t, source, grants...), call)
		after := allowed(with(t, source, append(grants, added)...), call)
		switch {
		case added.GetEffect() == writv1.GrantEffect_GRANT_EFFECT_DENY && after && !before:
			t.Fatalf("a grant that denies widened: %v", added)
		case added.GetEffect() == writv1.GrantEffect_GRANT_EFFECT_ALLOW && before && !after:
			t.Fatalf("a grant that allows narrowed: %v", added)
		}
	})
}

func TestTheIndexFindsWhatAScanFinds(t *testing.T) {
	t.Parallel()
	source := made(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		grants, call := drawGrants(t), drawCall(t)
		if got, want := allowed(with(t, source, grants...), call), scan(t, source, grants, call); got != want {
			t.Fatalf("allowed is %t, and %t when each grant is weighed alone", got, want)
		}
	})
}

// scan decides with one grant at a time: a call is allowed when some grant alone
// allows it and no grant, beside one that allows everything, denies it.
func scan(t *rapid.T, source *policy.Source, grants []*writv1.Grant, call *policy.Call) bool {
	everything := &writv1.Grant{Name: "everything", Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW, Tools: []string{"*"}}
	some := false
	for _, grant := range grants {
		if grant.GetEffect() == writv1.GrantEffect_GRANT_EFFECT_DENY {
			if !allowed(with(t, source, everything, grant), call) {
				return false
			}
			continue
		}
		some = some || allowed(with(t, source, grant), call)
	}
	return some
}

func TestUnrelatedGrantsAndTheOrderOfGrantsChangeNoByte(t *testing.T) {
	t.Parallel()
	source := made(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		grants, call := drawGrants(t), drawCall(t)
		before := decision(t, with(t, source, grants...), call)
		others := []*writv1.Grant{
			{Name: "other-user", Effect: writv1.GrantEffect_GRANT_EFFECT_DENY, Principals: &writv1.PrincipalSelector{Users: []string{"zoe"}}, Tools: []string{"*"}},
			{Name: "other-role", Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW, Principals: &writv1.PrincipalSelector{Roles: []string{"z"}}, Tools: []string{"*"}},
		}
		shuffled := rapid.Permutation(append(others, grants...)).Draw(t, "order")
		if after := decision(t, with(t, source, shuffled...), call); after != before {
			t.Fatalf("the decision changed:\n%q\n%q", before, after)
		}
	})
}

func decision(t *rapid.T, bundle *policy.Bundle, call *policy.Call) string {
	encoded, err := canonical.Marshal(policy.Decide(bundle, call, noon).Decision)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return string(encoded)
}

func TestATrueClaimOrNoneChangesNoByte(t *testing.T) {
	t.Parallel()
	source := made(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		var grants []*writv1.Grant
		for _, grant := range drawGrants(t) {
			if !strings.Contains(grant.GetCondition(), "claimed") {
				grants = append(grants, grant)
			}
		}
		bundle, call := with(t, source, grants...), drawCall(t)
		claiming := *call
		claiming.Envelope = proto.CloneOf(call.Envelope)
		claiming.Envelope.Intent, claiming.Envelope.ModelRoute, claiming.Envelope.Session = "x", "y", "z"
		claiming.Envelope.Retrieval = &writv1.Retrieval{Tenant: call.Principal.GetTenant(), TopK: 3}
		if roles := call.Principal.GetRoles(); len(roles) > 0 {
			claiming.Envelope.UserRole = roles[0]
		}
		if decision(t, bundle, call) != decision(t, bundle, &claiming) {
			t.Fatalf("a claim changed the decision")
		}
	})
}

func TestWhatIsNotVisibleIsDenied(t *testing.T) {
	t.Parallel()
	source := made(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		bundle, call := with(t, source, drawGrants(t)...), drawCall(t)
		if !allowed(bundle, call) {
			return
		}
		for _, tool := range bundle.Visible(call.Principal) {
			if tool.Name == call.Envelope.GetToolCall().GetName() {
				return
			}
		}
		t.Fatalf("a call is allowed to a tool that is not visible")
	})
}

func TestAnythingMissingDenies(t *testing.T) {
	t.Parallel()
	bundle := with(t, made(t, 1), &writv1.Grant{Name: "all", Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW, Tools: []string{"*"}})
	whole := bundles.CallOf(&writv1.Principal{User: "ann"}, &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "tool.t0", Args: &writv1.Json{Text: []byte("{}")}}})
	if !allowed(bundle, whole) {
		t.Fatal("the whole call is not allowed")
	}
	for name, result := range map[string]*policy.Result{
		"no facts":     policy.Decide(bundle, whole, nil),
		"no time":      policy.Decide(bundle, whole, &writv1.Facts{}),
		"no principal": policy.Decide(bundle, &policy.Call{Envelope: whole.Envelope, Arguments: whole.Arguments}, noon),
		"no envelope":  policy.Decide(bundle, &policy.Call{Principal: whole.Principal, Arguments: whole.Arguments}, noon),
		"nothing":      policy.Decide(bundle, &policy.Call{}, nil),
	} {
		if result.Decision.GetVerdict() != writv1.Verdict_VERDICT_DENY || len(result.Decision.GetChecks()) == 0 {
			t.Errorf("%s: %v", name, result.Decision)
		}
	}
}

func TestThousandsOfMatchesStillFitADecision(t *testing.T) {
	t.Parallel()
	var grants []*writv1.Grant
	for i := range 2000 {
		grants = append(grants, &writv1.Grant{Name: fmt.Sprintf("g%04d", i), Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW, Tools: []string{"*"}})
	}
	grants = append(grants, &writv1.Grant{Name: "zz-last", Effect: writv1.GrantEffect_GRANT_EFFECT_DENY, Tools: []string{"*"}})
	bundle := with(t, made(t, 1), grants...)
	call := bundles.CallOf(&writv1.Principal{User: "ann"}, &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "tool.t0", Args: &writv1.Json{Text: []byte("{}")}}})
	got := policy.Decide(bundle, call, noon).Decision
	if got.GetReason() != writv1.Reason_REASON_GRANT_DENIED || len(got.GetChecks()) > 300 {
		t.Errorf("reason %s with %d checks, want GRANT_DENIED with at most 300", got.GetReason(), len(got.GetChecks()))
	}
}
