// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// layouts are ways to lay count grants out; a decision must not feel count.
var layouts = []struct {
	name   string
	tools  int
	grants func(count int) []*writv1.Grant
}{
	{"spread over the tools", 1000, func(count int) []*writv1.Grant {
		return each(count, func(i int) *writv1.Grant {
			return &writv1.Grant{
				Name: fmt.Sprintf("g%d", i), Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW,
				Principals: &writv1.PrincipalSelector{Roles: []string{fmt.Sprintf("role%d", i/1000)}},
				Tools:      []string{fmt.Sprintf("tool.t%d", i%1000)}, Condition: "args.number < 100",
			}
		})
	}},
	{"one tool for all users", 1, func(count int) []*writv1.Grant { return each(count, perUser) }},
	{"with one wildcard deny", 1, func(count int) []*writv1.Grant {
		return append(each(count, perUser), &writv1.Grant{
			Name: "wild", Effect: writv1.GrantEffect_GRANT_EFFECT_DENY, Tools: []string{"*"}, Condition: "args.number > 1000",
		})
	}},
}

func each(count int, grant func(int) *writv1.Grant) []*writv1.Grant {
	grants := make([]*writv1.Grant, count)
	for i := range grants {
		grants[i] = grant(i)
	}
	return grants
}

func perUser(i int) *writv1.Grant {
	return &writv1.Grant{
		Name: fmt.Sprintf("g%d", i), Effect: writv1.GrantEffect_GRANT_EFFECT_ALLOW,
		Principals: &writv1.PrincipalSelector{Users: []string{fmt.Sprintf("user%d", i)}},
		Tools:      []string{"tool.t0"}, Condition: "args.number < 100",
	}
}

func benchCall() *policy.Call {
	return bundles.CallOf(&writv1.Principal{User: "user3", Roles: []string{"role0"}, Tenant: "north"}, &writv1.Envelope{
		ToolCall: &writv1.ToolCall{Name: "tool.t0", Args: &writv1.Json{Text: []byte(`{"text":"hello","number":5}`)}},
	})
}

// BenchmarkDecideGrants measures whole decisions, decoding included, under 10
// and 10,000 grants in three layouts.
func BenchmarkDecideGrants(b *testing.B) {
	for _, layout := range layouts {
		source := made(b, layout.tools)
		for _, count := range []int{10, 10_000} {
			bundle := with(b, source, layout.grants(count)...)
			call := benchCall()
			if !allowed(bundle, call) {
				b.Fatal("the call is not allowed")
			}
			b.Run(fmt.Sprintf("%s/%d", layout.name, count), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					policy.Decide(bundle, call, noon)
				}
			})
		}
	}
}

// BenchmarkDecideStages measures a decision under the example of a refund desk,
// and the reading of its arguments alone.
func BenchmarkDecideStages(b *testing.B) {
	bundle, err := bundles.LoadDir(b.Context(), "../../examples/refunddesk/bundle", bundles.Options{})
	if err != nil {
		b.Fatal(err)
	}
	tool := bundle.Tools()[slices.IndexFunc(bundle.Tools(), func(tool *tools.Tool) bool { return tool.Name == "payments.issue_refund" })]
	call := bundles.CallOf(&writv1.Principal{User: "ada", Roles: []string{"support_agent"}, Tenant: "acme"}, &writv1.Envelope{
		UserRole: "support_agent",
		ToolCall: &writv1.ToolCall{Name: tool.Name, Args: &writv1.Json{
			Text: []byte(`{"tenant":"acme","payment_id":"pay_1001","amount":{"currency":"EUR","minor":4999},"reason":"damaged"}`),
		}},
	})
	if !allowed(bundle, call) {
		b.Fatalf("%s is not allowed", tool.Name)
	}
	b.Run("decide", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			policy.Decide(bundle, call, noon)
		}
	})
	b.Run("read, validate and write alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			message, err := tool.Request.Read(call.Arguments.JSON, nil, call.Limits)
			if err != nil {
				b.Fatal(err)
			}
			tool.Request.Validate(message)
			tool.Request.Append(nil, message)
		}
	})
}

// TestTenThousandGrantsOnAThousandToolsLoadInSeconds holds the loader to a bound
// that only a compilation for each pair would break.
func TestTenThousandGrantsOnAThousandToolsLoadInSeconds(t *testing.T) {
	source := made(t, 1000)
	grants := layouts[0].grants(10_000)
	for i, grant := range grants {
		grant.Condition = fmt.Sprintf("args.number < %d", 100+i)
	}
	start := time.Now()
	with(t, source, grants...)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("loading took %s", took)
	} else {
		t.Logf("loading took %s", took)
	}
}
