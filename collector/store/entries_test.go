// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger/stream"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// logged reads all entries of the log, in pieces.
func logged(t *testing.T, s *store.Store) (raw [][]byte, read []*writv1.LogEntry) {
	t.Helper()
	for {
		more, err := s.Entries(t.Context(), uint64(len(raw)), 3)
		if err != nil {
			t.Fatal(err)
		}
		if raw = append(raw, more...); len(more) == 0 {
			break
		}
	}
	if n, err := s.EntryCount(t.Context()); err != nil || n != uint64(len(raw)) {
		t.Errorf("EntryCount = %d, %v, want %d", n, err, len(raw))
	}
	for _, b := range raw {
		e := &writv1.LogEntry{}
		if err := canonical.Unmarshal(b, e); err != nil {
			t.Fatal(err)
		}
		read = append(read, e)
	}
	return raw, read
}

func TestWhatIsStoredHasItsPlaceInTheLogForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0)
	s, err := store.Open(t.Context(), dir, store.Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	src := newSource(t, 2, day(3)...)
	held := stream.Holding{Origin: src.origin}
	var want []*writv1.LogEntry
	for i, b := range src.bundles {
		a := src.accept(t, held, b)
		if err := s.Put(t.Context(), held, a, src.vkey); err != nil {
			t.Fatal(err)
		}
		want = append(want, &writv1.LogEntry{TimeUnixNs: uint64(now.UnixNano()), What: &writv1.LogEntry_Head{Head: b.GetHead()}})
		// The same again is stored no second time, and is no second entry.
		if err := s.Put(t.Context(), held, a, src.vkey); err != nil {
			t.Fatal(err)
		}
		held = a.Holding
		now = now.Add(time.Second)
		f := store.Finding{Origin: "o", Kind: "fork", Detail: "d", HeldSize: 3, HeldRoot: []byte{1}, HeldHead: []byte("held"), Head: fmt.Appendf(nil, "head %d", i/2)}
		if err := s.AddFinding(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // the second time it is only counted
			want = append(want, &writv1.LogEntry{TimeUnixNs: uint64(now.UnixNano()), What: &writv1.LogEntry_Finding{Finding: &writv1.LedgerFinding{
				Origin: f.Origin, Kind: f.Kind, Detail: f.Detail, HeldSize: f.HeldSize, HeldRoot: f.HeldRoot, HeldHead: f.HeldHead, Head: f.Head,
			}}})
		}
		now = now.Add(time.Second)
	}
	raw, read := logged(t, s)
	if diff := cmp.Diff(want, read, protocmp.Transform()); diff != "" {
		t.Errorf("the entries (-want +got):\n%s", diff)
	}
	// The bundles are of a start and a decision, then of an outcome and the next decision.
	for i := range 3 {
		at, err := s.EntryOf(t.Context(), id(i))
		if err != nil || !bytes.Equal(read[at].GetHead(), src.bundles[i].GetHead()) {
			t.Errorf("decision %d is under entry %d, %v", i, at, err)
		}
	}
	if _, err := s.EntryOf(t.Context(), id(9)); !errors.Is(err, store.ErrNoDecision) {
		t.Errorf("a decision that there is not: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := store.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if other, _ := logged(t, again); !cmp.Equal(raw, other, cmp.Comparer(bytes.Equal)) {
		t.Error("the entries are others when the store is opened again")
	}
}

func TestAStoreFromBeforeTheLogGivesItsEntriesTheirPlaces(t *testing.T) {
	t.Parallel()
	dir, one, _ := closed(t)
	s := open(t, dir)
	if err := s.AddFinding(t.Context(), store.Finding{Origin: one.origin, Kind: "gap"}); err != nil {
		t.Fatal(err)
	}
	want, _ := logged(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, "DROP TABLE entries", "PRAGMA user_version = 5")
	got, _ := logged(t, open(t, dir))
	if len(want) != 13 || !cmp.Equal(want, got, cmp.Comparer(bytes.Equal)) {
		t.Errorf("%d entries after the migration, %d before", len(got), len(want))
	}
}
