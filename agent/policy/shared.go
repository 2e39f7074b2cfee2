// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

// usualLease is how long a slice lasts where the budget does not say
// (SharedBudget.lease in budget.proto).
const usualLease = time.Minute

// termsOf returns the terms of a budget that agents share, nil for any other.
func termsOf(b *writv1.Budget) *writv1.LeaseAsk {
	if b.GetShared() == nil {
		return nil
	}
	terms := &writv1.LeaseAsk{
		Budget: b.GetName(), Dimension: b.GetDimension(), Limit: b.GetLimit(), Window: b.GetWindow(), Calendar: b.GetCalendar(),
		Lease: b.GetShared().GetLease(), Report: max(b.GetShared().GetReport(), writv1.LeaseReport_LEASE_REPORT_LATER),
	}
	if terms.Lease == nil {
		terms.Lease = durationpb.New(usualLease)
	}
	return terms
}

// terms returns the budget's terms for one balance.
func (b *budget) terms(scope []string) *writv1.LeaseAsk {
	if b.shared == nil {
		return nil
	}
	t := b.shared
	return &writv1.LeaseAsk{
		Budget: t.GetBudget(), Key: scope, Dimension: t.GetDimension(), Limit: t.GetLimit(), Window: t.GetWindow(),
		Calendar: t.GetCalendar(), Lease: t.GetLease(), Report: t.GetReport(),
	}
}

// slice reads the agent's slice among the facts.
func (d *draw) slice(balance *writv1.Balance) {
	if balance.GetLease() == nil || balance.WindowStart == nil {
		return
	}
	d.lease, d.taken, d.start = balance.GetLease(), balance.GetTaken(), balance.GetWindowStart().AsTime()
}

// left is what is left of the slice.
func (d *draw) left() int64 { return max(0, d.lease.GetCap()-d.taken) }

// sharedRefusal returns the check of a shared budget that has no room at this agent.
func (b *budget) sharedRefusal(d *draw, room *writv1.BudgetRoom) *writv1.Check {
	room.Left = d.left()
	if d.lease.GetExhausted() {
		room.RefillTime = d.lease.GetWindowEnd()
		check := failing("budget", b.name, writv1.Reason_REASON_BUDGET_EXHAUSTED, "", roomText(room))
		check.Room = room
		return check
	}
	text := "the agent has no slice of the budget yet, and asks for one; try again in a moment"
	if d.lease != nil {
		text = fmt.Sprintf("the agent's slice of the budget has %s left and the call takes %s; it asks for more, try again in a moment",
			Amount(b.dimension, d.left()), Amount(b.dimension, d.amount))
	}
	check := failing("budget", b.name, writv1.Reason_REASON_BUDGET_NO_LEASE, "", text)
	check.Room = room
	return check
}

// Shared names the budgets that agents share, in order.
func (b *Bundle) Shared() []string {
	var names []string
	for name, budget := range b.budgets {
		if budget.shared != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Draws returns what a call drew on shared budgets, or would have drawn if there had been
// more. A call that is denied for another reason draws on none.
func (b *Bundle) Draws(c *Call, made *Result, f *writv1.Facts) []leases.Draw {
	entry := b.find(c)
	if entry == nil || !entry.shared || c.reading == nil || c.reading.entry != entry {
		return nil
	}
	decision := made.Decision
	allowed := decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW
	if !allowed && decision.GetReason() != writv1.Reason_REASON_BUDGET_NO_LEASE && decision.GetReason() != writv1.Reason_REASON_BUDGET_EXHAUSTED {
		return nil
	}
	var draws []leases.Draw
	for _, budget := range entry.bearing(f.GetSession()) {
		if budget.shared == nil {
			continue
		}
		d := budget.draw(c, c.reading, f)
		enough := budget.room(&d)
		if !allowed && enough || d.unknown != nil || d.amount == 0 || d.amount > budget.limit {
			continue
		}
		draws = append(draws, leases.Draw{Terms: d.key.Terms, Amount: d.amount, Left: d.left(), Denied: !enough})
	}
	return draws
}

// ReportsFirst says whether the call draws on a shared budget of which the collector
// hears before the call is answered.
func (b *Bundle) ReportsFirst(c *Call, f *writv1.Facts) bool {
	entry := b.find(c)
	return entry != nil && entry.shared && slices.ContainsFunc(entry.bearing(f.GetSession()), func(b *budget) bool {
		return b.shared.GetReport() == writv1.LeaseReport_LEASE_REPORT_FIRST
	})
}
