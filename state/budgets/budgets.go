// SPDX-License-Identifier: Apache-2.0

// Package budgets keeps what has been taken from budgets. It is a pure machine:
// reservations, what is given back and what was taken beyond a reservation go in,
// balances come out; the clock is a parameter, nothing is written, and the same
// events in any order that keeps each give-back after its reservation end in the same
// balances, so that a [Machine] can be folded from a ledger.
//
// What it keeps of one key is bounded: one number, or for a [Window] that rolls one
// for each sixtieth of it.
//
// It does not decide: whether a balance leaves room is agent/policy's to say.
// It does not lock: its owner does.
package budgets

import (
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// keptFor is longer than any window (bundle.proto bounds it at 366 days), so that no
// balance that still counts is forgotten.
const keptFor = 367 * 24 * time.Hour

// EndlessKeptFor is how long a balance that is never refilled is kept after it was
// last drawn on. No session that was minted lasts that long.
const EndlessKeptFor = 31 * 24 * time.Hour

// Key names one balance.
type Key struct {
	// Budget is the budget's name in the bundle.
	Budget string
	// Scope are the values of the budget's scope, in its order.
	Scope []string
	// Dimension is what is counted.
	Dimension writv1.Dimension
	// Window is the budget's window.
	Window Window
	// Terms are those on which the agent asks for a slice of a budget that agents share,
	// nil for any other. Who reads the balance then reads the slice's.
	Terms *writv1.LeaseAsk
	// Room is the most that may have been taken if the call is to have room. It
	// decides on nothing but when a reading says that there will be room again.
	Room int64
}

// WindowStart returns the start of the window that holds now.
func (k Key) WindowStart(now time.Time) time.Time { return k.Window.Start(now) }

// id is the map key of a balance: its parts, each after its length, so that no
// two keys are told alike.
func id(budget string, dimension writv1.Dimension, rolling time.Duration, scope []string) string {
	b := make([]byte, 0, 128)
	b = append(strconv.AppendInt(b, int64(len(budget)), 10), ':')
	b = strconv.AppendInt(append(b, budget...), int64(dimension), 10)
	if rolling > 0 {
		b = strconv.AppendInt(append(b, '~'), int64(rolling), 10)
	}
	for _, part := range scope {
		b = append(strconv.AppendInt(append(b, ','), int64(len(part)), 10), ':')
		b = append(b, part...)
	}
	return string(b)
}

func (k Key) id() string { return id(k.Budget, k.Dimension, k.Window.Rolling(), k.Scope) }

// balance is what one key has taken in one window.
type balance struct {
	budget    string
	scope     []string
	dimension writv1.Dimension
	rolling   time.Duration

	// start is that of the newest window, or of the newest part of one that rolls.
	start time.Time
	// taken is what was taken in the window, parts in each part of one that rolls,
	// oldest first.
	taken int64
	parts []part
	// alerts are those that were given in the window.
	alerts []*writv1.HeldAlert
	// expires is when a balance that is never refilled may be forgotten.
	expires time.Time
	// version counts changes, so that a reader can tell whether what it read
	// still stands. It is not part of the folded state.
	version uint64
}

// part is what was taken in a part of a window that rolls.
type part struct {
	start time.Time
	taken int64
}

// Machine holds balances. The zero value is empty and ready.
type Machine struct {
	balances map[string]*balance
	next     uint64
}

// Version tells one reading of a balance from a later one.
type Version uint64

// Read returns the balance of each key at the time now, in the order of keys, and the
// newest version among them. Where the clock was set back the balance is that of the
// newest window.
func (m *Machine) Read(now time.Time, keys []Key) ([]*writv1.Balance, Version) {
	if len(keys) == 0 {
		return nil, 0
	}
	read := make([]*writv1.Balance, 0, len(keys))
	var newest uint64
	for i := range keys {
		key := &keys[i]
		start := key.Window.Start(now)
		out := &writv1.Balance{Budget: key.Budget, Key: key.Scope, Dimension: key.Dimension}
		if held, ok := m.balances[key.id()]; ok {
			newest = max(newest, held.version)
			if held.start.After(start) {
				start = held.start
			}
			held.read(out, now, start, key.Room)
		}
		out.WindowStart = timestamppb.New(start)
		read = append(read, out)
	}
	return read, Version(newest)
}

// read tells what is taken in the window of start, or in the one that rolls at now.
func (b *balance) read(out *writv1.Balance, now, start time.Time, room int64) {
	if b.rolling == 0 {
		if b.start.Equal(start) {
			out.Taken = b.taken
		}
		return
	}
	for _, p := range b.parts {
		if b.counts(p.start, now) {
			out.Taken = plus(out.Taken, p.taken)
		}
	}
	if out.Taken <= room || room < 0 {
		return
	}
	left := out.Taken
	for _, p := range b.parts {
		if !b.counts(p.start, now) {
			continue
		}
		if left -= p.taken; left <= room {
			out.RoomTime = timestamppb.New(p.start.Add(step(b.rolling) + b.rolling))
			return
		}
	}
}

// counts says whether a part of a window that rolls counts at a time: until the whole
// of it is past.
func (b *balance) counts(start, at time.Time) bool {
	return start.After(at.Add(-b.rolling - step(b.rolling)))
}

// Taken returns what is taken in the window that begins at start, and whether anything
// can be taken in it: it is not past.
func (m *Machine) Taken(key Key, start time.Time) (taken int64, open bool) {
	held, ok := m.balances[key.id()]
	switch {
	case !ok || held.start.Before(start):
		return 0, true
	case held.start.Equal(start):
		return held.taken, true
	default:
		return 0, false
	}
}

// Current says whether nothing that keys name has changed since version was read.
func (m *Machine) Current(keys []Key, version Version) bool {
	var newest uint64
	for i := range keys {
		if held, ok := m.balances[keys[i].id()]; ok {
			newest = max(newest, held.version)
		}
	}
	return Version(newest) == version
}

// Reserve takes what an ALLOW reserves, or what a call took beyond that. A reservation
// of an older window than the balance's is already past and changes nothing.
func (m *Machine) Reserve(reserve *writv1.Reserve) {
	m.add(reserve, reserve.GetAmount())
}

// GiveBack returns what was reserved and not taken. What belongs to a window that is
// past is not given back.
func (m *Machine) GiveBack(reserve *writv1.Reserve) {
	m.add(reserve, -reserve.GetAmount())
}

func (m *Machine) add(reserve *writv1.Reserve, amount int64) {
	held := m.hold(reserve, reserve.GetRolling().AsDuration())
	if reserve.GetExpireTime() != nil && held.expires.Before(reserve.GetExpireTime().AsTime()) {
		held.expires = reserve.GetExpireTime().AsTime()
	}
	if held.take(reserve.GetWindowStart().AsTime(), amount) {
		m.next++
		held.version = m.next
	}
}

// drawn is what a reservation and an alert say of the balance they are about.
type drawn interface {
	GetBudget() string
	GetKey() []string
	GetDimension() writv1.Dimension
	GetWindowStart() *timestamppb.Timestamp
}

// hold returns the balance, which is made when it is not there.
func (m *Machine) hold(of drawn, rolling time.Duration) *balance {
	if m.balances == nil {
		m.balances = make(map[string]*balance)
	}
	name := id(of.GetBudget(), of.GetDimension(), rolling, of.GetKey())
	held, ok := m.balances[name]
	if !ok {
		held = &balance{
			budget: of.GetBudget(), scope: of.GetKey(), dimension: of.GetDimension(),
			rolling: rolling, start: of.GetWindowStart().AsTime(),
		}
		m.balances[name] = held
	}
	return held
}

// take adds an amount to the window of start, and says whether that is not past.
func (b *balance) take(start time.Time, amount int64) bool {
	if b.rolling > 0 {
		return b.takePart(start, amount)
	}
	switch {
	case start.Before(b.start):
		return false
	case start.After(b.start):
		b.start, b.taken, b.alerts = start, 0, nil
	}
	b.taken = plus(b.taken, amount)
	return true
}

func (b *balance) takePart(start time.Time, amount int64) bool {
	if start.After(b.start) {
		b.start = start
		past := func(at time.Time) bool { return !b.counts(at, start) }
		b.parts = slices.DeleteFunc(b.parts, func(p part) bool { return past(p.start) })
		b.alerts = slices.DeleteFunc(b.alerts, func(a *writv1.HeldAlert) bool { return past(a.GetWindowStart().AsTime()) })
	}
	if !b.counts(start, b.start) {
		return false
	}
	at, found := slices.BinarySearchFunc(b.parts, start, func(p part, t time.Time) int { return p.start.Compare(t) })
	if !found {
		b.parts = slices.Insert(b.parts, at, part{start: start})
	}
	b.parts[at].taken = plus(b.parts[at].taken, amount)
	return true
}

// plus adds within what a balance can be.
func plus(taken, amount int64) int64 {
	if amount > 0 && taken > math.MaxInt64-amount {
		return math.MaxInt64
	}
	return max(0, taken+amount)
}

// Forget drops balances that nothing reads any more at the time now, so that the
// machine does not grow with every user it has ever seen.
func (m *Machine) Forget(now time.Time) {
	for name, held := range m.balances {
		expires := held.expires
		if expires.IsZero() {
			expires = held.start.Add(keptFor)
		}
		if expires.Before(now) {
			delete(m.balances, name)
		}
	}
}
