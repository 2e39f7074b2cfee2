// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// small makes a closed ledger of 13 records and an END in three segments, two epochs.
func small(t testing.TB) (dir string, v note.Verifier) {
	t.Helper()
	o := options(t.TempDir())
	o.SegmentBytes = 900
	for range 2 {
		l, _, err := ledger.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		v = verifier(t, l.VerifierKey())
		for i := range 6 {
			e := decision(i)
			e.Body = &writv1.DecisionRecord{Tool: "t"}
			e.Sensitive = []ledger.Sensitive{{Path: "arguments.iban", Value: []byte("1")}}
			if _, err := l.Append(t.Context(), e, process); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(&writv1.EndRecord{OpenAdmissions: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return o.Dir, v
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.dlog"))
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	return names
}

func verify(t testing.TB, dir string, v note.Verifier) *ledger.Report {
	t.Helper()
	r, err := ledger.Verify(dir, v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAWholeLedgerVerifies(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	r := verify(t, dir, v)
	if r.Fault != nil || r.Records != 14 || r.Size != 14 || r.First != 0 || r.Epochs != 2 || !r.Ended || r.Segments < 3 || r.Origin != v.Name() {
		t.Errorf("report = %+v", r)
	}
	if len(r.Notes) != 8 || !strings.Contains(r.Notes[2], "second decision") { // no STARTs, and the second epoch uses the same ids
		t.Errorf("notes = %q", r.Notes)
	}
	names := segments(t, dir)
	for _, name := range names {
		if r := ledger.VerifySegment(name, bytes.NewReader(read(t, name)), v); r.Fault != nil {
			t.Errorf("%s alone: %v", name, r.Fault)
		}
	}
}

func TestEveryChangedBitIsFound(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	for _, name := range segments(t, dir) {
		whole := read(t, name)
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 1 << (i % 8)
			r := ledger.VerifySegment(name, bytes.NewReader(bad), v)
			if r.Fault == nil {
				t.Fatalf("%s: a changed bit in byte %d is not found", name, i)
			}
			if r.Fault.Offset > int64(i) {
				t.Fatalf("%s: a changed bit in byte %d is reported at %d", name, i, r.Fault.Offset)
			}
		}
	}
}

func TestEveryChangedByteUnderAGoodCRCIsFound(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	for _, name := range segments(t, dir) {
		whole := read(t, name)
		for _, f := range frames(whole) {
			for i := f.start + 9; i < f.end; i++ {
				bad := bytes.Clone(whole)
				bad[i] ^= 1 << (i % 8)
				repair(bad[f.start:f.end])
				r := ledger.VerifySegment(name, bytes.NewReader(bad), v)
				if r.Fault == nil {
					t.Fatalf("%s: byte %d of the frame of type %d at %d is changed, and not found", name, i-f.start, f.kind, f.start)
				}
			}
		}
	}
}

type rawFrame struct {
	start, end int
	kind       byte
}

func frames(b []byte) (out []rawFrame) {
	for at := 0; at < len(b); {
		end := at + 9 + int(binary.LittleEndian.Uint32(b[at:]))
		out = append(out, rawFrame{at, end, b[at+8]})
		at = end
	}
	return out
}

func repair(f []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(f[4:], crc32.Update(crc32.Checksum(f[:4], table), table, f[8:]))
}

func TestEveryTruncationIsSeen(t *testing.T) {
	t.Parallel()
	dir, v := small(t)
	names := segments(t, dir)
	last := names[len(names)-1]
	whole := read(t, last)
	fs := frames(whole)
	seal := fs[len(fs)-1].start
	for cut := range seal {
		write(t, last, whole[:cut])
		if r := verify(t, dir, v); r.Fault == nil && r.Ended {
			t.Fatalf("cut at byte %d: nothing is seen", cut)
		}
	}
}

func TestAttacksOnSegmentsAreFound(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]func(t *testing.T, names []string){
		"the first segment taken away, and the second renamed": func(t *testing.T, n []string) {
			if err := os.Rename(n[1], n[0]); err != nil {
				t.Fatal(err)
			}
		},
		"a middle segment taken away": func(t *testing.T, n []string) {
			if err := os.Remove(n[1]); err != nil {
				t.Fatal(err)
			}
		},
		"two segments swapped": func(t *testing.T, n []string) {
			a, b := read(t, n[0]), read(t, n[1])
			write(t, n[0], b)
			write(t, n[1], a)
		},
		"a seal taken off": func(t *testing.T, n []string) {
			b := read(t, n[0])
			fs := frames(b)
			write(t, n[0], b[:fs[len(fs)-1].start])
		},
		"the last record of a segment and its head taken out": func(t *testing.T, n []string) {
			b := read(t, n[0])
			fs := frames(b)
			write(t, n[0], append(bytes.Clone(b[:fs[len(fs)-3].start]), b[fs[len(fs)-1].start:]...))
		},
		"a record taken out":              func(t *testing.T, n []string) { cutFrames(t, n[0], 1, 1) },
		"a record and its head taken out": func(t *testing.T, n []string) { cutFrames(t, n[0], 1, 2) },
		"a head doubled": func(t *testing.T, n []string) {
			b := read(t, n[0])
			f := frames(b)[2]
			write(t, n[0], append(append(bytes.Clone(b[:f.end]), b[f.start:f.end]...), b[f.end:]...))
		},
		"a frame behind the seal": func(t *testing.T, n []string) {
			b := read(t, n[0])
			f := frames(b)[1]
			write(t, n[0], append(bytes.Clone(b), b[f.start:f.end]...))
		},
		"a segment of another ledger": func(t *testing.T, n []string) {
			other, _ := small(t)
			write(t, n[1], read(t, segments(t, other)[1]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, v := small(t)
			attack(t, segments(t, dir))
			r := verify(t, dir, v)
			if r.Fault == nil || r.Fault.Segment == "" || r.Fault.What == nil {
				t.Errorf("report = %+v, want a fault", r)
			}
		})
	}
}

func cutFrames(t *testing.T, name string, from, n int) {
	t.Helper()
	b := read(t, name)
	fs := frames(b)
	write(t, name, append(bytes.Clone(b[:fs[from].start]), b[fs[from+n-1].end:]...))
}

func TestAnotherKeyVerifiesNothing(t *testing.T) {
	t.Parallel()
	dir, _ := small(t)
	_, other := small(t)
	if r := verify(t, dir, other); r.Fault == nil || r.Records != 0 {
		t.Errorf("report = %+v, want a fault at once", r)
	}
	if _, err := ledger.Verify(t.TempDir(), other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestReceiptsThatWereTamperedWithAreRefused(t *testing.T) {
	t.Parallel()
	l, _ := open(t, options(t.TempDir()))
	appendN(t, l, 0, 5, process)
	e := decision(5)
	e.Body = &writv1.DecisionRecord{Tool: "t"}
	p, err := l.Append(t.Context(), e, process)
	if err != nil {
		t.Fatal(err)
	}
	good, v := receipt(t, p), verifier(t, l.VerifierKey())
	if _, _, err := ledger.VerifyReceipt(good, v); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, _, err := ledger.VerifyReceipt(bad, v); !errors.Is(err, ledger.ErrReceipt) {
				t.Fatalf("bit %d of byte %d of %d changed: %v", bit, i, len(good), err)
			}
		}
		if _, _, err := ledger.VerifyReceipt(good[:i], v); !errors.Is(err, ledger.ErrReceipt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, _, err := ledger.VerifyReceipt(append(bytes.Clone(good), '\n'), v); !errors.Is(err, ledger.ErrReceipt) {
		t.Errorf("with a byte more: %v", err)
	}
	if _, err := (ledger.Position{}).Receipt(); !errors.Is(err, ledger.ErrReceipt) {
		t.Errorf("the receipt of nothing: %v", err)
	}
}

func FuzzVerifySegment(f *testing.F) {
	dir, v := small(f)
	for _, name := range segments(f, dir) {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := ledger.VerifySegment("fuzz", bytes.NewReader(b), v)
		if r.Fault == nil && r.Heads == 0 && r.Records > 0 {
			t.Fatalf("records without a head are verified: %+v", r)
		}
		if r.Records > uint64(len(b)) {
			t.Fatalf("more records than bytes: %+v", r)
		}
	})
}

func FuzzReceipt(f *testing.F) {
	l, _ := open(f, options(f.TempDir()))
	p, err := l.Append(f.Context(), decision(0), process)
	if err != nil {
		f.Fatal(err)
	}
	good, v := receipt(f, p), verifier(f, l.VerifierKey())
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, _, err := ledger.VerifyReceipt(b, v)
		if err != nil {
			return
		}
		raw, err := canonical.Marshal(rec)
		if err != nil || !bytes.Equal(b, good) || !bytes.Contains(b, raw) {
			t.Fatalf("another receipt of the record is taken: %x", b)
		}
	})
}
