// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

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
