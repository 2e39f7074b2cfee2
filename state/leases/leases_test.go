// SPDX-License-Identifier: Apache-2.0

package leases_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// record is what an agent has in its ledger: one of them is set.
type record struct {
	ask   *writv1.LeaseAsk
	grant *writv1.LeaseGrant
	start time.Time // of the window that a call drew on
	draw  int64
	down  bool // the machine had gone down
}

// call is one that waits until the collector has its record.
type call struct {
	at     int
	slice  leases.Slice
	amount int64
}

// agent is one that draws, on a machine with a clock of its own.
type agent struct {
	name   string
	terms  *writv1.LeaseAsk
	offset time.Duration
	pace   float64
	gone   bool

	ledger []record
	synced int // of them survive the machine
	stored int // of them are at the collector
	shares *leases.Shares
	taken  map[time.Time]int64
	open   []call
	spent  map[time.Time]int64 // whatever became of the records
}

func (a *agent) tally(_ *writv1.LeaseAsk, start time.Time) int64 { return a.taken[start] }

// world is a collector, agents and the time that really is.
type world struct {
	*rapid.T
	begin, now time.Time
	pool       *leases.Pool
	kept       map[string]*writv1.HeldShare
	agents     []*agent
	grants     []func()
	limit      int64
	made       int
}

func (w *world) clock(a *agent) time.Time {
	return w.begin.Add(a.offset + time.Duration(float64(w.now.Sub(w.begin))*a.pace))
}

func (w *world) join() {
	w.made++
	report := writv1.LeaseReport(rapid.IntRange(1, 2).Draw(w.T, "report"))
	limit := w.limit
	if rapid.IntRange(0, 3).Draw(w.T, "older bundle") == 0 {
		limit /= 2
	}
	w.agents = append(w.agents, &agent{
		name: fmt.Sprint("agent/", w.made), shares: leases.NewShares(), taken: make(map[time.Time]int64), spent: make(map[time.Time]int64),
		offset: time.Duration(rapid.IntRange(-4000, 4000).Draw(w.T, "offset")) * time.Second,
		pace:   1 + float64(rapid.IntRange(-10, 10).Draw(w.T, "pace"))/1000,
		terms: &writv1.LeaseAsk{
			Budget: "b", Key: []string{"acme"}, Dimension: 1, Limit: limit, Window: durationpb.New(4 * time.Minute),
			Lease: durationpb.New(40 * time.Second), Report: report,
		},
	})
}

// draw makes a call of an agent, which takes what it may.
func (w *world) draw(a *agent) {
	now := w.clock(a)
	amount := rapid.Int64Range(1, 12).Draw(w.T, "amount")
	slice, _, ok := a.shares.Slice(a.terms, now)
	left := slice.Cap - a.taken[slice.Start]
	denied := !ok || amount > left
	a.shares.Drew(now, leases.Draw{Terms: a.terms, Amount: amount, Left: left, Denied: denied})
	if denied {
		return
	}
	a.taken[slice.Start] += amount
	a.ledger = append(a.ledger, record{start: slice.Start, draw: amount})
	if a.terms.GetReport() == writv1.LeaseReport_LEASE_REPORT_FIRST {
		a.open = append(a.open, call{at: len(a.ledger) - 1, slice: slice, amount: amount})
		return
	}
	a.spent[slice.Start] += amount
}

// hear lets an agent hear that the collector has its records.
func (w *world) hear(a *agent) {
	for len(a.open) > 0 && a.open[0].at < a.stored {
		c := a.open[0]
		a.open = a.open[1:]
		if c.slice.Live(w.clock(a)) {
			a.spent[c.slice.Start] += c.amount
		} // else it is denied, and not given back
	}
}

func (w *world) ask(a *agent) {
	for _, ask := range a.shares.Due(w.clock(a), a.tally, uint64(len(a.ledger))) {
		a.ledger = append(a.ledger, record{ask: ask})
		a.synced = max(a.synced, rapid.IntRange(0, len(a.ledger)).Draw(w.T, "synced"))
	}
}

// sync lets the collector have more of an agent's ledger. Whether it gets to answer
// before it stops is another matter.
func (w *world) sync(a *agent) {
	to := rapid.IntRange(a.stored, len(a.ledger)).Draw(w.T, "stored")
	from := a.stored
	a.stored, a.synced = to, max(a.synced, to)
	for _, r := range a.ledger[from:to] {
		if r.ask != nil && rapid.IntRange(0, 5).Draw(w.T, "answered") > 0 {
			w.answer(a, r.ask)
		}
	}
}

func (w *world) answer(a *agent, ask *writv1.LeaseAsk) {
	for _, lapsed := range w.pool.Lapsed(w.now, ask) {
		i := slices.IndexFunc(w.agents, func(a *agent) bool { return a.name == lapsed.GetHolder() })
		var drawn int64
		if holder := w.agents[i]; i >= 0 {
			for _, r := range holder.ledger[lapsed.GetAsk().GetFromIndex():holder.stored] {
				if r.start.Equal(lapsed.GetGrant().GetWindowStart().AsTime()) {
					drawn += r.draw
				}
			}
		}
		w.keep(w.pool.Settle(lapsed, drawn))
	}
	held, err := w.pool.Ask(w.now, a.name, ask)
	if err != nil {
		w.Fatal(err)
	}
	if held == nil {
		return
	}
	w.keep(held)
	w.grants = append(w.grants, func() {
		if !a.shares.Takes(held.GetGrant()) {
			return
		}
		a.ledger = append(a.ledger, record{grant: held.GetGrant()})
		a.synced = len(a.ledger)
		a.shares.Granted(w.clock(a), held.GetGrant(), a.tally)
	})
}

func (w *world) keep(held *writv1.HeldShare) {
	if held != nil {
		w.kept[held.GetHolder()] = proto.CloneOf(held)
	}
}

// kill ends an agent's process, or its machine, and begins it anew from its ledger.
func (w *world) kill(a *agent) {
	machine := rapid.Bool().Draw(w.T, "machine")
	if machine {
		a.ledger = append(a.ledger[:a.synced:a.synced], record{down: true})
	}
	early := leases.NewShares()
	a.taken = make(map[time.Time]int64)
	snapshot := rapid.IntRange(0, len(a.ledger)).Draw(w.T, "snapshot")
	for i, r := range a.ledger {
		if i == snapshot {
			late := leases.NewShares()
			for _, kept := range early.Held() {
				late.Restore(kept)
			}
			if early.Dump() != late.Dump() {
				w.Fatalf("restored\n%swas\n%s", late.Dump(), early.Dump())
			}
			early = late
		}
		a.taken[r.start] += r.draw
		if r.ask != nil {
			early.Asked(r.ask)
		}
		if r.down {
			early.WriteOff(a.tally)
		}
		if r.grant != nil {
			early.Granted(time.Time{}, r.grant, a.tally)
		}
	}
	if !machine && early.Dump() != a.shares.Dump() {
		w.Fatalf("folded\n%sis\n%s", early.Dump(), a.shares.Dump())
	}
	a.shares, a.open = early, nil
}

// restart begins the collector anew from what it kept.
func (w *world) restart() {
	w.pool = leases.NewPool(leases.Skew)
	for _, held := range w.kept {
		w.pool.Restore(held)
	}
}

// check is what all this is for.
func (w *world) check() {
	may := make(map[time.Time]int64)
	for _, a := range w.agents {
		for start, spent := range a.spent {
			may[start] += spent
		}
		if slice, _, ok := a.shares.Slice(a.terms, w.clock(a)); ok {
			may[slice.Start] += max(0, slice.Cap-a.taken[slice.Start])
		}
		for _, c := range a.open {
			if c.slice.Live(w.clock(a)) {
				may[c.slice.Start] += c.amount
			}
		}
	}
	for start, sum := range may {
		if sum > w.limit {
			w.Fatalf("in the window of %s %d are taken or may be, the limit is %d", start, sum, w.limit)
		}
	}
}

func TestWhatIsTakenAndMayStillBeIsNeverMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	// What goes wrong only after several things have is found once in some thousand runs.
	for i := range 20 {
		t.Run(fmt.Sprint(i), rapid.MakeCheck(func(t *rapid.T) {
			w := &world{
				T: t, begin: noon, now: noon, pool: leases.NewPool(leases.Skew), kept: make(map[string]*writv1.HeldShare),
				limit: rapid.Int64Range(1, 200).Draw(t, "limit"),
			}
			for range rapid.IntRange(2, 4).Draw(t, "agents") {
				w.join()
			}
			for range rapid.IntRange(1, 300).Draw(t, "steps") {
				w.step()
				w.check()
			}
		}))
	}
}

// step is one thing that happens.
func (w *world) step() {
	there := slices.DeleteFunc(slices.Clone(w.agents), func(a *agent) bool { return a.gone })
	a := rapid.SampledFrom(there).Draw(w.T, "agent")
	switch rapid.IntRange(0, 19).Draw(w.T, "what") {
	case 0, 1, 2, 3:
		w.draw(a)
	case 4, 5:
		w.ask(a)
	case 6, 7:
		w.sync(a)
	case 8, 9: // any answer, in any order, more than once; some never come
		if len(w.grants) > 0 {
			rapid.SampledFrom(w.grants).Draw(w.T, "grant")()
		}
	case 10, 11, 12, 13, 14: // as it usually goes
		w.draw(a)
		w.ask(a)
		w.sync(a)
		if len(w.grants) > 0 {
			w.grants[len(w.grants)-1]()
		}
		w.draw(a)
	case 15, 16:
		longest := rapid.SampledFrom([]int{1000, 22_000, 42_000, 50_000}).Draw(w.T, "longest")
		w.now = w.now.Add(time.Duration(rapid.IntRange(longest/2, longest).Draw(w.T, "pause")) * time.Millisecond)
	case 17:
		w.hear(a)
	case 18:
		w.disturb(a)
	default:
		w.ask(a)
		w.sync(a)
	}
}

// disturb is what seldom happens.
func (w *world) disturb(a *agent) {
	switch rapid.IntRange(0, 3).Draw(w.T, "disturbance") {
	case 0:
		w.kill(a)
	case 1:
		w.restart()
	case 2: // the volume is lost: what the agent has is nobody's, and another one comes
		a.shares, a.open, a.gone = leases.NewShares(), nil, true
		w.join()
	default: // an ask that was received is received again
		if asks := slices.DeleteFunc(slices.Clone(a.ledger[:a.stored]), func(r record) bool { return r.ask == nil }); len(asks) > 0 {
			w.answer(a, rapid.SampledFrom(asks).Draw(w.T, "again").ask)
		}
	}
}

func TestAGrantIsTheCollectorsAndOneAgentsOnly(t *testing.T) {
	t.Parallel()
	secret, public, err := note.GenerateKey(rand.Reader, "collector")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	grant, err := leases.Sign(signer, "desk", &writv1.LeaseGrant{Seq: 1, Budget: "b", Dimension: 1, Cap: 7})
	if err != nil {
		t.Fatal(err)
	}
	if !leases.Verify(verifier, "desk", grant) {
		t.Error("the collector's own grant does not verify")
	}
	more := proto.CloneOf(grant)
	more.Cap++
	for name, ok := range map[string]bool{
		"another agent's": leases.Verify(verifier, "till", grant),
		"a larger one":    leases.Verify(verifier, "desk", more),
		"none at all":     leases.Verify(verifier, "desk", &writv1.LeaseGrant{}),
	} {
		if ok {
			t.Errorf("%s verifies", name)
		}
	}
}
