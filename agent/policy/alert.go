// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"math/bits"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

// Alert is one that a decision or a bill gives rise to, unless it was given before in
// the window of its balance.
type Alert struct {
	Key    budgets.Key
	Record *writv1.AlertRecord
}

// Alerts returns the alerts that a decision gives rise to: the highest threshold that
// an ALLOW reaches of each budget, and the budgets that deny. Most budgets give none,
// and then nothing is looked at.
func (b *Bundle) Alerts(c *Call, made *Result, f *writv1.Facts) []Alert {
	entry := b.find(c)
	if entry == nil || !entry.alerting || c.reading == nil || c.reading.entry != entry {
		return nil
	}
	denied := make(map[string]bool)
	for _, check := range made.Decision.GetChecks() {
		if check.GetStage() == "budget" && check.GetReason() == writv1.Reason_REASON_BUDGET_EXHAUSTED {
			denied[check.GetName()] = true
		}
	}
	allowed := made.Decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW
	var alerts []Alert
	for _, budget := range entry.bearing(f.GetSession()) {
		if len(budget.alerts) == 0 || !allowed && !denied[budget.name] {
			continue
		}
		d := budget.draw(c, c.reading, f)
		if !allowed {
			alerts = append(alerts, budget.alert(&d, writv1.AlertKind_ALERT_KIND_EXHAUSTED, 0, f.GetTime().AsTime()))
			continue
		}
		if d.taken > math.MaxInt64-d.amount {
			d.taken = math.MaxInt64
		} else {
			d.taken += d.amount
		}
		if percent := budget.reached(d.taken); percent > 0 {
			alerts = append(alerts, budget.alert(&d, writv1.AlertKind_ALERT_KIND_THRESHOLD, percent, f.GetTime().AsTime()))
		}
	}
	return alerts
}

// Overruns returns the alerts that overruns give rise to, of the budgets that give any.
func (b *Bundle) Overruns(c *Call, overrun []*writv1.Reserve, now time.Time) []Alert {
	entry := b.find(c)
	if entry == nil || !entry.alerting {
		return nil
	}
	var alerts []Alert
	for _, r := range overrun {
		for _, budget := range entry.budgets {
			if budget.name != r.GetBudget() || len(budget.alerts) == 0 {
				continue
			}
			d := draw{
				key:   budgets.Key{Budget: r.GetBudget(), Scope: r.GetKey(), Dimension: r.GetDimension(), Window: budget.window},
				start: r.GetWindowStart().AsTime(), taken: r.GetAmount(),
			}
			alerts = append(alerts, budget.alert(&d, writv1.AlertKind_ALERT_KIND_OVERRUN, 0, now))
		}
	}
	return alerts
}

func (b *budget) alert(d *draw, kind writv1.AlertKind, percent uint32, now time.Time) Alert {
	record := &writv1.AlertRecord{
		Kind: kind, Time: timestamppb.New(now), Budget: b.name, Key: d.key.Scope, Dimension: b.dimension,
		WindowStart: timestamppb.New(d.start), Percent: percent, Taken: d.taken, Limit: b.limit,
	}
	if rolling := b.window.Rolling(); rolling > 0 {
		record.Rolling = durationpb.New(rolling)
	}
	return Alert{Key: d.key, Record: record}
}

// reached returns the highest threshold that is reached; zero is none.
func (b *budget) reached(taken int64) uint32 {
	for i := len(b.alerts) - 1; i >= 0; i-- {
		if taken >= percentOf(b.limit, b.alerts[i]) {
			return b.alerts[i]
		}
	}
	return 0
}

// percentOf returns a part of a limit, rounded up.
func percentOf(limit int64, percent uint32) int64 {
	high, low := bits.Mul64(uint64(limit), uint64(percent)) //nolint:gosec // no limit is negative
	if high >= 100 {
		return math.MaxInt64
	}
	part, rest := bits.Div64(high, low, 100)
	if rest > 0 {
		part++
	}
	return int64(min(part, math.MaxInt64)) //nolint:gosec // bounded
}
