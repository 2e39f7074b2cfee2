// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// source is a real ledger, as bundles of at most so many records.
type source struct {
	origin, vkey string
	key          note.Verifier
	bundles      []*writv1.RecordBundle
}

// newSource writes entries to a ledger and reads it back as an agent sends it.
func newSource(t testing.TB, perBundle int, entries ...ledger.Entry) *source {
	t.Helper()
	return sourceOf(t, ledger.Options{Dir: t.TempDir()}, perBundle, entries...)
}

func sourceOf(t testing.TB, o ledger.Options, perBundle int, entries ...ledger.Entry) *source {
	t.Helper()
	o.Origin = "test.example/agent"
	l, r, err := ledger.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(nil) //nolint:errcheck // a test
	reader, err := l.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	s := &source{origin: r.Origin, vkey: l.VerifierKey(), key: key}
	s.read(t, reader, int(r.Size)) // what was there is the first bundle
	for chunk := range slices.Chunk(entries, perBundle) {
		for i, e := range chunk {
			d := writv1.Durability_DURABILITY_PROCESS
			if i == len(chunk)-1 {
				d = writv1.Durability_DURABILITY_NODE
			}
			if _, err := l.Append(t.Context(), e, d); err != nil {
				t.Fatal(err)
			}
		}
		s.read(t, reader, len(chunk))
	}
	return s
}

// read makes one bundle of the next n records.
func (s *source) read(t testing.TB, reader *ledger.Reader, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	var out *writv1.RecordBundle
	for out == nil || len(out.GetRecords()) < n {
		b, err := reader.Next(t.Context(), n-len(out.GetRecords()), 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		if out == nil {
			out = &writv1.RecordBundle{FirstIndex: b.First}
		}
		out.Records, out.Head = append(out.Records, b.Records...), b.Head
	}
	s.bundles = append(s.bundles, out)
}

// accept has a bundle verified as the collector does.
func (s *source) accept(t testing.TB, held stream.Holding, b *writv1.RecordBundle) stream.Accepted {
	t.Helper()
	a, err := stream.NewReceiver(held, s.key).Feed(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// put stores every bundle from what is held on.
func (s *source) put(ctx context.Context, st *store.Store) (stream.Holding, error) {
	held, err := st.Holding(ctx, s.origin)
	if err != nil {
		return held, err
	}
	for _, b := range s.bundles {
		a, err := stream.NewReceiver(held, s.key).Feed(b)
		if err != nil {
			return held, err
		}
		if err := st.Put(ctx, held, a, s.vkey); err != nil {
			return held, err
		}
		held = a.Holding
	}
	return held, nil
}

func (s *source) putAll(t testing.TB, st *store.Store) stream.Holding {
	t.Helper()
	held, err := s.put(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func id(n int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), uint64(n))
}

func decision(n int, change ...func(*ledger.Entry, *writv1.DecisionRecord)) ledger.Entry {
	body := &writv1.DecisionRecord{
		Surface: writv1.Surface_SURFACE_AUTHORIZE, Tool: fmt.Sprintf("tool.%d", n%3), Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE,
		Principal: &writv1.Principal{Workload: fmt.Sprintf("spiffe://test.example/w%d", n%2), User: fmt.Sprintf("u%d", n%5), Tenant: "acme"},
		Decision: &writv1.Decision{Verdict: writv1.Verdict(1 + n%3), Reason: writv1.Reason(1 + n%3), Checks: []*writv1.Check{
			{Stage: "condition", Name: "passes", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS},
			{Stage: "condition", Name: fmt.Sprintf("check %d", n%2), Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL},
		}},
		Arguments: make([]byte, 300), Session: id(n % 4), TraceParent: fmt.Sprintf("00-%032x-%016x-01", n%4+1, 1),
		Envelope: &writv1.Envelope{RequestId: fmt.Sprintf("r-%d", n)},
		Facts:    &writv1.Facts{Session: &writv1.SessionSummary{Run: &writv1.RunSummary{Contract: fmt.Sprintf("flow %d", n%2)}}},
	}
	e := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: id(n), BundleDigest: make([]byte, 32), Body: body}
	for _, c := range change {
		c(&e, body)
	}
	return e
}

func outcome(n int) ledger.Entry {
	return ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: "acme", DecisionID: id(n),
		Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED},
	}
}

func started() ledger.Entry {
	return ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{Version: "test"}}
}

// day is a start, and n decisions each with its outcome.
func day(n int) []ledger.Entry {
	out := []ledger.Entry{started()}
	for i := range n {
		out = append(out, decision(i), outcome(i))
	}
	return out
}

func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
