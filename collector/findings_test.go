// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// shifted is a clock that a test moves.
type shifted struct{ by atomic.Int64 }

func (s *shifted) now() time.Time { return time.Now().Add(time.Duration(s.by.Load())) }

func (s *shifted) move(by time.Duration) { s.by.Add(int64(by)) }

// await is the next finding that is told.
func (p *place) await(t *testing.T) store.Finding {
	t.Helper()
	select {
	case f := <-p.told:
		return f
	case <-time.After(patience):
		t.Fatal("no finding is told")
		return store.Finding{}
	}
}

// metric is the value of a metric of the collector's with a finding's kind, if any.
func (p *place) metric(t *testing.T, name, kind string) float64 {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			of := ""
			for _, label := range m.GetLabel() {
				of = label.GetValue()
			}
			if family.GetName() == name && of == kind {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestASilentAgentWhoseKeyIsTakenOutIsLetGo(t *testing.T) {
	t.Parallel()
	p, began := newPlace(t), time.Now()
	var passed atomic.Int64
	p.clock = func() time.Time { return began.Add(time.Duration(passed.Load())) }
	p.config.Silence = durationpb.New(20 * time.Millisecond)
	killed := p.agent(t, "killed", false)
	defer func() { _ = killed.Close(nil) }()
	p.know(t, killed.VerifierKey())
	defer p.collect(t)()
	sending, _ := p.send(t, killed)
	record(t, killed, 3)
	sending()
	passed.Store(int64(20 * time.Millisecond))
	p.await(t)
	p.know(t)
	passed.Store(int64(2 * time.Second)) // the file is read again once a second at most
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for p.metric(t, "writ_collector_silent_ledgers", "") != 0 {
		select {
		case <-deadline:
			t.Fatal("it is still missed")
		case <-tick.C:
		}
	}
	if kept := p.metric(t, "writ_collector_findings", "silence"); kept != 1 {
		t.Errorf("%v findings of silence are kept, want the 1", kept)
	}
}

func TestAnAgentThatMissesItsHeartbeatsIsSilentUnlessItHasEnded(t *testing.T) {
	t.Parallel()
	p, began := newPlace(t), time.Now()
	var passed atomic.Int64 // the collector's clock stands until the test moves it
	p.clock = func() time.Time { return began.Add(time.Duration(passed.Load())) }
	p.config.Silence = durationpb.New(20 * time.Millisecond)
	live, gone := p.agent(t, "live", false), p.agent(t, "gone", false)
	p.know(t, live.VerifierKey(), gone.VerifierKey())
	collecting := p.collect(t)
	for _, l := range []*ledger.Ledger{live, gone} {
		sending, _ := p.send(t, l)
		record(t, l, 3)
		if l == gone {
			if _, err := l.Append(t.Context(), ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_END, Body: &writv1.EndRecord{}}, writv1.Durability_DURABILITY_REMOTE); err != nil {
				t.Fatal(err)
			}
		}
		sending()
	}
	passed.Store(int64(20 * time.Millisecond))
	f := p.await(t)
	if silent := p.metric(t, "writ_collector_silent_ledgers", ""); silent != 1 {
		t.Errorf("%v ledgers are silent, want 1", silent)
	}
	if kept, total := p.metric(t, "writ_collector_findings", "silence"), p.metric(t, "writ_collector_findings_total", "silence"); kept != 1 || total != 1 {
		t.Errorf("metrics tell of %v findings kept and %v found, want 1 and 1", kept, total)
	}
	sending, _ := p.send(t, live)
	record(t, live, 1)
	sending()
	if silent := p.metric(t, "writ_collector_silent_ledgers", ""); silent != 0 {
		t.Errorf("%v ledgers are silent after the one was heard again", silent)
	}
	collecting()
	if err := errors.Join(live.Close(nil), gone.Close(nil)); err != nil {
		t.Fatal(err)
	}
	found := p.findings(t)
	if f.Origin != live.Origin() || f.Kind != "silence" || len(found) != 1 || found[0].Origin != live.Origin() || found[0].HeldSize != 3 || len(found[0].HeldHead) == 0 {
		t.Errorf("told %+v, kept %+v, want the silence of %s at its third record alone", f, found, live.Origin())
	}
}

func TestAClockThatJumpsIsAFindingAndTheLedgerIsTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		by    time.Duration
		again bool // the agent is started again
	}{
		"back, while the agent runs":    {-time.Hour, false},
		"back, between two starts":      {-time.Hour, true},
		"ahead of the collector's time": {time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, clock := newPlace(t), &shifted{}
			l := p.agentAt(t, "agent", true, clock.now)
			collecting := p.collect(t)
			sending, _ := p.send(t, l)
			record(t, l, 3)
			clock.move(c.by)
			if c.again {
				sending()
				if err := l.Close(nil); err != nil {
					t.Fatal(err)
				}
				l = p.agentAt(t, "agent", false, clock.now)
				sending, _ = p.send(t, l)
			}
			record(t, l, 3)
			sending()
			collecting()
			if err := l.Close(nil); err != nil {
				t.Fatal(err)
			}
			if held := p.verified(t); held.Size != 6 {
				t.Errorf("%d records are held, want 6", held.Size)
			}
			found := p.findings(t)
			if len(found) != 1 || found[0].Kind != "clock_jump" || found[0].HeldSize != 3 || len(found[0].HeldHead) == 0 || len(found[0].Head) == 0 {
				t.Fatalf("findings = %+v, want one clock jump after three records with both heads", found)
			}
			if told := p.await(t); told.Kind != "clock_jump" || len(p.told) > 0 {
				t.Errorf("told %+v and %d more, want the clock jump once", told, len(p.told))
			}
		})
	}
}

func TestALedgerWithAKeyThatIsNotKnownIsAFinding(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", false)
	heartbeat(t, l, writv1.Durability_DURABILITY_NODE)
	collecting := p.collect(t)
	sending, problems := p.send(t, l)
	for range 3 {
		<-problems // it comes again and again
	}
	sending()
	f := p.await(t)
	if total, kept := p.metric(t, "writ_collector_findings_total", "unknown_key"), p.metric(t, "writ_collector_findings", "unknown_key"); total < 3 || kept != 1 {
		t.Errorf("metrics tell of %v found and %v kept, want each time and 1", total, kept)
	}
	collecting()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	found := p.findings(t)
	if len(found) != 1 || found[0].Kind != "unknown_key" || found[0].Origin != l.Origin() || len(found[0].Head) == 0 || found[0].Count != 1 {
		t.Errorf("findings = %+v, want the unknown key once, with the head that was shown", found)
	}
	if f.Origin != l.Origin() || f.Kind != "unknown_key" || len(p.told) > 0 {
		t.Errorf("told %+v and %d more", f, len(p.told))
	}
}
