// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// source is a ledger, as bundles of one record each.
type source struct {
	origin  string
	key     note.Verifier
	bundles []*writv1.RecordBundle
	hello   *writv1.Hello
}

func newSource(t testing.TB, dir string, n int) *source {
	t.Helper()
	l, r, err := ledger.Open(ledger.Options{Dir: dir, Origin: "test.example/agent"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(nil) //nolint:errcheck // a test
	for range n {
		if _, err := l.Append(t.Context(), entry(50), writv1.Durability_DURABILITY_NODE); err != nil {
			t.Fatal(err)
		}
	}
	key, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	reader, err := l.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{origin: r.Origin, key: key}
	for at := uint64(0); at < l.Status().Size; {
		b, err := reader.Next(t.Context(), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		s.bundles = append(s.bundles, &writv1.RecordBundle{FirstIndex: b.First, Records: b.Records, Head: b.Head})
		at = b.Size
	}
	_, head, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	s.hello = &writv1.Hello{Origin: r.Origin, Head: head}
	return s
}

// join makes one bundle of several.
func join(bundles ...*writv1.RecordBundle) *writv1.RecordBundle {
	out := &writv1.RecordBundle{FirstIndex: bundles[0].GetFirstIndex()}
	for _, b := range bundles {
		out.Records = append(out.Records, b.GetRecords()...)
		out.Head = b.GetHead()
	}
	return out
}

func (s *source) receiver(t testing.TB, n int) *stream.Receiver {
	t.Helper()
	r := stream.NewReceiver(stream.Holding{Origin: s.origin}, s.key)
	for _, b := range s.bundles[:n] {
		if _, err := r.Feed(b); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestBundlesThatGoOnAreTaken(t *testing.T) {
	t.Parallel()
	s := newSource(t, t.TempDir(), 7)
	var held stream.Holding
	for _, tc := range []struct {
		name   string
		bundle *writv1.RecordBundle
		fresh  int
		size   uint64
	}{
		{"the first", s.bundles[0], 1, 1},
		{"the first again", s.bundles[0], 0, 1},
		{"several at once", join(s.bundles[1:4]...), 3, 4},
		{"an older one again", s.bundles[1], 0, 4},
		{"one that overlaps what is held", join(s.bundles[2:6]...), 2, 6},
		{"the last", s.bundles[6], 1, 7},
	} {
		held.Origin = s.origin
		r := stream.NewReceiver(held, s.key) // as after a restart, from what was stored
		w, err := r.Hello(s.hello)
		if err != nil || w.GetDurableSize() != held.Size || w.GetCreditBytes() == 0 {
			t.Fatalf("%s: Hello = %v, %v", tc.name, w, err)
		}
		a, err := r.Feed(tc.bundle)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if len(a.Records) != tc.fresh || len(a.Decoded) != tc.fresh || a.Size != tc.size || a.First != tc.size-uint64(tc.fresh) {
			t.Errorf("%s: %d records from %d, size %d, want %d and %d", tc.name, len(a.Records), a.First, a.Size, tc.fresh, tc.size)
		}
		held = a.Holding
	}
}

func TestWhatDoesNotGoOnIsAFinding(t *testing.T) {
	t.Parallel()
	s := newSource(t, t.TempDir(), 4)
	other := newSource(t, t.TempDir(), 4)
	change := func(b *writv1.RecordBundle, f func(*writv1.RecordBundle)) *writv1.RecordBundle {
		b = proto.CloneOf(b)
		f(b)
		return b
	}
	for _, tc := range []struct {
		name   string
		bundle *writv1.RecordBundle
		want   stream.FindingKind
	}{
		{"records are left out", s.bundles[3], stream.Gap},
		{"a bundle of another ledger", other.bundles[2], stream.UnknownKey},
		{"a head of another ledger", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Head = other.bundles[2].GetHead() }), stream.UnknownKey},
		{"a head of another size", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Head = s.bundles[3].GetHead() }), stream.Malformed},
		{"no head", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Head = nil }), stream.Malformed},
		{"a head that is too long", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Head = make([]byte, 4097) }), stream.Malformed},
		{"no records", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Records = nil }), stream.Malformed},
		{"an index past the end of numbers", change(s.bundles[2], func(b *writv1.RecordBundle) { b.FirstIndex = ^uint64(0) }), stream.Malformed},
		{"a record that is not canonical", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Records[0] = append(b.Records[0], 0x98, 0x06, 0x01) }), stream.Malformed},
		{"a record of another place", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Records = s.bundles[1].GetRecords() }), stream.Malformed},
		{"a record of another ledger", change(s.bundles[2], func(b *writv1.RecordBundle) { b.Records = other.bundles[2].GetRecords() }), stream.Malformed},
		{"a record with another time", change(s.bundles[2], func(b *writv1.RecordBundle) {
			rec := &writv1.Record{}
			if err := proto.Unmarshal(b.GetRecords()[0], rec); err != nil {
				t.Fatal(err)
			}
			rec.TimeUnixNs++
			b.Records[0], _ = proto.MarshalOptions{Deterministic: true}.Marshal(rec)
		}), stream.Fork},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, err := s.receiver(t, 2).Feed(tc.bundle)
			var f *stream.Finding
			if !errors.As(err, &f) || f.Kind != tc.want || f.Held.Size != 2 {
				t.Errorf("Feed = %+v, %v, want %v", a, err, tc.want)
			}
		})
	}
}

func TestALedgerThatWasRolledBackOrForkedIsAFinding(t *testing.T) {
	t.Parallel()
	// One key, two histories: the directory is copied before the second half.
	dir := t.TempDir()
	short := newSource(t, dir, 2)
	fork := t.TempDir()
	copyDir(t, dir, fork)
	long, forked := newSource(t, dir, 2), newSource(t, fork, 2)
	hello := func(change func(*writv1.Hello)) *writv1.Hello {
		h := proto.CloneOf(long.hello)
		change(h)
		return h
	}
	for _, tc := range []struct {
		name  string
		hello *writv1.Hello
		want  stream.FindingKind
	}{
		{"an older head", short.hello, stream.Rollback},
		{"no head at all", hello(func(h *writv1.Hello) { h.Head = nil }), stream.Rollback},
		{"another head of the same size", forked.hello, stream.Fork},
		{"another origin", hello(func(h *writv1.Hello) { h.Origin = "x" }), stream.Foreign},
		{"records pruned that are not held", hello(func(h *writv1.Hello) { h.OldestIndex = 5 }), stream.Gap},
		{"a head that is not signed", hello(func(h *writv1.Hello) { h.Head[len(h.Head)-9] ^= 1 }), stream.Malformed},
	} {
		_, err := long.receiver(t, 4).Hello(tc.hello)
		var f *stream.Finding
		if !errors.As(err, &f) || f.Kind != tc.want {
			t.Errorf("%s: Hello = %v, want %v", tc.name, err, tc.want)
		}
	}
	var f *stream.Finding
	if _, err := long.receiver(t, 4).Feed(forked.bundles[3]); !errors.As(err, &f) || f.Kind != stream.Fork || len(f.Head) == 0 {
		t.Errorf("another head of the same size in a bundle: %v, want a fork with its head", err)
	}
	if _, err := long.receiver(t, 3).Feed(forked.bundles[3]); !errors.As(err, &f) || f.Kind != stream.Fork {
		t.Errorf("a bundle of the other history: %v, want a fork", err)
	}
}

func TestAHoldingThatIsNotOfOnePieceIsRefused(t *testing.T) {
	t.Parallel()
	s := newSource(t, t.TempDir(), 3)
	a, err := s.receiver(t, 2).Feed(s.bundles[2])
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*stream.Holding){
		"another root": func(h *stream.Holding) { h.Root = bytes.Repeat([]byte{1}, 32) },
		"another range": func(h *stream.Holding) {
			h.Range = slices.Clone(h.Range)
			h.Range[0] = bytes.Repeat([]byte{1}, 32)
		},
		"another size": func(h *stream.Holding) { h.Size = 2 },
	} {
		h := a.Holding
		change(&h)
		if _, err := stream.NewReceiver(h, s.key).Hello(s.hello); err == nil {
			t.Errorf("%s: a holding with it is used", name)
		}
	}
}

func TestAnEarlierEpochIsNotTakenAfterARestartOfTheCollector(t *testing.T) {
	t.Parallel()
	s := newSource(t, t.TempDir(), 3)
	a, err := s.receiver(t, 1).Feed(s.bundles[1])
	if err != nil {
		t.Fatal(err)
	}
	if a.Epoch != 1 {
		t.Errorf("the holding says epoch %d, want 1", a.Epoch)
	}
	a.Epoch = 2
	var f *stream.Finding
	if _, err := stream.NewReceiver(a.Holding, s.key).Feed(s.bundles[2]); !errors.As(err, &f) || f.Kind != stream.Malformed {
		t.Errorf("a record of epoch 1 after one of epoch 2: %v, want %v", err, stream.Malformed)
	}
}

func FuzzFeed(f *testing.F) {
	s := newSource(f, f.TempDir(), 3)
	for _, b := range s.bundles {
		raw, err := proto.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := &writv1.RecordBundle{}
		if proto.Unmarshal(raw, b) != nil {
			return
		}
		a, err := s.receiver(t, 1).Feed(b)
		if err == nil && a.Size > 1 && !bytes.Equal(a.Records[0], s.bundles[1].GetRecords()[0]) {
			t.Fatalf("a record is taken that was never signed: %x", a.Records[0])
		}
	})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
