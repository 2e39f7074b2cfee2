// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

// What is simulated: more is asked for than there is, and things go wrong all the time.
const (
	agents     = 1000
	limit      = 1_000_000
	window     = 30 * time.Minute
	lease      = time.Minute
	tick       = time.Second
	mostAmount = 10
	// demand is how much more is asked for than the limit, in percent of it.
	demand = 150
	// These are how many a thousand agents suffer in one minute.
	kills, crashes, losses, partitions = 20, 5, 2, 10
	// lostAnswers is how many of a hundred answers do not arrive.
	lostAnswers = 2
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// record is what an agent has in its ledger: one of them is set.
type record struct {
	ask   *writv1.LeaseAsk
	grant *writv1.LeaseGrant
	draw  int64
	at    time.Time // start of the window that was drawn on
	down  bool
}

// agent is one of the simulated agents, with its ledger and its clock.
type agent struct {
	name   string
	rate   float64 // calls in a tick
	offset time.Duration
	pace   int64 // how much faster than time its clock is, in millionths

	ledger []record
	synced int
	sent   int
	shares *leases.Shares
	taken  map[time.Time]int64
	// away is until when nothing reaches it or is heard of it, off until when it is down.
	away, off time.Time
}

func (a *agent) tally(_ *writv1.LeaseAsk, start time.Time) int64 { return a.taken[start] }

func (a *agent) clock(now time.Time) time.Time {
	passed := now.Sub(start)
	return now.Add(a.offset + passed/1_000_000*time.Duration(a.pace))
}

// answer is a grant on its way.
type answer struct {
	to    *agent
	after time.Time
	grant *writv1.LeaseGrant
}

// Figures are what came of a run.
type Figures struct {
	// Asked is what all calls would have taken, Spent what they took, Overshoot the most
	// that was spent and in agents' hands at once beyond the limit.
	Asked, Spent, Overshoot int64
	// Calls are all calls, NoSlice and Exhausted those that were denied, Early those that
	// were while less than half of the budget was spent.
	Calls, Allowed, NoSlice, Exhausted, Early int
	// Asks are those for slices, the others what went wrong.
	Asks, Kills, Crashes, Losses, Partitions int
	// Points are how it went.
	Points []Point
}

// Utilisation is how much of the budget was spent, in percent.
func (f *Figures) Utilisation() float64 { return 100 * float64(f.Spent) / limit }

// Point is how it stood at one time: what was asked for, what was spent, and that with
// what was in agents' hands.
type Point struct {
	At                  time.Duration
	Asked, Spent, Hands int64
}

// sim is one run.
type sim struct {
	random  *rand.Rand
	now     time.Time
	pool    *leases.Pool
	all     []*agent
	answers []answer
	made    int
	// spent is what was really taken, by window, whatever became of the records.
	spent   map[time.Time]int64
	figures Figures
}

// Run plays one window. The same seed gives the same figures.
func Run(seed uint64) Figures {
	s := &sim{
		random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // a simulation
		now:    start, pool: leases.NewPool(leases.Skew), spent: make(map[time.Time]int64),
	}
	for range agents {
		s.all = append(s.all, s.join())
	}
	for ; s.now.Before(start.Add(window)); s.now = s.now.Add(tick) {
		s.disturb()
		s.deliver()
		for _, a := range s.all {
			if !s.now.Before(a.off) {
				s.work(a)
			}
		}
		s.look()
	}
	s.figures.Spent = s.spent[start]
	return s.figures
}

// join makes an agent. One in ten makes half of the calls.
func (s *sim) join() *agent {
	s.made++
	const calls = limit * demand / 100 * 2 / (mostAmount + 1)
	rate := float64(calls) / float64(window/tick) / agents
	if s.made%10 == 0 {
		rate *= 5
	} else {
		rate *= 5.0 / 9
	}
	return &agent{
		name: fmt.Sprintf("agent/%d", s.made), rate: rate, shares: leases.NewShares(), taken: make(map[time.Time]int64),
		offset: time.Duration(s.random.IntN(7200)-3600) * time.Second, pace: s.random.Int64N(2001) - 1000,
	}
}

// terms are the budget's. Nobody changes them.
var terms = &writv1.LeaseAsk{
	Budget: "shared", Key: []string{"acme"}, Dimension: writv1.Dimension_DIMENSION_MONEY, Limit: limit,
	Window: durationpb.New(window), Lease: durationpb.New(lease), Report: writv1.LeaseReport_LEASE_REPORT_LATER,
}

// work is what an agent does in a tick: calls, asks, and the sending of its ledger.
func (s *sim) work(a *agent) {
	calls := int(a.rate)
	if s.random.Float64() < a.rate-float64(calls) {
		calls++
	}
	for range calls {
		s.call(a)
	}
	for _, ask := range a.shares.Due(a.clock(s.now), a.tally, uint64(len(a.ledger))) {
		a.ledger = append(a.ledger, record{ask: ask})
		s.figures.Asks++
	}
	if s.random.IntN(2) == 0 {
		a.synced = len(a.ledger) // what was not is lost with the machine
	}
	if s.now.Before(a.away) {
		return
	}
	for ; a.sent < a.synced; a.sent++ {
		if ask := a.ledger[a.sent].ask; ask != nil {
			s.answer(a, ask)
		}
	}
}

func (s *sim) call(a *agent) {
	amount := 1 + s.random.Int64N(mostAmount)
	now := a.clock(s.now)
	slice, _, ok := a.shares.Slice(terms, now)
	left := slice.Cap - a.taken[slice.Start]
	denied := !ok || amount > left
	a.shares.Drew(now, leases.Draw{Terms: terms, Amount: amount, Left: left, Denied: denied})
	s.figures.Calls++
	s.figures.Asked += amount
	switch {
	case !denied:
		a.taken[slice.Start] += amount
		a.ledger = append(a.ledger, record{draw: amount, at: slice.Start})
		s.spent[slice.Start] += amount
		s.figures.Allowed++
		return
	case ok && slice.Dry:
		s.figures.Exhausted++
	default:
		s.figures.NoSlice++
	}
	if s.spent[start] < limit/2 {
		s.figures.Early++
	}
}

func (s *sim) answer(a *agent, ask *writv1.LeaseAsk) {
	held, err := s.pool.Ask(s.now, a.name, ask)
	if err != nil || held == nil || s.random.IntN(100) < lostAnswers {
		return
	}
	s.answers = append(s.answers, answer{to: a, after: s.now.Add(time.Duration(s.random.IntN(3)) * tick), grant: held.GetGrant()})
}

// deliver brings the answers that are due, some of them twice.
func (s *sim) deliver() {
	var late []answer
	for _, in := range s.answers {
		a := in.to
		if s.now.Before(in.after) || s.now.Before(a.away) || s.now.Before(a.off) {
			late = append(late, in)
			continue
		}
		if s.random.IntN(20) == 0 {
			late = append(late, in)
		}
		if a.shares.Takes(in.grant) {
			a.ledger = append(a.ledger, record{grant: in.grant})
			a.synced = len(a.ledger)
			a.shares.Granted(a.clock(s.now), in.grant, a.tally)
		}
	}
	s.answers = late
}

// disturb makes things go wrong, from one minute on.
func (s *sim) disturb() {
	if s.now.Sub(start) < time.Minute {
		return
	}
	happens := func(aMinute int) bool { return s.random.IntN(1000*60) < aMinute }
	for i, a := range s.all {
		switch {
		case happens(kills):
			s.figures.Kills++
			s.begin(a, len(a.ledger))
		case happens(crashes):
			s.figures.Crashes++
			s.begin(a, a.synced)
		case happens(losses):
			s.figures.Losses++
			s.all[i] = s.join()
		case happens(partitions):
			s.figures.Partitions++
			a.away = s.now.Add(time.Duration(30+s.random.IntN(270)) * time.Second)
		}
	}
}

// begin starts an agent anew some seconds later from the records that it still has.
func (s *sim) begin(a *agent, kept int) {
	down := kept < len(a.ledger)
	a.ledger = a.ledger[:kept:kept]
	if down {
		a.ledger = append(a.ledger, record{down: true})
	}
	a.shares, a.taken = leases.NewShares(), make(map[time.Time]int64)
	a.off = s.now.Add(time.Duration(2+s.random.IntN(20)) * time.Second)
	for _, r := range a.ledger {
		a.taken[r.at] += r.draw
		switch {
		case r.ask != nil:
			a.shares.Asked(r.ask)
		case r.grant != nil:
			a.shares.Granted(time.Time{}, r.grant, a.tally)
		case r.down:
			a.shares.WriteOff(a.tally)
		}
	}
}

// look adds up what is spent and what agents may still spend.
func (s *sim) look() {
	hands := s.spent[start]
	for _, a := range s.all {
		if slice, _, ok := a.shares.Slice(terms, a.clock(s.now)); ok && slice.Start.Equal(start) {
			hands += max(0, slice.Cap-a.taken[start])
		}
	}
	s.figures.Overshoot = max(s.figures.Overshoot, hands-limit)
	if at := s.now.Sub(start); at%(10*time.Second) == 0 {
		s.figures.Points = append(s.figures.Points, Point{At: at, Asked: s.figures.Asked, Spent: s.spent[start], Hands: hands})
	}
}
