// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// guild is a workshop whose things are a budget that it shares; the test is its collector.
type guild struct {
	*workshop
	began  time.Time
	passed atomic.Int64
}

func openGuild(t *testing.T, report string) *guild {
	t.Helper()
	g := &guild{began: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	g.workshop = openWorkshop(t, workshopOptions{leased: true, clock: g.now, files: map[string]string{"budgets/all.yaml": `budgets:
  - {name: things, tools: ["*"], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_CALLS, limit: 100, window: 86400s,
     shared: {lease: 60s, report: ` + report + `}}
`}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); g.agent.KeepLeases(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return g
}

func (g *guild) now() time.Time { return g.began.Add(time.Duration(g.passed.Load())) }

// until waits for what the agent does beside calls.
func (g *guild) until(what string, holds func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// acknowledge lets the agent know that its collector has everything.
func (g *guild) acknowledge() {
	g.t.Helper()
	size := g.ledger.Status().Size
	g.until("the ledger is synced", func() bool { return g.ledger.Status().Synced >= size })
	root, err := g.ledger.RootAt(size)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.ledger.Acknowledge(size, root); err != nil {
		g.t.Fatal(err)
	}
}

// asked returns the newest ask that is recorded.
func (g *guild) asked() *writv1.LeaseAsk {
	g.t.Helper()
	var newest *writv1.LeaseAsk
	g.records(func(record *writv1.Record) {
		body := &writv1.LeaseRecord{}
		if record.GetKind() == writv1.RecordKind_RECORD_KIND_LEASE {
			if err := canonical.Unmarshal(record.GetBody(), body); err != nil {
				g.t.Fatal(err)
			}
		}
		if body.GetAsk() != nil {
			newest = body.GetAsk()
		}
	})
	return newest
}

// give answers an ask.
func (g *guild) give(ask *writv1.LeaseAsk, most int64) *writv1.LeaseGrant {
	g.t.Helper()
	start := g.began.Truncate(24 * time.Hour)
	grant := &writv1.LeaseGrant{
		Seq: ask.GetSeq(), Budget: ask.GetBudget(), Key: ask.GetKey(), Dimension: ask.GetDimension(),
		WindowStart: timestamppb.New(start), WindowEnd: timestamppb.New(start.Add(24 * time.Hour)),
		Cap: most, Lease: ask.GetLease(), Skew: durationpb.New(time.Second),
	}
	if refusal := g.agent.TakeGrant(g.t.Context(), grant); refusal != nil {
		g.t.Fatal(refusal)
	}
	return grant
}

// want makes a call and says how it must be decided.
func (g *guild) want(what string, reason writv1.Reason) {
	g.t.Helper()
	if decision := g.agent.Admit(g.t.Context(), request("workshop.send", "axe")).Decision(); decision.GetReason() != reason {
		g.t.Errorf("%s: %s, want %s", what, decision.GetReason(), reason)
	}
}

const (
	granted = writv1.Reason_REASON_GRANTED
	noLease = writv1.Reason_REASON_BUDGET_NO_LEASE
)

func TestAnAgentDrawsFromItsSliceAlone(t *testing.T) {
	t.Parallel()
	g := openGuild(t, "LEASE_REPORT_LATER")
	g.want("before there is a slice", noLease)
	g.until("the agent asks", func() bool { return g.asked() != nil })
	ask := g.asked()
	if ask.GetLimit() != 100 || ask.GetCap() != 0 || ask.GetNeed() != 1 || len(ask.GetKey()) != 1 || ask.GetKey()[0] != "acme" {
		t.Errorf("it asks %v", ask)
	}
	grant := g.give(ask, 3)
	for range 3 {
		g.want("within the slice", granted)
	}
	g.want("beyond the slice", noLease)
	// The same grant again gives nothing, nor does one that answers no ask.
	g.give(ask, 9)
	other := proto.CloneOf(ask)
	other.Seq += 100
	g.give(other, 9)
	g.want("after grants that are no answers", noLease)
	grant.Cap = -1
	if g.agent.TakeGrant(t.Context(), grant) == nil {
		t.Error("a grant that breaks the rules of its message is taken")
	}

	g.acknowledge()
	g.until("it asks for more", func() bool { return g.asked().GetSeq() > ask.GetSeq() })
	ask = g.asked()
	if ask.GetCap() != 3 || ask.GetTaken() != 3 || ask.GetWant() == 0 {
		t.Errorf("it asks %v", ask)
	}
	g.give(ask, 3)
	g.want("when there is no more", writv1.Reason_REASON_BUDGET_EXHAUSTED)
	g.acknowledge()
	g.passed.Add(int64(2 * time.Second))
	g.want("when there is still no more", writv1.Reason_REASON_BUDGET_EXHAUSTED)
	g.until("it asks again", func() bool { return g.asked().GetSeq() > ask.GetSeq() })
	g.give(g.asked(), 10)
	g.want("when there is more", granted)
	if folded := g.folded(); folded != g.agent.State().Dump() {
		t.Errorf("the ledger gives\n%s\nthe state is\n%s", folded, g.agent.State().Dump())
	}
	g.passed.Add(int64(59 * time.Second))
	g.want("a second before the lease ends", noLease)
}

func TestCallsThatComeAtOnceTakeNoMoreThanTheSlice(t *testing.T) {
	t.Parallel()
	g := openGuild(t, "LEASE_REPORT_LATER")
	g.want("before there is a slice", noLease)
	g.until("the agent asks", func() bool { return g.asked() != nil })
	g.give(g.asked(), 17)
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() {
			if g.agent.Admit(context.Background(), request("workshop.send", "axe")).Allowed() {
				allowed.Add(1)
			}
		})
	}
	all.Wait()
	if got := allowed.Load(); got != 17 {
		t.Errorf("%d calls were allowed on a slice of 17", got)
	}
	if folded := g.folded(); folded != g.agent.State().Dump() {
		t.Errorf("the ledger gives\n%s\nthe state is\n%s", folded, g.agent.State().Dump())
	}
}

func TestWhatAMachineThatWentDownHadLeftCountsAsTaken(t *testing.T) {
	t.Parallel()
	g := openGuild(t, "LEASE_REPORT_LATER")
	g.want("before there is a slice", noLease)
	g.until("the agent asks", func() bool { return g.asked() != nil })
	g.give(g.asked(), 8)
	g.want("within the slice", granted)
	for name, c := range map[string]struct {
		kind writv1.RecordKind
		boot string
		lost int64
	}{
		"the process was killed":         {0, "first", 0},
		"the machine went down":          {0, "second", 7},
		"the machine ended in good form": {writv1.RecordKind_RECORD_KIND_END, "second", 0},
		"nobody knows":                   {0, "", 7},
	} {
		state, next := agent.NewState(100), uint64(0)
		fold := func(record *writv1.Record) {
			record.Index = next
			next++
			if err := state.Fold(record); err != nil {
				t.Fatal(err)
			}
		}
		begin := func(boot string) {
			text, err := canonical.Marshal(&writv1.StartRecord{Origin: "workshop", BootId: boot})
			if err != nil {
				t.Fatal(err)
			}
			fold(&writv1.Record{Kind: writv1.RecordKind_RECORD_KIND_START, Body: text})
		}
		begin("first")
		g.records(func(record *writv1.Record) {
			if record.GetKind() != writv1.RecordKind_RECORD_KIND_START {
				fold(record)
			}
		})
		if c.kind != 0 {
			fold(&writv1.Record{Kind: c.kind})
		}
		begin(c.boot)
		if held := state.Leases(); len(held) != 1 || held[0].GetLost() != c.lost || held[0].GetCap() != 8 {
			t.Errorf("%s: %v, want %d lost", name, held, c.lost)
		}
	}
}

func TestACallIsNotAnsweredWhenTheCollectorHearsOfItTooLate(t *testing.T) {
	t.Parallel()
	g := openGuild(t, "LEASE_REPORT_FIRST")
	g.want("before there is a slice", noLease)
	g.until("the agent asks", func() bool { return g.asked() != nil })
	g.give(g.asked(), 8)
	for _, c := range []struct {
		what   string
		passes time.Duration
		want   writv1.Reason
	}{
		{"in time", 0, granted},
		{"after the lease has ended", time.Minute, noLease},
	} {
		before := len(g.entries())
		decided := make(chan *writv1.Decision)
		go func() {
			decided <- g.agent.Admit(context.Background(), request("workshop.send", "axe")).Decision()
		}()
		g.until("the call is recorded", func() bool { return len(g.entries()) > before })
		g.passed.Add(int64(c.passes))
		g.acknowledge()
		if got := (<-decided).GetReason(); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	entries := g.entries()
	last := entries[len(entries)-1].outcome
	if last == nil {
		last = entries[len(entries)-2].outcome
	}
	if last.GetState() != writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED || len(last.GetGivenBack()) != 0 {
		t.Errorf("the call that was denied late ends with %v", last)
	}
}
