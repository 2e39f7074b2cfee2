// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

// budget is a budget of the bundle.
type budget struct {
	name      string
	scopes    []writv1.BudgetScope
	dimension writv1.Dimension
	limit     int64
	window    budgets.Window
	soft      bool
	// alerts are the thresholds in percent, in ascending order.
	alerts []uint32
	// contract is the one in whose runs it counts; empty is everywhere.
	contract string
	// shared are the terms of a budget that agents share, but for whose balance it is;
	// nil for any other.
	shared *writv1.LeaseAsk
	enough *writv1.Check
}

func newBudget(b *writv1.Budget) *budget {
	return &budget{
		name:      b.GetName(),
		scopes:    b.GetScopes(),
		dimension: b.GetDimension(),
		limit:     b.GetLimit(),
		window:    budgets.WindowOf(b),
		soft:      b.GetCap() == writv1.BudgetCap_BUDGET_CAP_SOFT,
		alerts:    slices.Sorted(slices.Values(b.GetAlertPercents())),
		shared:    termsOf(b),
		enough:    passing("budget", b.GetName()),
	}
}

// bearing returns the budgets that bear on a call in a session: those of contracts count
// in runs of theirs.
func (t *entry) bearing(session *writv1.SessionSummary) []*budget {
	if !t.contracted {
		return t.budgets
	}
	var on []*budget
	for _, b := range t.budgets {
		if b.contract == "" || b.contract == session.GetRun().GetContract() {
			on = append(on, b)
		}
	}
	return on
}

// ofSession says whether the budget's key is a part of the session's summary.
func (b *budget) ofSession() bool {
	return slices.ContainsFunc(b.scopes, func(s writv1.BudgetScope) bool { return s >= writv1.BudgetScope_BUDGET_SCOPE_WORKFLOW })
}

// key names the balance that the call draws on. Outside any run the parts that are
// the run's are empty: such calls share a balance.
func (b *budget) key(who *writv1.Principal, tool string, session *writv1.SessionSummary) budgets.Key {
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
		case writv1.BudgetScope_BUDGET_SCOPE_WORKFLOW:
			scope[i] = session.GetRun().GetContract()
		case writv1.BudgetScope_BUDGET_SCOPE_FEATURE:
			scope[i] = session.GetRun().GetFeature()
		case writv1.BudgetScope_BUDGET_SCOPE_RUN:
			scope[i] = hex.EncodeToString(session.GetRun().GetId())
		case writv1.BudgetScope_BUDGET_SCOPE_SESSION:
			scope[i] = hex.EncodeToString(session.GetId())
		}
	}
	return budgets.Key{Budget: b.name, Scope: scope, Dimension: b.dimension, Window: b.window, Terms: b.terms(scope)}
}

// Balances names the balances that Decide will read for the call, in their order.
// The session is the one among the facts; only budgets whose scope is a part of it
// ask for it (Needs.Session).
func (b *Bundle) Balances(c *Call, session *writv1.SessionSummary) []budgets.Key {
	entry := b.find(c)
	if entry == nil || len(entry.budgets) == 0 {
		return nil
	}
	on := entry.bearing(session)
	keys := make([]budgets.Key, len(on))
	for i, budget := range on {
		keys[i] = budget.key(c.Principal, entry.tool.Name, session)
		if budget.window.Rolling() > 0 && c.reading != nil {
			amount, _ := c.reading.amount(budget.dimension)
			keys[i].Room = budget.limit - amount
		}
	}
	return keys
}

// draw is what a call would take from a budget, and what the budget has.
type draw struct {
	key    budgets.Key
	amount int64
	// unknown says why the amount is not known.
	unknown *uncounted
	// start is that of the window that pays, taken what was taken in it, roomTime
	// when one that rolls has room.
	start    time.Time
	taken    int64
	roomTime *timestamppb.Timestamp
	// lease is the agent's slice of a shared budget, nil where it has none.
	lease *writv1.LeaseFact
}

// draw reads a balance among the facts. One of an earlier window counts as zero. One of
// a later window, which a clock set back shows, or that names none, counts in full, and
// it is the later window that pays.
func (b *budget) draw(c *Call, r *reading, f *writv1.Facts) draw {
	d := draw{key: b.key(c.Principal, r.entry.tool.Name, f.GetSession()), start: b.window.Start(f.GetTime().AsTime())}
	d.amount, d.unknown = r.amount(b.dimension)
	for _, balance := range f.GetBalances() {
		if balance.GetBudget() != d.key.Budget || balance.GetDimension() != d.key.Dimension || !slices.Equal(balance.GetKey(), d.key.Scope) {
			continue
		}
		if b.shared != nil {
			d.slice(balance)
			return d
		}
		if balance.WindowStart == nil {
			d.taken = balance.GetTaken()
		} else if at := balance.GetWindowStart().AsTime(); !at.Before(d.start) || b.window.Rolling() > 0 {
			d.taken, d.roomTime = balance.GetTaken(), balance.GetRoomTime()
			if at.After(d.start) {
				d.start = at
			}
		}
		return d
	}
	return d
}

// room says whether the call may draw.
func (b *budget) room(d *draw) bool {
	if b.shared != nil {
		return d.unknown == nil && d.lease != nil && d.amount <= d.left()
	}
	return d.unknown == nil && (b.soft || d.taken <= b.limit-d.amount)
}

// reserve returns the effect of a draw; nil when it takes nothing.
func (b *budget) reserve(d *draw, now time.Time) *writv1.Reserve {
	if d.amount == 0 {
		return nil
	}
	reserve := &writv1.Reserve{
		Budget:      b.name,
		Key:         d.key.Scope,
		WindowStart: timestamppb.New(d.start),
		Dimension:   b.dimension,
		Amount:      d.amount,
	}
	if rolling := b.window.Rolling(); rolling > 0 {
		reserve.Rolling = durationpb.New(rolling)
	}
	if b.window.Endless() {
		reserve.ExpireTime = timestamppb.New(now.Add(budgets.EndlessKeptFor))
	}
	return reserve
}

// budgets passes a call that every budget on its tool has room for, and reserves
// from all of them; the reservations stand only on an ALLOW. The limits of sessions
// are held first.
func (e *evaluation) budgets() {
	e.limits()
	for _, b := range e.entry.bearing(e.facts.GetSession()) {
		d := b.draw(e.call, e.reading, e.facts)
		if !b.room(&d) {
			e.deny(b.refusal(&d))
			continue
		}
		e.pass(b.enough)
		if reserve := b.reserve(&d, e.now); reserve != nil {
			e.effects = append(e.effects, &writv1.Effect{Effect: &writv1.Effect_Reserve{Reserve: reserve}})
		}
	}
}

// refusal returns the check of a budget that has no room: what is left, and when there
// will be room.
func (b *budget) refusal(d *draw) *writv1.Check {
	if d.unknown != nil {
		return failing("budget", b.name, d.unknown.reason, d.unknown.field, d.unknown.message)
	}
	room := &writv1.BudgetRoom{Dimension: b.dimension, Left: max(0, b.limit-d.taken), Asked: d.amount}
	if d.amount > b.limit {
		check := failing("budget", b.name, writv1.Reason_REASON_BUDGET_TOO_MUCH, "",
			fmt.Sprintf("the call takes %s and the budget never has more than %s", Amount(b.dimension, d.amount), Amount(b.dimension, b.limit)))
		check.Room = room
		return check
	}
	if b.shared != nil {
		return b.sharedRefusal(d, room)
	}
	switch {
	case b.window.Rolling() > 0:
		room.RefillTime = d.roomTime
	case !b.window.Endless():
		room.RefillTime = timestamppb.New(b.window.End(d.start))
	}
	check := failing("budget", b.name, writv1.Reason_REASON_BUDGET_EXHAUSTED, "", roomText(room))
	check.Room = room
	return check
}

// roomText tells what is left of a budget, and when there is more.
func roomText(room *writv1.BudgetRoom) string {
	text := "the budget is used up"
	if room.GetLeft() > 0 {
		text = fmt.Sprintf("the budget has %s left and the call takes %s",
			Amount(room.GetDimension(), room.GetLeft()), Amount(room.GetDimension(), room.GetAsked()))
	}
	if room.GetRefillTime() == nil {
		return text + "; it does not refill"
	}
	return text + "; it refills at " + room.GetRefillTime().AsTime().Format(time.RFC3339)
}

// Stands says whether an ALLOW that was decided under other balances stands under
// these: whether Decide, with all else as it was, would return the same decision. Balances
// say nothing but whether there is room and which window pays, so that a decision does
// not have to be made again for each call that others made meanwhile.
func (b *Bundle) Stands(c *Call, made *Result, f *writv1.Facts) bool {
	entry := b.find(c)
	if entry == nil || made.Decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		return false
	}
	read := b.read(c)
	effects := made.Decision.GetEffects()
	for _, budget := range entry.bearing(f.GetSession()) {
		d := budget.draw(c, read, f)
		if !budget.room(&d) {
			return false
		}
		if d.amount == 0 {
			continue
		}
		// The reservations stand among the effects in the order of the budgets.
		for len(effects) > 0 && effects[0].GetReserve() == nil {
			effects = effects[1:]
		}
		if len(effects) == 0 || !effects[0].GetReserve().GetWindowStart().AsTime().Equal(d.start) {
			return false
		}
		effects = effects[1:]
	}
	return true
}
