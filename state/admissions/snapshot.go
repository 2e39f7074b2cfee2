// SPDX-License-Identifier: Apache-2.0

package admissions

import (
	"fmt"
	"time"
)

// Held returns every admission that is kept, and the time of the newest decision: what
// [Machine.Restore] and [Machine.Advance] make the machine again from. An open one
// whose key another has taken since is returned without it.
func (m *Machine) Held() ([]*Held, time.Time) {
	held := make([]*Held, 0, len(m.keys))
	for _, h := range m.order {
		if m.keys[h.Key] == h {
			held = append(held, h)
		}
	}
	for _, h := range m.Open() {
		if m.keys[h.Key] == h {
			continue
		}
		without := *h
		without.Key = Digest{}
		held = append(held, &without)
	}
	return held, m.newest
}

// Restore takes back one admission of [Machine.Held]; they MUST come in its order, and
// before every other event.
func (m *Machine) Restore(held *Held) error {
	if _, twice := m.open[held.ID]; twice {
		return fmt.Errorf("admission %s is kept twice", held.ID)
	}
	m.Take(held.Claim)
	if held.Outcome != nil {
		m.Finish(held.ID, held.Outcome)
	}
	return nil
}

// Advance forgets what is too old at the time of the newest decision.
func (m *Machine) Advance(newest time.Time) {
	if newest.After(m.newest) {
		m.newest = newest
	}
	m.forget(m.newest)
}
