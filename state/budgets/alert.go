// SPDX-License-Identifier: Apache-2.0

package budgets

import (
	"slices"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Alerted says whether an alert of that kind, at that threshold or a higher one, was
// given already in the key's window at the time now.
func (m *Machine) Alerted(now time.Time, key Key, kind writv1.AlertKind, percent uint32) bool {
	held, ok := m.balances[key.id()]
	if !ok {
		return false
	}
	start := key.Window.Start(now)
	return slices.ContainsFunc(held.alerts, func(a *writv1.HeldAlert) bool {
		if a.GetKind() != kind || a.GetPercent() < percent {
			return false
		}
		at := a.GetWindowStart().AsTime()
		return !at.Before(start) || held.rolling > 0 && held.counts(at, now)
	})
}

// Alert notes an alert that was given. It is not a change that makes a reading of the
// balance stale.
func (m *Machine) Alert(a *writv1.AlertRecord) {
	held := m.hold(a, a.GetRolling().AsDuration())
	if !held.take(a.GetWindowStart().AsTime(), 0) {
		return
	}
	held.alerts = append(held.alerts, &writv1.HeldAlert{Kind: a.GetKind(), Percent: a.GetPercent(), WindowStart: a.GetWindowStart()})
	slices.SortFunc(held.alerts, func(a, b *writv1.HeldAlert) int {
		return 10000*int(a.GetKind()-b.GetKind()) + int(a.GetPercent()) - int(b.GetPercent())
	})
}
