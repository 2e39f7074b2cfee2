// SPDX-License-Identifier: Apache-2.0

package leases

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// MaxHeld bounds the slices that an agent holds.
	MaxHeld = 100_000
	// maxAsks bounds the asks that are made at once.
	maxAsks = 256
	// patience is how long an answer may take before the ask is made again.
	patience = 5 * time.Second
	// again is how long an agent waits after it was given nothing.
	again = time.Second
	// usual is how many calls a first slice is for.
	usual = 4
)

// Taken tells what the agent has taken of a balance in the window that began at start.
type Taken func(ask *writv1.LeaseAsk, start time.Time) int64

// Draw is what a call drew on a shared budget, or would have drawn.
type Draw struct {
	// Terms are the budget's, in the form of an ask: whose balance, limit, window, lease
	// and report.
	Terms *writv1.LeaseAsk
	// Amount is what the call takes, Left what there was of the slice before.
	Amount, Left int64
	// Denied says that there was not enough.
	Denied bool
}

// Shares is the agent's side: it holds the agent's slices, and knows when to ask. What is
// folded from records is where each slice ends; that a slice can be drawn on is known to
// the process alone that was given it.
//
// The times that it is given SHOULD have monotonic readings, as time.Now's do: a slice
// ends by whichever of the two clocks says so first.
type Shares struct {
	held map[string]*held
	// restless are those of held of which an ask may be due: most are looked at often, and
	// the others not at all.
	restless map[string]*held
	next     uint64
}

// held is one slice.
type held struct {
	// Folded from records: the newest ask, whether it is not answered, the window, and
	// what may be taken in it.
	ask        *writv1.LeaseAsk
	open       bool
	start, end time.Time
	cap, lost  int64

	// Known to this process alone, from here on. Terms are those of the newest draw.
	terms *writv1.LeaseAsk
	// stops is when the slice can no more be drawn on; zero is that it cannot be.
	stops time.Time
	// given is when it was last given, lease for how long.
	given time.Time
	lease time.Duration
	// asked is when the newest ask was made, pending that an answer to it is taken.
	asked   time.Time
	pending bool
	// hungry says that more is wanted: at least need at a time, want in hand.
	hungry     bool
	need, want int64
	// used says that it was drawn on since it was given, when fresh was in hand.
	used  bool
	fresh int64
	// dry says that the collector had nothing to give.
	dry     bool
	version uint64
}

// NewShares returns shares of nothing.
func NewShares() *Shares {
	return &Shares{held: make(map[string]*held), restless: make(map[string]*held)}
}

// live says whether the slice can be drawn on.
func (h *held) live(now time.Time) bool { return live(h.stops, now) }

// Slice is what there is of a slice that can be drawn on.
type Slice struct {
	// Start and End are those of the window.
	Start, End time.Time
	// Cap is the most that may be taken in it.
	Cap int64
	// Dry says that the collector has no more to give now.
	Dry bool
	// Stops is when it ends: where each draw is reported first, a call that drew on it
	// MUST NOT be answered from then on, though the slice was given anew meanwhile, and
	// what it drew MUST NOT be given back. The collector may have counted without it.
	Stops time.Time
}

// Live says whether what was drawn on the slice still counts at the time now. The clock on
// the wall may say that it does not too: a machine that slept has a monotonic clock that
// did not go on.
func (s Slice) Live(now time.Time) bool { return live(s.Stops, now) }

func live(stops, now time.Time) bool {
	return !stops.IsZero() && now.Before(stops) && now.Round(0).Before(stops.Round(0))
}

// Slice returns the slice of a balance that can be drawn on at the time now, if there is
// one, and the version of what it says.
func (s *Shares) Slice(of *writv1.LeaseAsk, now time.Time) (slice Slice, version uint64, ok bool) {
	h := s.held[idOf(of)]
	if h == nil {
		return Slice{}, 0, false
	}
	if !h.live(now) {
		return Slice{}, h.version, false
	}
	return Slice{Start: h.start, End: h.end, Cap: max(0, h.cap-h.lost), Dry: h.dry, Stops: h.stops}, h.version, true
}

// Window returns the start of the newest window of a balance, which is where an overrun is
// taken; zero where none is known.
func (s *Shares) Window(of *writv1.LeaseAsk) time.Time {
	if h := s.held[idOf(of)]; h != nil {
		return h.start
	}
	return time.Time{}
}

// Drew notes what a call drew, or would have, and says whether an ask is due for it.
func (s *Shares) Drew(now time.Time, d Draw) bool {
	h := s.hold(d.Terms)
	if h == nil {
		return false
	}
	h.terms = d.Terms
	h.need = max(d.Amount, 1)
	h.want = min(max(h.want, times(h.need, usual)), max(d.Terms.GetLimit(), 1))
	h.used = h.used || !d.Denied
	if d.Denied || d.Left-d.Amount < h.want/2 {
		h.hungry = true
	}
	return h.hungry && h.due(now)
}

// times multiplies within what an amount can be.
func times(a, n int64) int64 {
	if a > (1<<62)/n {
		return 1 << 62
	}
	return a * n
}

func (s *Shares) hold(of *writv1.LeaseAsk) *held {
	id := idOf(of)
	h, known := s.held[id]
	if !known {
		if len(s.held) >= MaxHeld {
			return nil
		}
		h = &held{ask: &writv1.LeaseAsk{Budget: of.GetBudget(), Key: of.GetKey(), Dimension: of.GetDimension()}, terms: &writv1.LeaseAsk{}}
		s.held[id] = h
	}
	s.restless[id] = h
	return h
}

// due says whether an ask may be made now.
func (h *held) due(now time.Time) bool {
	switch {
	case h.pending:
		return !now.Before(h.asked.Add(patience))
	case h.dry:
		return !now.Before(h.asked.Add(again))
	default:
		return true
	}
}

// Due returns the asks that are to be recorded now: of slices that run out, that are
// halfway through their lease and in use, or that have ended with something left. From
// the return on they count as asked, and what they give back is not drawn on any more.
// From is the number of records in the ledger.
func (s *Shares) Due(now time.Time, taken Taken, from uint64) []*writv1.LeaseAsk {
	var asks []*writv1.LeaseAsk
	for _, id := range slices.Sorted(maps.Keys(s.restless)) {
		h := s.restless[id]
		if h.terms.GetLease() == nil || !h.due(now) || len(asks) == maxAsks {
			continue
		}
		if ask := h.asks(now, taken, from); ask != nil {
			s.next++
			h.version = s.next
			asks = append(asks, ask)
		} else if !h.live(now) {
			delete(s.restless, id) // nothing is left of it, and nobody wants any
		}
	}
	return asks
}

// Stop ends all slices: the asks that are due then give back what is left of them.
func (s *Shares) Stop() {
	for id, h := range s.held {
		h.stops, h.hungry, h.pending = time.Time{}, false, false
		s.restless[id] = h
	}
}

// asks returns the ask of a slice, where one is due.
func (h *held) asks(now time.Time, taken Taken, from uint64) *writv1.LeaseAsk {
	live, took := h.live(now), plus(taken(h.ask, h.start), h.lost)
	left := max(0, h.cap-took)
	halfway := live && h.used && !now.Before(h.given.Add(h.lease/2))
	ended := !live && (left > 0 || h.open)
	if !h.hungry && !halfway && !ended {
		return nil
	}
	h.learn(now, live, left)
	keep := left
	if !live {
		keep = 0
	} else if left/2 > h.want {
		keep = h.want
	}
	h.cap = max(0, h.cap-(left-keep))
	t := h.terms
	ask := &writv1.LeaseAsk{
		// Later than every ask in the ledger, those too that were forgotten.
		Seq: max(h.ask.GetSeq(), from) + 1, FromIndex: from,
		Budget: t.GetBudget(), Key: t.GetKey(), Dimension: t.GetDimension(),
		Limit: t.GetLimit(), Window: t.GetWindow(), Calendar: t.GetCalendar(), Lease: t.GetLease(), Report: t.GetReport(),
		Cap: h.cap, Taken: took - h.lost, Lost: h.lost,
	}
	if !h.start.IsZero() {
		ask.WindowStart = timestamppb.New(h.start)
	}
	if h.hungry {
		ask.Need = max(1, h.need-keep)
		ask.Want = max(h.want-keep, ask.GetNeed())
	}
	h.ask, h.open = ask, true
	h.asked, h.pending, h.hungry = now, true, false
	return ask
}

// learn fits how much is wanted in hand to how fast it goes: what is gone in an eighth of
// a lease was too little, of what is there after half of one most was too much.
func (h *held) learn(now time.Time, live bool, left int64) {
	switch age := now.Sub(h.given); {
	case h.given.IsZero():
	case h.hungry && live && age < h.lease/8 && !h.dry:
		h.want = min(times(h.want, 2), max(h.terms.GetLimit(), 1))
	case !h.hungry && left > h.fresh/4*3:
		h.want = max(h.want/2, times(h.need, usual))
	}
}

// Takes says whether a grant answers the newest ask of its balance, and is waited for.
func (s *Shares) Takes(grant *writv1.LeaseGrant) bool {
	h := s.held[idOf(grant)]
	return h != nil && h.pending && grant.GetSeq() == h.ask.GetSeq()
}

// Granted takes a grant that was recorded. One that does not answer the newest ask
// changes nothing. Where no answer is waited for it is folded: the process that asked is
// gone, and its clock with it.
func (s *Shares) Granted(now time.Time, grant *writv1.LeaseGrant, taken Taken) {
	h := s.held[idOf(grant)]
	if h == nil || grant.GetSeq() != h.ask.GetSeq() {
		return
	}
	gave := grant.GetCap()
	if grant.GetWindowStart().AsTime().Equal(h.start) {
		gave -= h.cap
	} else {
		h.lost = 0
	}
	h.start, h.end, h.cap, h.open = grant.GetWindowStart().AsTime(), grant.GetWindowEnd().AsTime(), grant.GetCap(), false
	s.next++
	h.version = s.next
	if !h.pending {
		return
	}
	s.restless[idOf(grant)] = h
	h.pending, h.used = false, false
	h.lease = grant.GetLease().AsDuration()
	h.given, h.stops = now, h.asked.Add(h.lease-grant.GetSkew().AsDuration())
	h.fresh = max(0, h.cap-plus(taken(h.ask, h.start), h.lost))
	h.dry = gave <= 0 && (h.dry || h.ask.GetWant() > 0)
	if 0 < gave && gave < h.ask.GetWant() {
		// There is too little for all: what there is has to do.
		h.want = max(h.fresh, h.need)
	}
}

// Asked folds an ask.
func (s *Shares) Asked(ask *writv1.LeaseAsk) {
	if h := s.hold(ask); h != nil {
		h.ask, h.terms, h.open, h.cap, h.lost = ask, ask, true, ask.GetCap(), ask.GetLost()
	}
}

// Unasked notes that an ask was not recorded. The next one is made some seconds later.
func (s *Shares) Unasked(ask *writv1.LeaseAsk) {
	if h := s.held[idOf(ask)]; h != nil && h.ask.GetSeq() == ask.GetSeq() {
		h.hungry = h.hungry || ask.GetWant() > 0
	}
}

// WriteOff counts everything that was left of the slices as taken. Of slices that were
// folded from records of which the newest may be missing, because the machine went down
// and not the agent alone, nobody can tell what was.
func (s *Shares) WriteOff(taken Taken) {
	for id, h := range s.held {
		s.restless[id] = h
		h.lost = max(h.lost, h.cap-taken(h.ask, h.start))
	}
}
