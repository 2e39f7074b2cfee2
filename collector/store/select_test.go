// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// desk is a store of two ledgers whose records are a minute apart, and their names: a
// letter for the ledger, and the index.
func desk(t *testing.T) (s *store.Store, origins map[string]string) {
	t.Helper()
	of := func(tool, workload, user, tenant string, v writv1.Verdict) func(*ledger.Entry, *writv1.DecisionRecord) {
		return func(e *ledger.Entry, d *writv1.DecisionRecord) {
			e.Tenant = tenant
			d.Tool, d.Decision.Verdict = tool, v
			d.Principal = &writv1.Principal{Workload: workload, User: user}
		}
	}
	clock := noon.Add(-time.Minute)
	options := func() ledger.Options {
		return ledger.Options{Dir: t.TempDir(), Clock: func() time.Time { return clock }}
	}
	const allow, deny, approval = writv1.Verdict_VERDICT_ALLOW, writv1.Verdict_VERDICT_DENY, writv1.Verdict_VERDICT_NEEDS_APPROVAL
	other := func(e ledger.Entry) ledger.Entry { e.Tenant = "other"; return e }
	s = open(t, t.TempDir())
	origins = map[string]string{}
	for name, entries := range map[string][]ledger.Entry{
		"a": {
			started(), // a0, noon
			decision(1, of("pay", "w1", "ann", "acme", allow)), // a1, 12:01
			outcome(1), // a2
			decision(2, of("pay", "w1", "bob", "acme", deny)),       // a3
			decision(3, of("read", "w2", "ann", "other", approval)), // a4
			decision(4, of("read", "ann", "", "other", allow)),      // a5
			other(outcome(4)), // a6
			{Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{}}, // a7
		},
		"b": {
			decision(5, of("pay", "w3", "w3", "", allow)), // b0, noon again
			outcome(1), // b1: of a decision that another ledger has
			{Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Body: &writv1.OutcomeRecord{State: 1}}, // b2: of none
			{Kind: writv1.RecordKind_RECORD_KIND_END, Body: &writv1.EndRecord{}},                 // b3
		},
	} {
		clock = noon.Add(-time.Minute)
		o := options()
		src := &source{}
		for _, e := range entries { // a bundle each, and all of the ledger's time between
			clock = clock.Add(time.Minute)
			src = sourceOf(t, o, 1, e)
		}
		src.putAll(t, s)
		origins[src.origin] = name
	}
	return s, origins
}

// names says which records there are.
func names(t testing.TB, origins map[string]string, got []store.Stored) string {
	t.Helper()
	var out []string
	for _, g := range got {
		r, err := read(g)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s%d", origins[g.Origin], r.GetIndex()))
	}
	return strings.Join(out, " ")
}

func read(g store.Stored) (*writv1.Record, error) {
	r := &writv1.Record{}
	if err := proto.Unmarshal(g.Raw, r); err != nil {
		return nil, err
	}
	return ledger.CheckRecord(g.Raw, ledger.LogID(g.Origin), r.GetIndex())
}

func at(minute int) *timestamppb.Timestamp {
	return timestamppb.New(noon.Add(time.Duration(minute) * time.Minute))
}

func TestARecordIsListedWhereEveryFieldOfTheFilterMatches(t *testing.T) {
	t.Parallel()
	s, origins := desk(t)
	var a, b string
	for origin, name := range origins {
		if name == "a" {
			a = origin
		} else {
			b = origin
		}
	}
	type filter = writv1.RecordFilter
	kinds := func(k ...writv1.RecordKind) *filter { return &filter{Kinds: k} }
	for _, tc := range []struct {
		name   string
		filter *filter
		want   string // in any order between the ledgers
	}{
		{"no filter", nil, "a0 a1 a2 a3 a4 a5 a6 a7 b0 b1 b2 b3"},
		{"an empty filter", &filter{}, "a0 a1 a2 a3 a4 a5 a6 a7 b0 b1 b2 b3"},
		{"a tool, with the outcomes of its decisions", &filter{Tool: "pay"}, "a1 a2 a3 b0"},
		{"a tool that begins alike", &filter{Tool: "pa"}, ""},
		{"a tool that is SQL", &filter{Tool: "' OR 1=1 --"}, ""},
		{"a verdict, with the outcomes of its decisions", &filter{Verdict: writv1.Verdict_VERDICT_ALLOW}, "a1 a2 a5 a6 b0"},
		{"another verdict", &filter{Verdict: writv1.Verdict_VERDICT_NEEDS_APPROVAL}, "a4"},
		{"a tenant", &filter{Tenant: "other"}, "a4 a5 a6"},
		{"a principal, be it workload or user", &filter{Principal: "ann"}, "a1 a2 a4 a5 a6"},
		{"a principal that is both", &filter{Principal: "w3"}, "b0"},
		{"a workload", &filter{Principal: "w1"}, "a1 a2 a3"},
		{"a kind", kinds(writv1.RecordKind_RECORD_KIND_OUTCOME), "a2 a6 b1 b2"},
		{"a rare kind", kinds(writv1.RecordKind_RECORD_KIND_START), "a0"},
		{"rare kinds", kinds(writv1.RecordKind_RECORD_KIND_START, writv1.RecordKind_RECORD_KIND_END), "a0 b3"},
		{"a rare kind and another", kinds(writv1.RecordKind_RECORD_KIND_START, writv1.RecordKind_RECORD_KIND_HEARTBEAT), "a0 a7"},
		{"a kind that is none", kinds(99), ""},
		{"an origin", &filter{Origin: b}, "b0 b1 b2 b3"},
		{"an unknown origin", &filter{Origin: "x"}, ""},
		{"not before a time", &filter{StartTime: at(3)}, "a3 a4 a5 a6 a7 b3"},
		{"before a time", &filter{EndTime: at(2)}, "a0 a1 b0 b1"},
		{"between times", &filter{StartTime: at(1), EndTime: at(3)}, "a1 a2 b1 b2"},
		{"after everything", &filter{StartTime: at(99)}, ""},
		{"before everything", &filter{EndTime: at(0)}, ""},
		{"a time that SQLite has no number for", &filter{StartTime: &timestamppb.Timestamp{Seconds: 253402300799}}, ""},
		{"up to such a time", &filter{EndTime: &timestamppb.Timestamp{Seconds: 253402300799}}, "a0 a1 a2 a3 a4 a5 a6 a7 b0 b1 b2 b3"},
		{"after a time long past", &filter{StartTime: &timestamppb.Timestamp{Seconds: -62135596800}}, "a0 a1 a2 a3 a4 a5 a6 a7 b0 b1 b2 b3"},
		{"tool and verdict", &filter{Tool: "pay", Verdict: writv1.Verdict_VERDICT_DENY}, "a3"},
		{"principal, tenant and kind", &filter{Principal: "ann", Tenant: "other", Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION}}, "a4 a5"},
		{"origin and rare kind", &filter{Origin: a, Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_END}}, ""},
		{"everything at once", &filter{
			Origin: a, Tool: "pay", Tenant: "acme", Principal: "ann", Verdict: writv1.Verdict_VERDICT_ALLOW, StartTime: at(1), EndTime: at(3),
			Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION, writv1.RecordKind_RECORD_KIND_OUTCOME},
		}, "a1 a2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			forward := list(t, s, store.Selection{Filter: tc.filter, Forward: true})
			got := strings.Fields(names(t, origins, forward))
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("List(%v) (-want +got):\n%s", tc.filter, diff)
			}
			backward := list(t, s, store.Selection{Filter: tc.filter})
			slices.Reverse(backward)
			if diff := cmp.Diff(forward, backward); diff != "" {
				t.Errorf("the newest first is not the other way round (-forward +reversed):\n%s", diff)
			}
		})
	}
}

func TestPagesGiveEveryRecordOnceWhileMoreAreStored(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	newSource(t, 4, day(30)...).putAll(t, s)
	filter := &writv1.RecordFilter{Tool: "tool.1"}
	all := list(t, s, store.Selection{Filter: filter})
	if len(all) != 20 {
		t.Fatalf("%d records match, want 20", len(all))
	}
	for _, forward := range []bool{false, true} {
		want := slices.Clone(all)
		if forward {
			slices.Reverse(want)
		}
		var got []store.Stored
		sel := store.Selection{Filter: filter, Forward: forward, Limit: 1}
		for {
			page := list(t, s, sel)
			if len(page) == 0 || len(got) == len(want) {
				break
			}
			if len(page) > sel.Limit {
				t.Fatalf("%d records on a page of %d", len(page), sel.Limit)
			}
			got = append(got, page...)
			if last := page[len(page)-1].Seq; forward {
				sel.After = last
			} else {
				sel.Before = last
			}
			sel.Limit = 1 + rand.IntN(5)
			newSource(t, 4, day(1)...).putAll(t, s)
		}
		if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
			t.Errorf("forward %v (-want +got):\n%s", forward, diff)
		}
	}
	if got := list(t, s, store.Selection{After: 5, Before: 9, Forward: true}); len(got) != 3 || got[0].Seq != 6 {
		t.Errorf("between 5 and 9 there are %d records", len(got))
	}
	if got := list(t, s, store.Selection{Limit: 1 << 30}); len(got) < 61 {
		t.Errorf("without a bound there are %d records", len(got))
	}
}

func TestAWatcherSeesEveryRecordOnceInTheOrderOfStoring(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	sources := []*source{newSource(t, 5, day(60)...), newSource(t, 3, day(60)...)}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, src := range sources {
		wg.Go(func() {
			if _, err := src.put(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	next := map[string]uint64{}
	for seen := int64(0); seen < 242; {
		stored := s.Stored()
		got := list(t, s, store.Selection{After: seen, Forward: true, Limit: 7})
		for _, g := range got {
			r, err := read(g)
			if err != nil {
				t.Fatal(err)
			}
			if g.Seq != seen+1 || r.GetIndex() != next[g.Origin] {
				t.Fatalf("record %d of the ledger comes as %d of the sequence, after %d and %d", r.GetIndex(), g.Seq, next[g.Origin], seen)
			}
			seen++
			next[g.Origin]++
		}
		if len(got) == 0 {
			<-stored
		}
	}
}

func TestEverythingOfADecisionIsFound(t *testing.T) {
	t.Parallel()
	s, origins := desk(t)
	for want, n := range map[string]int{"a3": 2, "a5 a6": 4, "": 77} {
		got, err := s.ByDecision(t.Context(), id(n))
		if err != nil || names(t, origins, got) != want {
			t.Errorf("decision %d: %q, %v, want %q", n, names(t, origins, got), err, want)
		}
	}
	got, err := s.ByDecision(t.Context(), id(1)) // two ledgers speak of it, one after the other
	if found := names(t, origins, got); err != nil || found != "a1 a2 b1" && found != "b1 a1 a2" {
		t.Errorf("decision 1: %q, %v", found, err)
	}
	if got, err := s.ByDecision(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("no decision: %d records, %v", len(got), err)
	}
}

func TestAnOutcomeBelongsToTheFirstDecisionBeforeIt(t *testing.T) {
	t.Parallel()
	tool := func(name string) func(*ledger.Entry, *writv1.DecisionRecord) {
		return func(_ *ledger.Entry, d *writv1.DecisionRecord) { d.Tool = name }
	}
	entries := []ledger.Entry{
		outcome(1), decision(1, tool("first")), decision(1, tool("second")), outcome(1), outcome(1),
		decision(2, tool("")), decision(2, tool("first")), outcome(2),
	}
	for _, perBundle := range []int{1, 2, 3, 8} {
		s, dir := (*store.Store)(nil), t.TempDir()
		s = open(t, dir)
		src := newSource(t, perBundle, entries...)
		src.putAll(t, s)
		got := list(t, s, store.Selection{Filter: &writv1.RecordFilter{Tool: "first"}, Forward: true})
		if found := names(t, map[string]string{src.origin: "a"}, got); found != "a1 a3 a4 a6" {
			t.Errorf("in bundles of %d: %q, want a1 a3 a4 a6", perBundle, found)
		}
		report, err := store.Verify(t.Context(), dir)
		if err != nil || report.Err() != nil || len(report.Ledgers[0].Notes) != 4 { // there is no START either
			t.Errorf("in bundles of %d: Verify = %+v, %v", perBundle, report, err)
		}
	}
}

func TestWhatAnAgentMayNotSayIsNotIndexed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	long := strings.Repeat("t", 129)
	nul := "a\x00b"
	src := newSource(t, 2,
		decision(1, func(_ *ledger.Entry, d *writv1.DecisionRecord) {
			d.Tool, d.Principal.User = long, strings.Repeat("u", 60_000)
		}),
		decision(2, func(e *ledger.Entry, d *writv1.DecisionRecord) {
			e.Tenant, d.Tool, d.Principal.Workload = nul, nul, nul
		}),
		decision(3, func(_ *ledger.Entry, d *writv1.DecisionRecord) { d.Decision, d.Principal = nil, nil }),
	)
	src.putAll(t, s)
	for filter, want := range map[*writv1.RecordFilter]int{
		{Tool: long}: 0, {Tool: nul}: 1, {Tool: "a"}: 0, {Principal: nul}: 1, {Tenant: nul}: 1,
	} {
		if got := list(t, s, store.Selection{Filter: filter}); len(got) != want {
			t.Errorf("%v matches %d records, want %d", filter, len(got), want)
		}
	}
	if got := list(t, s, store.Selection{}); len(got) != 3 || !bytes.Contains(got[2].Raw, []byte(long)) {
		t.Errorf("%d records are stored, want all 3 with their bytes", len(got))
	}
	if report, err := store.Verify(t.Context(), dir); err != nil || report.Err() != nil {
		t.Errorf("Verify = %v, %v", report.Err(), err)
	}
}
