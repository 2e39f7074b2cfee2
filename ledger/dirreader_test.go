// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// collect reads what is new, and fails on a record that is not the next.
func collect(t *testing.T, r *ledger.DirReader, next *uint64) error {
	t.Helper()
	return r.Read(func(index uint64, _ []byte) error {
		if index != *next {
			return fmt.Errorf("index %d, want %d", index, *next)
		}
		*next++
		return nil
	})
}

func TestADirectoryIsReadAsItGrows(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.SegmentBytes = 4000
	var r *ledger.DirReader
	next, want := uint64(0), uint64(0)
	for range 3 { // epochs
		l, _, err := ledger.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			r = ledger.NewDirReader(o.Dir, verifier(t, l.VerifierKey()))
		}
		for i := range 12 {
			appendN(t, l, i, 1, process)
			want++
			if i%3 != 0 {
				continue
			}
			if err := collect(t, r, &next); err != nil || next != want || r.Uncovered() != 0 {
				t.Fatalf("read to %d with %v and %d bytes to come, want %d", next, err, r.Uncovered(), want)
			}
		}
		if err := l.Close(&writv1.EndRecord{}); err != nil {
			t.Fatal(err)
		}
		want++
	}
	if err := collect(t, r, &next); err != nil || next != want {
		t.Fatalf("read to %d with %v, want %d", next, err, want)
	}
	if n := len(segments(t, o.Dir)); n < 6 {
		t.Fatalf("%d segments: the test does not cross any", n)
	}
}

func TestADirectoryIsReadUpToItsTornTail(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	names := segments(t, dir)
	last := names[len(names)-1]
	whole := read(t, last)
	fs := frames(whole)
	end := fs[len(fs)-2].end // of the last head; the seal follows
	for cut := fs[len(fs)-3].start + 1; cut < end; cut++ {
		write(t, last, whole[:cut])
		r, next := ledger.NewDirReader(dir, v), uint64(0)
		if err := collect(t, r, &next); err != nil || next != 13 || r.Uncovered() == 0 {
			t.Fatalf("cut at %d: read to %d with %v, %d bytes to come", cut, next, err, r.Uncovered())
		}
		write(t, last, whole)
		if err := collect(t, r, &next); err != nil || next != 14 || r.Uncovered() != 0 {
			t.Fatalf("cut at %d and mended: read to %d with %v, %d bytes to come", cut, next, err, r.Uncovered())
		}
	}
}

func TestNothingUnverifiedIsReadFromADirectory(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	want := [][]byte{}
	if err := ledger.NewDirReader(dir, v).Read(func(_ uint64, raw []byte) error {
		want = append(want, raw)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range segments(t, dir) {
		whole := read(t, name)
		for _, f := range frames(whole) {
			for at := f.start; at < f.end; at += 23 {
				bad := append([]byte(nil), whole...)
				bad[at] ^= 4
				if at >= f.start+9 {
					repair(bad[f.start:f.end])
				}
				write(t, name, bad)
				r := ledger.NewDirReader(dir, v)
				n := 0
				err := r.Read(func(index uint64, raw []byte) error {
					if int(index) != n || string(raw) != string(want[n]) {
						t.Fatalf("%s, byte %d: record %d is not the one that was written", name, at, index)
					}
					n++
					return nil
				})
				var fault *ledger.Fault
				// A head may be bad where a later one covers the same records.
				unseen := n == len(want) && err == nil && r.Uncovered() == 0 && f.kind != 2
				if unseen || err != nil && !errors.As(err, &fault) {
					t.Fatalf("%s, byte %d: read %d records, error %v", name, at, n, err)
				}
				if err != nil && !errors.Is(r.Read(nil), err) {
					t.Fatal("a fault is forgotten")
				}
			}
		}
		write(t, name, whole)
	}
}

func TestADirectoryIsReadFromItsOldestRecord(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	names := segments(t, dir)
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	r := ledger.NewDirReader(dir, v)
	first, n := uint64(0), uint64(0)
	if err := r.Read(func(index uint64, _ []byte) error {
		if n == 0 {
			first = index
		}
		n++
		return nil
	}); err != nil || first == 0 || first != r.First() || first+n != 14 {
		t.Errorf("read %d records from %d: %v", n, first, err)
	}
}

func TestReadingADirectorySaysWhyItCannot(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	t.Run("records pruned before they were read", func(t *testing.T) {
		t.Parallel()
		o := options(t.TempDir())
		o.SegmentBytes = 2000
		l, _ := open(t, o)
		appendN(t, l, 0, 1, node)
		r, next := ledger.NewDirReader(o.Dir, verifier(t, l.VerifierKey())), uint64(0)
		if err := collect(t, r, &next); err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 1, 20, node)
		head, _, err := l.Head()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Acknowledge(head.Size, head.Root[:]); err != nil {
			t.Fatal(err)
		}
		if n, err := l.Prune(head.Size); err != nil || n == 0 {
			t.Fatalf("pruned %d: %v", n, err)
		}
		if err := collect(t, r, &next); !errors.Is(err, ledger.ErrPruned) {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("no ledger", func(t *testing.T) {
		t.Parallel()
		if err := ledger.NewDirReader(t.TempDir(), v).Read(nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("the visitor's own error", func(t *testing.T) {
		t.Parallel()
		if err := ledger.NewDirReader(dir, v).Read(func(uint64, []byte) error { return fs.ErrNotExist }); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error = %v", err)
		}
	})
}

func TestASegmentThatIsBeingMadeIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	names := segments(t, dir)
	last := names[len(names)-1]
	whole := read(t, last)
	for _, there := range []int{0, 1, frames(whole)[0].end - 1, frames(whole)[0].end} {
		write(t, last, whole[:there])
		r, next := ledger.NewDirReader(dir, v), uint64(0)
		if err := collect(t, r, &next); err != nil {
			t.Fatalf("%d bytes are there: read to %d with %v", there, next, err)
		}
		write(t, last, whole)
		if err := collect(t, r, &next); err != nil || next != 14 {
			t.Fatalf("after %d bytes, the whole: read to %d with %v", there, next, err)
		}
	}
}
