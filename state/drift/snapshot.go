// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Held returns everything that is kept, in a fixed order, alarms apart that nobody took.
func (m *Machine) Held() []*writv1.HeldDrift {
	var out []*writv1.HeldDrift
	for _, name := range slices.Sorted(maps.Keys(m.series)) {
		s := m.series[name]
		h := &writv1.HeldDrift{
			Series: name, Tick: m.now, FirstTick: m.first, HourTicks: m.seen, Mean: slices.Clone(s.mean[:]),
			Spread: s.phi, Unit: s.unit, Value: s.value, Events: s.events, HourSum: s.sum, HourSquares: s.squares, HourEvents: s.count,
			Score: s.score, SinceTick: s.since, Seen: s.seen, Expected: s.expected, QuietTick: s.quiet,
		}
		for _, days := range s.days {
			h.Days = append(h.Days, uint32(days)) //nolint:gosec // at most learnDays
		}
		out = append(out, h)
	}
	return out
}

// Restore takes back one part of [Machine.Held], before every other event.
func (m *Machine) Restore(h *writv1.HeldDrift) {
	m.now, m.first, m.seen = h.GetTick(), h.GetFirstTick(), h.GetHourTicks()
	if m.series == nil {
		m.series = make(map[string]*series)
	}
	s := &series{
		phi: h.GetSpread(), unit: h.GetUnit(), value: h.GetValue(), events: h.GetEvents(),
		sum: h.GetHourSum(), squares: h.GetHourSquares(), count: h.GetHourEvents(),
		score: h.GetScore(), since: h.GetSinceTick(), seen: h.GetSeen(), expected: h.GetExpected(), quiet: h.GetQuietTick(),
	}
	copy(s.mean[:], h.GetMean())
	for i, days := range h.GetDays() {
		if i < len(s.days) {
			s.days[i] = int(days)
		}
	}
	m.series[h.GetSeries()] = s
}

// Dump writes the state as lines in a fixed order, equal for equal states.
func (m *Machine) Dump() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.series)) {
		fmt.Fprintf(&out, "drift %s at %d since %d: %v\n", name, m.now, m.first, *m.series[name])
	}
	return out.String()
}
