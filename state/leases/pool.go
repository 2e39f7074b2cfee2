// SPDX-License-Identifier: Apache-2.0

package leases

import (
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// MaxShares bounds the slices that a pool holds: some 500 MB.
	MaxShares = 1_000_000
	// spread is into how many parts for each holder what is left is divided: no ask takes
	// more than one of them, so that there is something left for who asks next.
	spread = 2
)

// ErrFull says that a pool has no room for one more slice.
var ErrFull = errors.New("too many slices of budgets are held")

// Pool is the collector's side: it holds what every agent's slice of each balance is.
type Pool struct {
	skew     time.Duration
	balances map[string]*pooled
	shares   int
}

// pooled is one balance in its newest window.
type pooled struct {
	start, end time.Time
	shares     map[string]*share
}

// share is one agent's slice.
type share struct {
	held *writv1.HeldShare
	// counted is the most that the holder may have taken in the window when all is told.
	counted int64
	// lapses is when the slice has lapsed.
	lapses time.Time
}

// NewPool returns a pool that gives nothing yet. The skew is [Skew] but in tests.
func NewPool(skew time.Duration) *Pool {
	return &Pool{skew: skew, balances: make(map[string]*pooled)}
}

// Ask takes what an agent says of its slice and answers it, at the time now: the result
// MUST be kept before its grant is sent. It is nil where an ask that came later has been
// answered. Asks may come again and out of order.
func (p *Pool) Ask(now time.Time, holder string, ask *writv1.LeaseAsk) (*writv1.HeldShare, error) {
	b := p.at(now, ask)
	s, known := b.shares[holder]
	switch {
	case known && ask.GetSeq() <= s.held.GetAsk().GetSeq():
		return nil, nil
	case !known && p.shares >= MaxShares:
		return nil, ErrFull
	case !known:
		s = &share{held: &writv1.HeldShare{}}
		b.shares[holder] = s
		p.shares++
	}
	s.counted = s.count(b, ask)
	lease := min(ask.GetLease().AsDuration(), b.end.Sub(now))
	s.lapses = now.Add(lease + p.skew)
	s.counted = plus(s.counted, b.slice(now, ask))
	s.held = &writv1.HeldShare{
		Holder: holder, Ask: ask, LapseTime: timestamppb.New(s.lapses),
		Grant: &writv1.LeaseGrant{
			Seq: ask.GetSeq(), Budget: ask.GetBudget(), Key: ask.GetKey(), Dimension: ask.GetDimension(),
			WindowStart: timestamppb.New(b.start), WindowEnd: timestamppb.New(b.end), Cap: s.counted,
			Lease: durationpb.New(lease), Skew: durationpb.New(p.skew),
		},
	}
	return s.held, nil
}

// at returns the balance in the window of now. Where the clock was set back it is that of
// the newest window.
func (p *Pool) at(now time.Time, ask *writv1.LeaseAsk) *pooled {
	id, window := BalanceID(ask), windowOf(ask)
	start := window.Start(now)
	b, known := p.balances[id]
	if known && !start.After(b.start) {
		return b
	}
	if known {
		p.shares -= len(b.shares)
	}
	b = &pooled{start: start, end: window.End(start), shares: make(map[string]*share)}
	p.balances[id] = b
	return b
}

// count returns what the holder of a share may take in the window before it is given
// anything.
func (s *share) count(b *pooled, ask *writv1.LeaseAsk) int64 {
	if ask.GetWindowStart() == nil || !ask.GetWindowStart().AsTime().Equal(b.start) {
		return 0 // it has nothing of this window
	}
	said, taken := ask.GetCap(), plus(ask.GetTaken(), ask.GetLost())
	if s.held.Settled != nil {
		// It had lapsed, and others may have what it had not taken. It has not drawn since.
		said = min(said, s.counted)
	}
	return max(said, taken)
}

// slice returns how much is given to who asks. What is less than is of use is not given.
func (b *pooled) slice(now time.Time, ask *writv1.LeaseAsk) int64 {
	left, holders := ask.GetLimit(), int64(0)
	for _, s := range b.shares {
		left = max(0, left-min(left, s.counted))
		if now.Before(s.lapses) {
			holders++
		}
	}
	need := max(ask.GetNeed(), 1)
	give := min(max(left/(spread*max(holders, 1)), need), ask.GetWant(), left)
	if give < need {
		return 0
	}
	return give
}

// Lapsed returns the slices of the balance of an ask that have lapsed at the time now,
// and of which the records tell all that was taken, by holder. The caller reads the
// records and calls [Pool.Settle].
func (p *Pool) Lapsed(now time.Time, ask *writv1.LeaseAsk) []*writv1.HeldShare {
	b := p.at(now, ask)
	var lapsed []*writv1.HeldShare
	for _, holder := range slices.Sorted(maps.Keys(b.shares)) {
		s := b.shares[holder]
		if s.held.Settled == nil && !now.Before(s.lapses) && s.held.GetAsk().GetReport() == writv1.LeaseReport_LEASE_REPORT_FIRST {
			lapsed = append(lapsed, s.held)
		}
	}
	return lapsed
}

// Settle counts of a slice of [Pool.Lapsed] what its holder has taken, as all records of
// it that were received tell, and frees the rest. Drawn is what the records from the
// ask's from_index on drew. It returns what MUST be kept before anything of it is given
// to others; nil where the holder has been heard of meanwhile.
func (p *Pool) Settle(lapsed *writv1.HeldShare, drawn int64) *writv1.HeldShare {
	b := p.balances[BalanceID(lapsed.GetAsk())]
	if b == nil || b.shares[lapsed.GetHolder()] == nil {
		return nil
	}
	s := b.shares[lapsed.GetHolder()]
	if s.held != lapsed {
		return nil
	}
	ask := lapsed.GetAsk()
	taken := plus(max(0, drawn), ask.GetLost())
	if ask.GetWindowStart().AsTime().Equal(b.start) && ask.GetWindowStart() != nil {
		taken = plus(taken, ask.GetTaken())
	}
	s.counted = min(s.counted, taken)
	s.held = proto.CloneOf(lapsed)
	s.held.Settled = &s.counted
	return s.held
}

// Restore takes back what was kept of a slice, before every other event.
func (p *Pool) Restore(held *writv1.HeldShare) {
	id := BalanceID(held.GetAsk())
	start := held.GetGrant().GetWindowStart().AsTime()
	b, known := p.balances[id]
	switch {
	case known && start.Before(b.start):
		return
	case !known || start.After(b.start):
		if known {
			p.shares -= len(b.shares)
		}
		b = &pooled{start: start, end: held.GetGrant().GetWindowEnd().AsTime(), shares: make(map[string]*share)}
		p.balances[id] = b
	}
	s := &share{held: held, counted: held.GetGrant().GetCap(), lapses: held.GetLapseTime().AsTime()}
	if held.Settled != nil {
		s.counted = held.GetSettled()
	}
	if _, known := b.shares[held.GetHolder()]; !known {
		p.shares++
	}
	b.shares[held.GetHolder()] = s
}

// Forget drops the balances whose windows have ended long before the time now.
func (p *Pool) Forget(now time.Time) {
	for id, b := range p.balances {
		if b.end.Add(keptFor).Before(now) {
			p.shares -= len(b.shares)
			delete(p.balances, id)
		}
	}
}

// keptFor is how long a window that has ended is kept, lest a clock that was set wrong for
// a while opens it again.
const keptFor = 24 * time.Hour
