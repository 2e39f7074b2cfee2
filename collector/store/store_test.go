// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	return sourceIn(t, t.TempDir(), perBundle, entries...)
}

func sourceIn(t testing.TB, dir string, perBundle int, entries ...ledger.Entry) *source {
	t.Helper()
	l, r, err := ledger.Open(ledger.Options{Dir: dir, Origin: "test.example/agent"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(nil) //nolint:errcheck // a test
	reader, err := l.Reader(r.Size)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	s := &source{origin: r.Origin, vkey: l.VerifierKey(), key: key}
	for len(entries) > 0 {
		n := min(perBundle, len(entries))
		for i, e := range entries[:n] {
			d := writv1.Durability_DURABILITY_PROCESS
			if i == n-1 {
				d = writv1.Durability_DURABILITY_NODE
			}
			if _, err := l.Append(t.Context(), e, d); err != nil {
				t.Fatal(err)
			}
		}
		entries = entries[n:]
		bundle := &writv1.RecordBundle{}
		for i := 0; i < n; {
			b, err := reader.Next(t.Context(), n-i, 16<<20)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				bundle.FirstIndex = b.First
			}
			bundle.Records = append(bundle.Records, b.Records...)
			bundle.Head = b.Head
			i += len(b.Records)
		}
		s.bundles = append(s.bundles, bundle)
	}
	return s
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

// putAll stores every bundle from what is held on.
func (s *source) putAll(t testing.TB, st *store.Store) stream.Holding {
	t.Helper()
	held, err := st.Holding(t.Context(), s.origin)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range s.bundles {
		a := s.accept(t, held, b)
		if err := st.Put(t.Context(), held, a, s.vkey); err != nil {
			t.Fatal(err)
		}
		held = a.Holding
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
		Decision:  &writv1.Decision{Verdict: writv1.Verdict(1 + n%3)},
		Arguments: make([]byte, 300),
	}
	e := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: id(n), Body: body}
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

func TestAStoreIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	s := open(t, dir)
	newSource(t, 8, day(10)...).putAll(t, s)
	for name, want := range map[string]os.FileMode{"": 0o700, "store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600, "lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	var entries []ledger.Entry
	for i := range b.N {
		for j := range 128 {
			entries = append(entries, decision(i*128+j), outcome(i*128+j))
		}
	}
	src := newSource(b, 256, entries...)
	s := open(b, b.TempDir())
	held := stream.Holding{Origin: src.origin}
	accepted := make([]stream.Accepted, len(src.bundles))
	for i, bundle := range src.bundles {
		accepted[i] = src.accept(b, held, bundle)
		held = accepted[i].Holding
	}
	held = stream.Holding{Origin: src.origin}
	b.ResetTimer()
	start := time.Now()
	for _, a := range accepted {
		if err := s.Put(b.Context(), held, a, src.vkey); err != nil {
			b.Fatal(err)
		}
		held = a.Holding
	}
	b.ReportMetric(float64(len(entries))/time.Since(start).Seconds(), "records/s")
}
