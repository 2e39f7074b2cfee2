// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
)

func TestAStoreIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	newSource(t, 8, day(10)...).putAll(t, open(t, dir))
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

func TestAReceiverGoesOnFromWhatIsHeldAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := newSource(t, 7, day(40)...)
	var held stream.Holding
	for i, b := range src.bundles {
		s, err := store.Open(t.Context(), dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Holding(t.Context(), src.origin)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			held = stream.Holding{Origin: src.origin}
		}
		if diff := cmp.Diff(held, got); diff != "" {
			t.Fatalf("before bundle %d the holding differs (-put +got):\n%s", i, diff)
		}
		a := src.accept(t, got, b)
		if err := s.Put(t.Context(), got, a, src.vkey); err != nil {
			t.Fatal(err)
		}
		held = a.Holding
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if held.Size != 81 || held.Epoch != 1 {
		t.Errorf("%d records of epoch %d are held, want 81 of epoch 1", held.Size, held.Epoch)
	}
}

func TestALedgerIsListedWithItsKeyItsHeadAndItsTimes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 5)
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{Clock: func() time.Time {
		now = now.Add(time.Minute)
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a test
	src := newSource(t, 3, day(4)...)
	held := src.putAll(t, s)
	got, err := s.Ledgers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Ledger{{
		Origin: src.origin, VerifierKey: src.vkey, Size: 9, Root: held.Root, Head: src.bundles[2].GetHead(),
		FirstTime: time.Unix(1_700_000_060, 5), LastTime: time.Unix(1_700_000_180, 5),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Ledgers (-want +got):\n%s", diff)
	}
}

// fork is one key with two histories that part after the first bundle.
func fork(t *testing.T) (base, one, two *source) {
	t.Helper()
	dir, other := t.TempDir(), t.TempDir()
	base = sourceOf(t, ledger.Options{Dir: dir}, 3, day(1)...)
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	one = sourceOf(t, ledger.Options{Dir: dir}, 2, decision(1), outcome(1))
	two = sourceOf(t, ledger.Options{Dir: other}, 2, decision(2), outcome(2))
	return base, one, two
}

func TestOnlyOneOfTwoHistoriesIsTaken(t *testing.T) {
	t.Parallel()
	base, one, two := fork(t)
	s := open(t, t.TempDir())
	held := base.putAll(t, s)
	rivals := []stream.Accepted{one.accept(t, held, one.bundles[1]), two.accept(t, held, two.bundles[1])}
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.Put(t.Context(), held, rivals[i%2], one.vkey) })
	}
	wg.Wait()
	after, err := s.Holding(t.Context(), one.origin)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		// The same history again is no conflict: it is held.
		if won := bytes.Equal(after.Root, rivals[i%2].Root); won && err != nil || !won && !errors.Is(err, store.ErrConflict) {
			t.Errorf("Put of a history that won (%v) = %v", won, err)
		}
	}
	if err := s.Put(t.Context(), stream.Holding{Origin: one.origin}, base.accept(t, stream.Holding{Origin: one.origin}, base.bundles[0]), one.vkey); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Put from an older state = %v, want %v", err, store.ErrConflict)
	}
	if got := list(t, s, store.Selection{}); len(got) != 5 {
		t.Errorf("%d records are stored, want 5", len(got))
	}
}

func list(t testing.TB, s *store.Store, sel store.Selection) []store.Stored {
	t.Helper()
	got, err := s.List(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestABundleThatIsSentAgainIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	src := newSource(t, 3, day(2)...)
	zero := stream.Holding{Origin: src.origin}
	if err := s.Put(t.Context(), zero, stream.Accepted{Holding: zero}, src.vkey); err != nil {
		t.Errorf("Put of nothing = %v", err)
	}
	a := src.accept(t, zero, src.bundles[0])
	again := src.accept(t, a.Holding, src.bundles[0])
	if len(again.Records) != 0 {
		t.Fatalf("the receiver gives %d records of a bundle that is held", len(again.Records))
	}
	for name, put := range map[string]func() error{
		"the same Put":            func() error { return s.Put(t.Context(), zero, a, src.vkey) },
		"the bundle, as received": func() error { return s.Put(t.Context(), a.Holding, again, src.vkey) },
	} {
		if err := s.Put(t.Context(), zero, a, src.vkey); err != nil {
			t.Fatal(err)
		}
		waiting := s.Stored()
		if err := put(); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
		select {
		case <-waiting:
			t.Errorf("%s again: watchers are woken for nothing", name)
		default:
		}
		if got := list(t, s, store.Selection{}); len(got) != 3 {
			t.Errorf("%s again: %d records are stored, want 3", name, len(got))
		}
	}
}

func TestALedgerKeepsItsKey(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	src, other := newSource(t, 3, day(2)...), newSource(t, 3, day(1)...)
	zero := stream.Holding{Origin: src.origin}
	a := src.accept(t, zero, src.bundles[0])
	for name, key := range map[string]string{"no key": "", "a key of another ledger": other.vkey, "no key at all": "x+y+z"} {
		if err := s.Put(t.Context(), zero, a, key); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("the first bundle with %s: %v, want %v", name, err, store.ErrInvalid)
		}
	}
	if err := s.Put(t.Context(), zero, a, src.vkey); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), a.Holding, src.accept(t, a.Holding, src.bundles[1]), other.vkey); !errors.Is(err, store.ErrKey) {
		t.Errorf("the next bundle with another key: %v, want %v", err, store.ErrKey)
	}
}

func TestWhatIsNotOfOnePieceIsNotStored(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	src := newSource(t, 3, day(2)...)
	zero := stream.Holding{Origin: src.origin}
	for name, change := range map[string]func(*stream.Holding, *stream.Accepted){
		"another ledger before":      func(h *stream.Holding, _ *stream.Accepted) { h.Origin = "x" },
		"no origin":                  func(h *stream.Holding, a *stream.Accepted) { h.Origin, a.Origin = "", "" },
		"a gap":                      func(_ *stream.Holding, a *stream.Accepted) { a.First, a.Size = 1, 4 },
		"a record too few":           func(_ *stream.Holding, a *stream.Accepted) { a.Records, a.Decoded = a.Records[1:], a.Decoded[1:] },
		"a record that was not read": func(_ *stream.Holding, a *stream.Accepted) { a.Decoded = a.Decoded[1:] },
		"an empty record":            func(_ *stream.Holding, a *stream.Accepted) { a.Records = [][]byte{{}, {}, {}} },
		"a record that is too long":  func(_ *stream.Holding, a *stream.Accepted) { a.Records = [][]byte{{1}, {1}, make([]byte, 65_536)} },
		"no head":                    func(_ *stream.Holding, a *stream.Accepted) { a.Head = nil },
		"a head that is too long":    func(_ *stream.Holding, a *stream.Accepted) { a.Head = make([]byte, 4097) },
		"no root":                    func(_ *stream.Holding, a *stream.Accepted) { a.Root = nil },
		"no compact range":           func(_ *stream.Holding, a *stream.Accepted) { a.Range = nil },
	} {
		h, a := zero, src.accept(t, zero, src.bundles[0])
		change(&h, &a)
		if err := s.Put(t.Context(), h, a, src.vkey); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: Put = %v, want %v", name, err, store.ErrInvalid)
		}
	}
	if got := list(t, s, store.Selection{}); len(got) != 0 {
		t.Errorf("%d records are stored, want none", len(got))
	}
}

func TestAPutWhoseCallerHasGoneStoresAllOrNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	src := newSource(t, 16, day(60)...)
	for i := 0; ; {
		held, err := s.Holding(t.Context(), src.origin)
		if err != nil {
			t.Fatal(err)
		}
		if held.Size == 121 {
			break
		}
		a := src.accept(t, held, src.bundles[held.Size/16])
		ctx, cancel := context.WithCancel(t.Context())
		if i++; i%2 == 1 {
			go cancel()
		}
		err = s.Put(ctx, held, a, src.vkey)
		cancel()
		if got, e := s.Holding(t.Context(), src.origin); e != nil || err == nil && got.Size != a.Size || got.Size != a.Size && got.Size != held.Size {
			t.Fatalf("Put = %v, and then %d records are held after %d, %v", err, got.Size, held.Size, e)
		}
	}
	if got := list(t, s, store.Selection{Limit: 1000}); len(got) != 121 {
		t.Errorf("%d records are stored, want 121", len(got))
	}
}

func TestTwoCannotOpenOneStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if other, err := store.Open(t.Context(), dir, store.Options{}); !errors.Is(err, store.ErrLocked) || strings.Contains(err.Error(), "read") {
		t.Fatalf("the second Open = %v, %v, want %v at once", other, err, store.ErrLocked)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestAStoreIsReadWhileItIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := store.OpenReadOnly(t.Context(), dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenReadOnly of nothing = %v, want %v", err, os.ErrNotExist)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("OpenReadOnly of nothing made %v", entries)
	}
	if err := open(t, dir).Close(); err != nil { // the second time, nothing is in the WAL yet
		t.Fatal(err)
	}
	s := open(t, dir)
	src := newSource(t, 5, day(300)...)
	r, err := store.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // a test
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := src.put(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
	for seen := int64(0); seen < 601; {
		got := list(t, r, store.Selection{After: seen, Forward: true})
		for _, rec := range got {
			if seen++; rec.Seq != seen {
				t.Fatalf("record %d of the sequence comes after %d", rec.Seq, seen-1)
			}
		}
		if report, err := store.Verify(t.Context(), dir); err != nil || report.Err() != nil {
			t.Fatalf("Verify while it is written: %v, %v", err, report.Err())
		}
	}
	if err := r.Put(t.Context(), stream.Holding{}, stream.Accepted{}, ""); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("Put = %v, want %v", err, store.ErrReadOnly)
	}
	if err := r.AddFinding(t.Context(), store.Finding{Origin: "x", Kind: "gap"}); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("AddFinding = %v, want %v", err, store.ErrReadOnly)
	}
}

func TestAStoreIsReadWithoutACollectorAndNotChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	newSource(t, 5, day(10)...).putAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := leftOver(t, dir)
	r, err := store.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	closing := sync.OnceValue(r.Close)
	defer closing() //nolint:errcheck // a test
	if got := list(t, r, store.Selection{}); len(got) != 21 {
		t.Errorf("%d records, want 21", len(got))
	}
	if after := leftOver(t, dir); after != before {
		t.Errorf("reading changed the files from\n%s to\n%s", before, after)
	}
	// No collector may write under it.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := store.Open(ctx, dir, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Open while it is read = %v, want %v", err, store.ErrLocked)
	}
	go closing() //nolint:errcheck // a test
	open(t, dir)
}

// edit changes a store's file behind its back.
func edit(t testing.TB, dir string, statements ...string) {
	t.Helper()
	db := database(t, dir)
	defer db.Close() //nolint:errcheck // a test
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func database(t testing.TB, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "store.db")+"?_pragma=journal_mode(DELETE)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

func TestAFileThatIsNotThisVersionsIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, statement string
		file            []byte
		want            error
	}{
		{name: "a newer version", statement: "PRAGMA user_version = 99", want: store.ErrVersion},
		{name: "another program's", statement: "PRAGMA application_id = 7", want: store.ErrVersion},
		{name: "no database", file: bytes.Repeat([]byte("no database "), 1000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir)
			newSource(t, 5, day(1)...).putAll(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if tc.file != nil {
				if err := os.WriteFile(filepath.Join(dir, "store.db"), tc.file, 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				edit(t, dir, tc.statement)
			}
			before := leftOver(t, dir)
			if s, err := store.OpenReadOnly(t.Context(), dir); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("OpenReadOnly = %v, %v, want %v", s, err, tc.want)
			}
			if s, err := store.Open(t.Context(), dir, store.Options{}); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("Open = %v, %v, want %v", s, err, tc.want)
			}
			if tc.statement == "" && leftOver(t, dir) != before {
				t.Errorf("a file that is no database was changed")
			}
		})
	}
}
