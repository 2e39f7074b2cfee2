// SPDX-License-Identifier: Apache-2.0

// Package budgets keeps what has been taken from budgets. It is a pure machine:
// reservations and what is given back go in, balances come out; the clock is a
// parameter, nothing is written, and the same events in any order that keeps
// each give-back after its reservation end in the same balances, so that a
// [Machine] can be folded from a ledger.
//
// It does not decide: whether a balance leaves room is agent/policy's to say.
// It does not lock: its owner does.
package budgets

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Key names one balance.
type Key struct {
	// Budget is the budget's name in the bundle.
	Budget string
	// Scope are the values of the budget's scope, in its order.
	Scope []string
	// Dimension is what is counted.
	Dimension writv1.Dimension
	// Window is the length of the budget's window.
	Window time.Duration
}

// WindowStart returns the start of the window that holds now: windows start at
// multiples of their length since the Unix epoch.
func (k Key) WindowStart(now time.Time) time.Time {
	if k.Window <= 0 {
		return time.Unix(0, 0).UTC()
	}
	return time.Unix(0, now.UnixNano()-now.UnixNano()%int64(k.Window)).UTC()
}

// id is the map key of a balance: its parts, each after its length, so that no
// two keys are told alike.
func id(budget string, dimension writv1.Dimension, scope []string) string {
	b := make([]byte, 0, 128)
	b = append(strconv.AppendInt(b, int64(len(budget)), 10), ':')
	b = strconv.AppendInt(append(b, budget...), int64(dimension), 10)
	for _, part := range scope {
		b = append(strconv.AppendInt(append(b, ','), int64(len(part)), 10), ':')
		b = append(b, part...)
	}
	return string(b)
}

// balance is what one key has taken in one window.
type balance struct {
	budget    string
	scope     []string
	dimension writv1.Dimension

	start time.Time
	taken int64
	// version counts changes, so that a reader can tell whether what it read
	// still stands. It is not part of the folded state.
	version uint64
}

// Machine holds balances. The zero value is empty and ready.
type Machine struct {
	balances map[string]*balance
	next     uint64
}

// Version tells one reading of a balance from a later one.
type Version uint64

// Read returns the balance of each key in the window of now, in the order of
// keys, and the newest version among them.
func (m *Machine) Read(now time.Time, keys []Key) ([]*writv1.Balance, Version) {
	if len(keys) == 0 {
		return nil, 0
	}
	read := make([]*writv1.Balance, 0, len(keys))
	var newest uint64
	for _, key := range keys {
		start := key.WindowStart(now)
		out := &writv1.Balance{
			Budget:      key.Budget,
			Key:         key.Scope,
			Dimension:   key.Dimension,
			WindowStart: timestamppb.New(start),
		}
		if held, ok := m.balances[id(key.Budget, key.Dimension, key.Scope)]; ok {
			newest = max(newest, held.version)
			if held.start.Equal(start) {
				out.Taken = held.taken
			}
		}
		read = append(read, out)
	}
	return read, Version(newest)
}

// Current says whether nothing that keys name has changed since version was read.
func (m *Machine) Current(keys []Key, version Version) bool {
	var newest uint64
	for _, key := range keys {
		if held, ok := m.balances[id(key.Budget, key.Dimension, key.Scope)]; ok {
			newest = max(newest, held.version)
		}
	}
	return Version(newest) == version
}

// Reserve takes what an ALLOW reserves. A reservation of an older window than
// the balance's is already past and changes nothing.
func (m *Machine) Reserve(reserve *writv1.Reserve) {
	m.add(reserve, reserve.GetAmount())
}

// GiveBack returns what was reserved for a call that did not run. What belongs
// to a window that is past is not given back.
func (m *Machine) GiveBack(reserve *writv1.Reserve) {
	m.add(reserve, -reserve.GetAmount())
}

func (m *Machine) add(reserve *writv1.Reserve, amount int64) {
	if m.balances == nil {
		m.balances = make(map[string]*balance)
	}
	name := id(reserve.GetBudget(), reserve.GetDimension(), reserve.GetKey())
	start := reserve.GetWindowStart().AsTime()
	held, ok := m.balances[name]
	if !ok {
		held = &balance{budget: reserve.GetBudget(), scope: reserve.GetKey(), dimension: reserve.GetDimension(), start: start}
		m.balances[name] = held
	}
	switch {
	case start.Before(held.start):
		return
	case start.After(held.start):
		held.start, held.taken = start, 0
	}
	held.taken = max(0, held.taken+amount)
	m.next++
	held.version = m.next
}

// Forget drops balances whose window began before the given time, so that the
// machine does not grow with every user it has ever seen.
func (m *Machine) Forget(before time.Time) {
	for name, held := range m.balances {
		if held.start.Before(before) {
			delete(m.balances, name)
		}
	}
}

// Balances returns every balance in a fixed order, those of which nothing is taken
// too: their windows are closed to what comes late.
func (m *Machine) Balances() []*writv1.Balance {
	out := make([]*writv1.Balance, 0, len(m.balances))
	for _, name := range slices.Sorted(maps.Keys(m.balances)) {
		held := m.balances[name]
		out = append(out, &writv1.Balance{
			Budget: held.budget, Key: held.scope, Dimension: held.dimension,
			WindowStart: timestamppb.New(held.start), Taken: held.taken,
		})
	}
	return out
}

// Restore takes back one balance of [Machine.Balances].
func (m *Machine) Restore(b *writv1.Balance) {
	m.add(&writv1.Reserve{
		Budget: b.GetBudget(), Key: b.GetKey(), Dimension: b.GetDimension(), WindowStart: b.GetWindowStart(),
	}, b.GetTaken())
}

// Dump writes the state as lines in a fixed order, equal for equal states.
func (m *Machine) Dump() string {
	lines := make([]string, 0, len(m.balances))
	for name, held := range m.balances {
		if held.taken != 0 {
			lines = append(lines, fmt.Sprintf("budget %s %d %d\n", name, held.start.UnixNano(), held.taken))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
