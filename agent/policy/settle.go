// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// Bill is what is known of what a call took.
type Bill struct {
	// State is how the call ended.
	State writv1.OutcomeState
	// Duration is how long it ran; zero is not known.
	Duration time.Duration
	// Spent is what its response told: see [Bundle.Spent].
	Spent []*writv1.Spending
	// Time is when the bill became known.
	Time time.Time
	// Window returns the start of the newest window of a shared budget's balance, zero
	// where there is none. Nil: nothing is shared.
	Window func(terms *writv1.LeaseAsk) time.Time
}

// Settled is what a bill comes to.
type Settled struct {
	// GivenBack is what was reserved and not taken.
	GivenBack []*writv1.Reserve
	// Overrun is what was taken beyond the worst case.
	Overrun []*writv1.Reserve
	// Spent is what was taken of tokens and money, at worst where nothing tells how much
	// it was, and of the other dimensions that budgets on the tool count, where anything
	// tells.
	Spent []*writv1.Spending
}

// Spent returns what a response tells of what the call took. What it does not tell,
// or tells wrongly, is not known.
func (b *Bundle) Spent(tool *tools.Tool, response protoreflect.Message) []*writv1.Spending {
	entry := b.entries[tool.Name]
	if entry == nil || entry.meter.response == nil {
		return nil
	}
	var t tally
	t.add(response, entry.meter.response, "")
	var spent []*writv1.Spending
	for d := range dimensionsEnd {
		if t.found[d] && (t.faults[d] == nil || t.faults[d].reason == writv1.Reason_REASON_BUDGET_TOO_MUCH) {
			spent = append(spent, &writv1.Spending{Dimension: writv1.Dimension(d), Amount: t.sums[d]})
		}
	}
	return spent
}

// Settle holds the bill of a call that was allowed under facts against what it
// reserved. A call that did not start gives all back, and of what nobody saw the worst
// case is taken. The session of the facts names whose balances they are.
func (b *Bundle) Settle(c *Call, reserved []*writv1.Reserve, f *writv1.Facts, bill Bill) Settled {
	if bill.State == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		return Settled{GivenBack: reserved}
	}
	entry := b.find(c)
	if entry == nil || !entry.meter.priced() && entry.meter.plain(entry.budgets) {
		return Settled{}
	}
	var out Settled
	read := b.read(c)
	if bill.State == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || bill.State == writv1.OutcomeState_OUTCOME_STATE_FAILED {
		out = read.settle(c, reserved, f, &bill)
	}
	for _, d := range prices {
		if _, told := spentOf(out.Spent, d); told {
			continue
		}
		if amount := read.took(d, &bill); amount > 0 {
			out.Spent = append(out.Spent, &writv1.Spending{Dimension: d, Amount: amount})
		}
	}
	return out
}

// prices are the dimensions of which it is always told what a call took.
var prices = [...]writv1.Dimension{
	writv1.Dimension_DIMENSION_INPUT_TOKENS, writv1.Dimension_DIMENSION_OUTPUT_TOKENS, writv1.Dimension_DIMENSION_MONEY,
}

// priced says whether anything may tell what a call takes of tokens or money.
func (m *meter) priced() bool {
	return m.response != nil || slices.ContainsFunc(prices[:], func(d writv1.Dimension) bool { return m.known[d] })
}

// took returns what a call took of tokens or money: its worst case where nothing tells.
func (r *reading) took(d writv1.Dimension, bill *Bill) int64 {
	if amount, known := r.actual(d, bill); known {
		return amount
	}
	if !r.entry.meter.known[d] {
		return 0
	}
	amount, unknown := r.amount(d)
	if unknown != nil {
		return 0
	}
	return amount
}

// settle holds a bill against what the budgets on the tool reserved.
func (r *reading) settle(c *Call, reserved []*writv1.Reserve, f *writv1.Facts, bill *Bill) Settled {
	var out Settled
	var told [dimensionsEnd]bool
	for _, budget := range r.entry.bearing(f.GetSession()) {
		d := budget.draw(c, r, f)
		var taken *writv1.Reserve
		if d.amount > 0 && len(reserved) > 0 {
			taken, reserved = reserved[0], reserved[1:]
		}
		actual, known := r.actual(budget.dimension, bill)
		if !known {
			continue
		}
		if !told[budget.dimension] {
			told[budget.dimension] = true
			out.Spent = append(out.Spent, &writv1.Spending{Dimension: budget.dimension, Amount: actual})
		}
		switch {
		case actual < d.amount && taken != nil:
			back := proto.CloneOf(taken)
			back.Amount = d.amount - actual
			out.GivenBack = append(out.GivenBack, back)
		case actual > d.amount:
			d.amount = actual - d.amount
			over := budget.reserve(&d, bill.Time)
			start := budget.window.Start(bill.Time)
			if budget.shared != nil {
				start = bill.windowOf(&d)
			}
			if start.After(d.start) {
				over.WindowStart = timestamppb.New(start)
			}
			out.Overrun = append(out.Overrun, over)
		}
	}
	return out
}

// windowOf returns the start of the newest window that a draw on a shared budget may pay
// an overrun from.
func (bill *Bill) windowOf(d *draw) time.Time {
	if bill.Window == nil {
		return d.start
	}
	return bill.Window(d.key.Terms)
}

// plain says whether the budgets count nothing but what is known before the call.
func (m *meter) plain(on []*budget) bool {
	for _, b := range on {
		switch b.dimension {
		case writv1.Dimension_DIMENSION_CALLS, writv1.Dimension_DIMENSION_WRITES, writv1.Dimension_DIMENSION_BYTES_OUT:
		default:
			return false
		}
	}
	return true
}

// actual returns what the call took of a dimension, where anything tells.
func (r *reading) actual(d writv1.Dimension, bill *Bill) (int64, bool) {
	if amount, ok := spentOf(bill.Spent, d); ok {
		return amount, true
	}
	switch d {
	case writv1.Dimension_DIMENSION_WALL_TIME:
		return milliseconds(bill.Duration), bill.Duration > 0
	case writv1.Dimension_DIMENSION_MONEY:
		return r.actualMoney(bill)
	default:
		return 0, false
	}
}

// actualMoney is the price of the tokens that the response tells, where a token has a
// price.
func (r *reading) actualMoney(bill *Bill) (int64, bool) {
	m := r.entry.meter
	if m.cost.GetInputTokenNanoDollars() == 0 && m.cost.GetOutputTokenNanoDollars() == 0 {
		return 0, false
	}
	told := false
	if _, unknown := r.amount(writv1.Dimension_DIMENSION_MONEY); unknown != nil {
		return 0, false
	}
	sum, unknown := m.money(r.counted, func(t *tally, d writv1.Dimension) (int64, *uncounted) {
		if amount, ok := spentOf(bill.Spent, d); ok {
			told = true
			return amount, nil
		}
		return m.worst(t, d)
	})
	return sum, told && unknown == nil
}

func spentOf(spent []*writv1.Spending, d writv1.Dimension) (int64, bool) {
	for _, s := range spent {
		if s.GetDimension() == d {
			return s.GetAmount(), true
		}
	}
	return 0, false
}

// Amount tells an amount of a dimension with its unit.
func Amount(d writv1.Dimension, amount int64) string {
	unit := ""
	switch d {
	case writv1.Dimension_DIMENSION_MONEY:
		return money(amount)
	case writv1.Dimension_DIMENSION_WALL_TIME:
		if amount <= int64(1<<62/time.Millisecond) {
			return (time.Duration(amount) * time.Millisecond).String()
		}
		return strconv.FormatInt(amount, 10) + "ms"
	case writv1.Dimension_DIMENSION_INPUT_TOKENS:
		unit = "input token"
	case writv1.Dimension_DIMENSION_OUTPUT_TOKENS:
		unit = "output token"
	case writv1.Dimension_DIMENSION_WRITES:
		unit = "write"
	case writv1.Dimension_DIMENSION_BYTES_OUT:
		unit = "byte"
	default:
		unit = "call"
	}
	if amount != 1 {
		unit += "s"
	}
	return strconv.FormatInt(amount, 10) + " " + unit
}

// money writes nano-dollars as dollars with at least two decimals.
func money(nano int64) string {
	const dollar = 1_000_000_000
	digits := fmt.Sprintf("%09d", nano%dollar)
	for len(digits) > 2 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	return fmt.Sprintf("$%d.%s", nano/dollar, digits)
}
