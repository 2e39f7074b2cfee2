// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

// perCall is what a call takes from a budget of DIMENSION_CALLS, the only
// dimension there is.
const perCall = 1

// budget is a budget of the bundle.
type budget struct {
	name      string
	scopes    []writv1.BudgetScope
	dimension writv1.Dimension
	limit     int64
	window    time.Duration
	enough    *writv1.Check
}

func newBudget(b *writv1.Budget) *budget {
	return &budget{
		name:      b.GetName(),
		scopes:    b.GetScopes(),
		dimension: b.GetDimension(),
		limit:     b.GetLimit(),
		window:    b.GetWindow().AsDuration(),
		enough:    passing("budget", b.GetName()),
	}
}

// key names the balance that the call draws on.
func (b *budget) key(who *writv1.Principal, tool string) budgets.Key {
	scope := make([]string, len(b.scopes))
	for i, s := range b.scopes {
		switch s {
		case writv1.BudgetScope_BUDGET_SCOPE_TENANT:
			scope[i] = who.GetTenant()
		case writv1.BudgetScope_BUDGET_SCOPE_USER:
			scope[i] = who.GetUser()
		case writv1.BudgetScope_BUDGET_SCOPE_WORKLOAD:
			scope[i] = who.GetWorkload()
		case writv1.BudgetScope_BUDGET_SCOPE_TOOL:
			scope[i] = tool
		}
	}
	return budgets.Key{Budget: b.name, Scope: scope, Dimension: b.dimension, Window: b.window}
}

// Balances names the balances that Decide will read for the call, in their order.
func (b *Bundle) Balances(c *Call) []budgets.Key {
	entry := b.find(c)
	if entry == nil || len(entry.budgets) == 0 {
		return nil
	}
	keys := make([]budgets.Key, len(entry.budgets))
	for i, budget := range entry.budgets {
		keys[i] = budget.key(c.Principal, entry.tool.Name)
	}
	return keys
}

// budgets passes a call that every budget on its tool has room for, and reserves
// from all of them; the reservations stand only on an ALLOW. The limits of sessions
// are held first.
func (e *evaluation) budgets() {
	e.limits()
	for _, b := range e.entry.budgets {
		key := b.key(e.call.Principal, e.entry.tool.Name)
		start := key.WindowStart(e.now)
		if !b.room(key, start, e.facts.GetBalances()) {
			e.deny(failing("budget", b.name, writv1.Reason_REASON_BUDGET_EXHAUSTED, "",
				fmt.Sprintf("the budget is used up; it refills at %s", start.Add(b.window).Format(time.RFC3339))))
			continue
		}
		e.pass(b.enough)
		e.effects = append(e.effects, &writv1.Effect{Effect: &writv1.Effect_Reserve{Reserve: &writv1.Reserve{
			Budget:      b.name,
			Key:         key.Scope,
			WindowStart: timestamppb.New(start),
			Dimension:   b.dimension,
			Amount:      perCall,
		}}})
	}
}

// Stands says whether an ALLOW that was decided under other balances stands under
// these: whether Decide, with all else as it was, would return the same decision. Balances
// say nothing but whether there is room, so that a decision does not have to be made
// again for each call that others made meanwhile.
func (b *Bundle) Stands(c *Call, made *Result, f *writv1.Facts) bool {
	entry := b.find(c)
	if entry == nil || made.Decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		return false
	}
	now := f.GetTime().AsTime()
	for _, budget := range entry.budgets {
		key := budget.key(c.Principal, entry.tool.Name)
		if !budget.room(key, key.WindowStart(now), f.GetBalances()) {
			return false
		}
	}
	return true
}

// room says whether the balances leave room for the call in the window that begins
// at start.
func (b *budget) room(key budgets.Key, start time.Time, balances []*writv1.Balance) bool {
	return taken(key, start, balances) <= b.limit-perCall
}

// taken returns what the facts say was taken in the window that begins at start.
// A balance of an earlier window counts as zero; one of a later window, which a
// clock set back would show, or one that names none, counts in full.
func taken(key budgets.Key, start time.Time, balances []*writv1.Balance) int64 {
	for _, balance := range balances {
		same := balance.GetBudget() == key.Budget && balance.GetDimension() == key.Dimension && slices.Equal(balance.GetKey(), key.Scope)
		if same && (balance.WindowStart == nil || !balance.GetWindowStart().AsTime().Before(start)) {
			return balance.GetTaken()
		}
	}
	return 0
}
