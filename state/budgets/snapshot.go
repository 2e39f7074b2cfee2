// SPDX-License-Identifier: Apache-2.0

package budgets

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Held returns every balance in a fixed order, those of which nothing is taken too:
// their windows are closed to what comes late.
func (m *Machine) Held() []*writv1.HeldBalance {
	out := make([]*writv1.HeldBalance, 0, len(m.balances))
	for _, name := range slices.Sorted(maps.Keys(m.balances)) {
		held := m.balances[name]
		h := &writv1.HeldBalance{
			Budget: held.budget, Key: held.scope, Dimension: held.dimension,
			WindowStart: timestamppb.New(held.start), Taken: held.taken, Alerts: held.alerts,
		}
		if held.rolling > 0 {
			h.Rolling = durationpb.New(held.rolling)
		}
		if !held.expires.IsZero() {
			h.ExpireTime = timestamppb.New(held.expires)
		}
		for _, p := range held.parts {
			h.Parts = append(h.Parts, &writv1.BalancePart{Start: timestamppb.New(p.start), Taken: p.taken})
		}
		out = append(out, h)
	}
	return out
}

// Restore takes back one balance of [Machine.Held], before every other event.
func (m *Machine) Restore(h *writv1.HeldBalance) {
	held := m.hold(h, h.GetRolling().AsDuration())
	held.taken, held.alerts = h.GetTaken(), h.GetAlerts()
	if h.GetExpireTime() != nil {
		held.expires = h.GetExpireTime().AsTime()
	}
	for _, p := range h.GetParts() {
		held.parts = append(held.parts, part{start: p.GetStart().AsTime(), taken: p.GetTaken()})
	}
	m.next++
	held.version = m.next
}

// Dump writes the state as lines in a fixed order, equal for equal states.
func (m *Machine) Dump() string {
	lines := make([]string, 0, len(m.balances))
	for name, held := range m.balances {
		if held.taken != 0 {
			lines = append(lines, fmt.Sprintf("budget %s %d %d\n", name, held.start.UnixNano(), held.taken))
		}
		for _, p := range held.parts {
			if p.taken != 0 {
				lines = append(lines, fmt.Sprintf("budget %s %d %d\n", name, p.start.UnixNano(), p.taken))
			}
		}
		for _, a := range held.alerts {
			lines = append(lines, fmt.Sprintf("alert %s %d %s %d\n", name, a.GetWindowStart().AsTime().UnixNano(), a.GetKind(), a.GetPercent()))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
