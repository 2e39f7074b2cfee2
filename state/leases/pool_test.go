// SPDX-License-Identifier: Apache-2.0

package leases_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

const (
	later = writv1.LeaseReport_LEASE_REPORT_LATER
	first = writv1.LeaseReport_LEASE_REPORT_FIRST
)

// wants asks for 50 of 100 an hour.
func wants(seq uint64, report writv1.LeaseReport) *writv1.LeaseAsk {
	return &writv1.LeaseAsk{
		Seq: seq, Budget: "b", Dimension: 1, Limit: 100, Window: durationpb.New(time.Hour), Lease: durationpb.New(10 * time.Second),
		Report: report, Want: 50, Need: 1,
	}
}

func given(t *testing.T, p *leases.Pool, now time.Time, holder string, ask *writv1.LeaseAsk) *writv1.HeldShare {
	t.Helper()
	held, err := p.Ask(now, holder, ask)
	if err != nil || held == nil {
		t.Fatalf("%v, %v", held, err)
	}
	return held
}

func TestTheSliceOfAnAgentThatIsGone(t *testing.T) {
	t.Parallel()
	// What is left is divided into two parts for each agent that has a slice.
	for name, c := range map[string]struct {
		report writv1.LeaseReport
		after  time.Duration
		want   int64
	}{
		"reports first: not before the lease has ended":     {first, 9 * time.Second, 12},
		"reports first: not before the skew has passed too": {first, 10*time.Second + 999*time.Millisecond, 12},
		"reports first: what it had not taken then":         {first, 11 * time.Second, 46},
		"reports later: not before the window ends":         {later, 50 * time.Minute, 25},
		"reports later: all of it in the next window":       {later, time.Hour, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := leases.NewPool(leases.Skew)
			given(t, p, noon, "gone", wants(1, c.report))
			ask := wants(1, later)
			for _, lapsed := range p.Lapsed(noon.Add(c.after), ask) {
				p.Settle(lapsed, 8)
			}
			if got := given(t, p, noon.Add(c.after), "here", ask).GetGrant().GetCap(); got != c.want {
				t.Errorf("%s later another agent gets %d, want %d", c.after, got, c.want)
			}
		})
	}
}

func TestAnAgentThatComesBackLateHasWhatIsLeftOfItsSlice(t *testing.T) {
	t.Parallel()
	p := leases.NewPool(leases.Skew)
	late := given(t, p, noon, "late", wants(1, first))
	now := noon.Add(time.Minute)
	lapsed := p.Lapsed(now, wants(1, first))
	if len(lapsed) != 1 {
		t.Fatalf("%d slices have lapsed", len(lapsed))
	}
	settled := p.Settle(lapsed[0], 8)
	here := given(t, p, now, "here", &writv1.LeaseAsk{
		Seq: 1, Budget: "b", Dimension: 1, Limit: 100, Window: durationpb.New(time.Hour), Lease: durationpb.New(10 * time.Second),
		Report: later, Want: 92, Need: 92,
	})
	if got := here.GetGrant().GetCap(); got != 92 {
		t.Fatalf("the other has %d, want all that was left", got)
	}
	again := leases.NewPool(leases.Skew)
	again.Restore(settled)
	again.Restore(here)
	for name, p := range map[string]*leases.Pool{"the same pool": p, "one that was restored": again} {
		ask := wants(2, first)
		ask.WindowStart, ask.Cap, ask.Taken = timestamppb.New(noon), late.GetGrant().GetCap(), 3
		if got := given(t, p, now, "late", ask).GetGrant().GetCap(); got != 8 {
			t.Errorf("%s: it may take %d in all, want the 8 that its records tell", name, got)
		}
		if held, err := p.Ask(now, "late", ask); held != nil || err != nil {
			t.Errorf("%s: the same ask is answered twice: %v, %v", name, held, err)
		}
	}
	if p.Settle(lapsed[0], 0) != nil {
		t.Error("a slice of which was heard is settled")
	}
}

func TestWhatAnAgentGivesBackIsThereForOthersAtOnce(t *testing.T) {
	t.Parallel()
	p := leases.NewPool(leases.Skew)
	got := given(t, p, noon, "here", wants(1, later)).GetGrant()
	if got.GetCap() != 50 {
		t.Fatalf("the first gets %d", got.GetCap())
	}
	back := wants(2, later)
	back.WindowStart, back.Cap, back.Taken, back.Want = got.GetWindowStart(), 7, 7, 0
	given(t, p, noon, "here", back)
	all := wants(1, later)
	all.Want, all.Need = 100, 93
	if got := given(t, p, noon, "there", all).GetGrant().GetCap(); got != 93 {
		t.Errorf("the second gets %d, want 93", got)
	}
	more := wants(2, later)
	more.WindowStart, more.Cap, more.Want, more.Limit = timestamppb.New(noon), 93, 1, 1000
	if got := given(t, p, noon, "there", more).GetGrant().GetCap(); got != 94 {
		t.Errorf("under a bundle with a higher limit it may take %d, want 94", got)
	}
	less := proto.CloneOf(more)
	less.Seq, less.Limit, less.Cap = 3, 100, 94
	if got := given(t, p, noon, "there", less).GetGrant().GetCap(); got != 94 {
		t.Errorf("under the older bundle it may take %d, want what it had", got)
	}
}

func TestAnAgentAsksForWhatItsCallsTake(t *testing.T) {
	t.Parallel()
	p, s := leases.NewPool(leases.Skew), leases.NewShares()
	terms := wants(0, later)
	taken := int64(0)
	tally := func(*writv1.LeaseAsk, time.Time) int64 { return taken }
	now := noon
	// call draws, where there is enough, and what is asked for then is given.
	call := func(amount int64) (asked []*writv1.LeaseAsk) {
		slice, _, ok := s.Slice(terms, now)
		denied := !ok || slice.Cap-taken < amount
		s.Drew(now, leases.Draw{Terms: terms, Amount: amount, Left: slice.Cap - taken, Denied: denied})
		if !denied {
			taken += amount
		}
		asked = s.Due(now, tally, 0)
		for _, ask := range asked {
			s.Granted(now, given(t, p, now, "here", ask).GetGrant(), tally)
		}
		return asked
	}
	if asks := call(2); len(asks) != 1 || asks[0].GetNeed() != 2 || asks[0].GetWant() != 8 || taken != 0 {
		t.Fatalf("a first call asks %v", asks)
	}
	if asks := call(2); len(asks) != 0 || taken != 2 {
		t.Errorf("a call within the slice asks %v, and %d is taken", asks, taken)
	}
	call(2)
	if asks := call(2); len(asks) != 1 || asks[0].GetWant() != 14 {
		t.Errorf("a slice that is gone in no time is asked for twice as large: %v", asks)
	}
	if asks := s.Due(now.Add(6*time.Second), tally, 0); len(asks) != 0 {
		t.Errorf("a slice that nobody draws on is asked for anew: %v", asks)
	}
	now = now.Add(9 * time.Second)
	asks := s.Due(now, tally, 0)
	if len(asks) != 1 || asks[0].GetCap() != taken || asks[0].GetWant() != 0 {
		t.Fatalf("a lease that has ended gives back %v", asks)
	}
	s.Granted(now, given(t, p, now, "here", asks[0]).GetGrant(), tally)
	if asks := s.Due(now.Add(time.Hour), tally, 0); len(asks) != 0 {
		t.Errorf("what is given back is asked for: %v", asks)
	}
	call(2)
	call(2)
	s.Stop()
	if asks := s.Due(now, tally, 0); len(asks) != 1 || asks[0].GetCap() != taken || asks[0].GetWant() != 0 {
		t.Errorf("an agent that stops gives back %v", asks)
	}
	if _, _, ok := s.Slice(terms, now); ok {
		t.Error("an agent that has stopped draws on")
	}
}
