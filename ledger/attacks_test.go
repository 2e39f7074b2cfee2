// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// attack is one way to change a ledger. What the files alone show is in fault, or for
// what only the key's holder can write and what may have an innocent cause, in note.
// What neither shows takes a head that was kept elsewhere, and is that error.
type attack struct {
	name   string
	change func(t *testing.T, dir string, f *forger)
	fault  string
	note   string
	head   error
}

// onFrames changes the frames of a segment, whose CRCs are made good again.
func onFrames(segment int, change func([][]byte) [][]byte) func(*testing.T, string, *forger) {
	return func(t *testing.T, dir string, _ *forger) {
		t.Helper()
		name := segments(t, dir)[segment]
		b := read(t, name)
		var fs [][]byte
		for _, f := range frames(b) {
			fs = append(fs, bytes.Clone(b[f.start:f.end]))
		}
		fs = change(fs)
		for _, f := range fs {
			repair(f)
		}
		write(t, name, bytes.Join(fs, nil))
	}
}

// forging has the key's holder write the ledger again.
func forging(change func(f *forger)) func(*testing.T, string, *forger) {
	return func(_ *testing.T, dir string, f *forger) {
		change(f)
		f.write(dir)
	}
}

// onRecord has the key's holder write the second decision in other bytes.
func onRecord(change func(raw []byte) []byte) func(*testing.T, string, *forger) {
	return forging(func(f *forger) { f.epochs[0].records[3] = change(f.epochs[0].records[3]) })
}

// withoutKey are the attacks of one who has the files and not the key. The frames of a
// segment are header, record, head, record, head, ... seal.
var withoutKey = []attack{
	{name: "the first record is deleted", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:1], f[2:]...) }), fault: "a head of size"},
	{name: "the first record and its head are deleted", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:1], f[3:]...) }), fault: "its index is 1, want 0"},
	{name: "a record in the middle is deleted with its head", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:5], f[7:]...) }), fault: "its index is 3, want 2"},
	{name: "two records are swapped", change: onFrames(0, func(f [][]byte) [][]byte { f[3], f[5] = f[5], f[3]; return f }), fault: "its index is 2, want 1"},
	{name: "a record is doubled", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:4], append([][]byte{f[3]}, f[4:]...)...) }), fault: "its index is 1, want 2"},
	{name: "a head is doubled", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:5], append([][]byte{f[4]}, f[5:]...)...) }), fault: "a head of size 2"},
	{name: "a head stands before its record", change: onFrames(0, func(f [][]byte) [][]byte { f[3], f[4] = f[4], f[3]; return f }), fault: "a head of size 2"},
	{name: "a record is put after the seal", change: onFrames(0, func(f [][]byte) [][]byte { return append(f, f[1]) }), fault: "a frame after the seal"},
	{name: "the seal is taken off", change: onFrames(0, func(f [][]byte) [][]byte { return f[:len(f)-1] }), fault: "no seal, and another segment follows"},
	{name: "the seal is another", change: onFrames(0, func(f [][]byte) [][]byte { f[len(f)-1][9]++; return f }), fault: "a seal that does not fit"},
	{name: "a tenant is another", change: onFrames(0, func(f [][]byte) [][]byte {
		f[3] = bytes.Replace(f[3], []byte("acme"), []byte("evil"), 1)
		return f
	}), fault: "the root of size 2 is not that of the records"},
	{name: "a root is another", change: onFrames(0, func(f [][]byte) [][]byte { f[4][9+8]++; return f }), fault: "the root of size 2"},
	{name: "a signature is another", change: onFrames(0, func(f [][]byte) [][]byte { f[4][9+44]++; return f }), fault: "wrong signature"},
	{name: "a key id is another", change: onFrames(0, func(f [][]byte) [][]byte { f[4][9+40]++; return f }), fault: "signed with another key"},
	{name: "a record has length 0", change: onFrames(0, func(f [][]byte) [][]byte { return append(f[:3], append([][]byte{frameOf(1, nil)}, f[3:]...)...) }), fault: "length 0"},
	{name: "a record has 65,536 bytes", change: onFrames(0, func(f [][]byte) [][]byte {
		return append(f[:3], append([][]byte{frameOf(1, make([]byte, 65_536))}, f[3:]...)...)
	}), fault: "length 65536"},
	{name: "a length of 4 GiB", change: onFrames(0, func(f [][]byte) [][]byte { binary.LittleEndian.PutUint32(f[3], 1<<32-1); return f }), fault: "length 4294967295"},
	{name: "a frame of a type that there is not", change: onFrames(0, func(f [][]byte) [][]byte { f[3][8] = 9; return f }), fault: "type 9"},
	{name: "another version of the format", change: onFrames(0, func(f [][]byte) [][]byte { f[0][9+8]++; return f }), fault: "segment version"},
	{name: "another epoch in a header", change: onFrames(1, func(f [][]byte) [][]byte { f[0][9+12]++; return f }), fault: "the name says epoch 2"},
	{name: "the compact range of what was pruned is another", change: onFrames(1, func(f [][]byte) [][]byte { f[0][len(f[0])-1]++; return f }), fault: "the compact range is not that of the records before"},
	{name: "the same, where what was before it is gone", change: func(t *testing.T, dir string, f *forger) {
		t.Helper()
		onFrames(1, func(f [][]byte) [][]byte { f[0][len(f[0])-1]++; return f })(t, dir, f)
		remove(t, segments(t, dir)[0])
	}, fault: "the root of size"},
	{name: "a segment in between is deleted", change: func(t *testing.T, dir string, f *forger) {
		t.Helper()
		third(f)
		f.write(dir)
		remove(t, segments(t, dir)[1])
	}, fault: "the segment begins at 12, the one before ended at 6"},
	{name: "two segments are swapped", change: func(t *testing.T, dir string, _ *forger) {
		t.Helper()
		n := segments(t, dir)
		a, b := read(t, n[0]), read(t, n[1])
		write(t, n[0], b)
		write(t, n[1], a)
	}, fault: "the name says epoch 1"},
	{name: "a segment is another ledger's", change: func(t *testing.T, dir string, _ *forger) {
		t.Helper()
		other, _ := story(t)
		write(t, segments(t, dir)[1], read(t, segments(t, other)[1]))
	}, fault: "the segment is of"},
	{name: "a segment is there twice under another name", change: func(t *testing.T, dir string, _ *forger) {
		t.Helper()
		write(t, strings.Replace(segments(t, dir)[1], "/00000002-", "/00000003-", 1), read(t, segments(t, dir)[1]))
	}, fault: "the name says epoch 3"},
	{name: "another key signs everything", change: func(t *testing.T, dir string, f *forger) {
		t.Helper()
		skey, _, err := note.GenerateKey(rand.Reader, f.origin)
		if err != nil {
			t.Fatal(err)
		}
		if f.signer, err = note.NewSigner(skey); err != nil {
			t.Fatal(err)
		}
		f.write(dir)
	}, fault: "signed with another key"},
	{name: "the last record is deleted with its head", change: onFrames(1, func(f [][]byte) [][]byte { return f[:len(f)-3] }), head: ledger.ErrRollback},
	{name: "the last segment is deleted", change: func(t *testing.T, dir string, _ *forger) {
		t.Helper()
		remove(t, segments(t, dir)[1])
	}, head: ledger.ErrRollback},
}

// withKey are the attacks of one who has the key, and signs everything anew.
var withKey = []attack{
	{name: "a record of another ledger", change: func(t *testing.T, dir string, f *forger) {
		t.Helper()
		other, v := story(t)
		f.epochs[0].records[3] = forgerOf(t, other, v).epochs[0].records[3]
		f.write(dir)
	}, fault: "it belongs to another ledger"},
	{name: "an index is left out", change: forging(func(f *forger) { f.edit(0, 3, func(r *writv1.Record) { r.Index = 9 }) }), fault: "its index is 9, want 3"},
	{name: "a record is of another epoch than its segment", change: forging(func(f *forger) { f.edit(0, 3, func(r *writv1.Record) { r.Epoch = 2 }) }), fault: "epoch 2 in a segment of epoch 1"},
	{name: "an epoch goes back", change: forging(func(f *forger) {
		f.epochs[0].number = 3
		for i := range f.epochs[0].records {
			f.edit(0, i, func(r *writv1.Record) { r.Epoch = 3 })
		}
		f.renumber()
	}), fault: "begins at"},
	{name: "a kind that there is not", change: forging(func(f *forger) { f.edit(0, 3, func(r *writv1.Record) { r.Kind = 99 }) }), fault: "kind 99"},
	{name: "commitments out of order", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) {
			r.Commitments[0], r.Commitments[1] = r.Commitments[1], r.Commitments[0]
		})
	}), fault: "commitments out of order"},
	{name: "a commitment twice", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) { r.Commitments = append(r.Commitments, r.GetCommitments()[1]) })
	}), fault: "commitments out of order"},
	{name: "a tenant longer than any", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) { r.Tenant = strings.Repeat("x", 129) })
	}), fault: "tenant, decision id or bundle digest too long"},
	{name: "a body that is another kind's", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) { r.Body = []byte{0xff} })
	}), fault: "body"},
	{name: "an unknown field", change: onRecord(func(raw []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(raw, 99, protowire.VarintType), 1)
	}), fault: "not canonical"},
	{name: "a field twice", change: onRecord(func(raw []byte) []byte { return append(bytes.Clone(raw[:34]), raw...) }), fault: "not canonical"},
	{name: "a field at its default", change: onRecord(func(raw []byte) []byte {
		return append(protowire.AppendString(protowire.AppendTag(bytes.Clone(raw[:34]), 2, protowire.Fixed64Type), ""), raw[34:]...)
	}), fault: "not canonical"},
	{name: "a varint longer than it need be", change: onRecord(func(raw []byte) []byte {
		return bytes.Replace(raw, []byte{0x18, 0x01}, []byte{0x18, 0x81, 0x00}, 1)
	}), fault: "not canonical"},
	{name: "fields out of order", change: onRecord(func(raw []byte) []byte {
		return append(bytes.Clone(raw[34:43]), append(bytes.Clone(raw[:34]), raw[43:]...)...)
	}), fault: "not canonical"},
	{name: "a record cut short", change: onRecord(func(raw []byte) []byte { return raw[:len(raw)-1] }), fault: "not canonical"},
	{name: "two signed heads of one size", change: func(t *testing.T, dir string, f *forger) {
		t.Helper()
		other := forgerOf(t, dir, verifierOf(t, dir))
		other.edit(0, 0, func(r *writv1.Record) { r.TimeUnixNs++ })
		elsewhere := t.TempDir()
		other.write(elsewhere)
		b := read(t, segments(t, elsewhere)[0])
		second := frames(b)[4]
		onFrames(0, func(f [][]byte) [][]byte {
			return append(f[:5], append([][]byte{b[second.start:second.end]}, f[5:]...)...)
		})(t, dir, f)
	}, fault: "a head of size 2"},

	{name: "an epoch without a START", change: forging(func(f *forger) { f.remove(1, 0) }), note: "epoch 2 begins without a START", head: ledger.ErrRollback},
	{name: "two STARTs of an epoch", change: forging(func(f *forger) { f.insert(0, 1, f.epochs[0].records[0]) }), note: "record 1: a second START of epoch 1", head: ledger.ErrFork},
	{name: "an OUTCOME without a DECISION", change: forging(func(f *forger) { f.remove(0, 1) }), note: "record 1: an outcome without a decision", head: ledger.ErrRollback},
	{name: "an allowed DECISION without an OUTCOME", change: forging(func(f *forger) { f.remove(0, 2) }), note: "record 1: a call was allowed and has no outcome", head: ledger.ErrRollback},
	{name: "a DECISION twice", change: forging(func(f *forger) { f.insert(0, 2, f.epochs[0].records[1]) }), note: "record 2: a second decision", head: ledger.ErrFork},
	{name: "an OUTCOME twice", change: forging(func(f *forger) { f.insert(0, 3, f.epochs[0].records[2]) }), note: "record 3: a second outcome", head: ledger.ErrFork},
	{name: "a clock that went two days ahead", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) { r.TimeUnixNs += 48 * 3_600_000_000_000 })
	}), note: "record 3: the wall clock jumped by 48h0m0s", head: ledger.ErrFork},
	{name: "a clock that went back", change: forging(func(f *forger) {
		f.edit(0, 3, func(r *writv1.Record) { r.TimeUnixNs -= 3_600_000_000_000 })
	}), note: "record 3: the wall clock jumped by -1h0m0s", head: ledger.ErrFork},

	{name: "a fork: one record says something else", change: forging(func(f *forger) { f.edit(0, 3, func(r *writv1.Record) { r.TimeUnixNs++ }) }), head: ledger.ErrFork},
	{name: "a fork: a tenant is another", change: forging(func(f *forger) {
		for i := range f.epochs[0].records {
			f.edit(0, i, func(r *writv1.Record) { r.Tenant = strings.Replace(r.GetTenant(), "acme", "evil", 1) })
		}
	}), head: ledger.ErrFork},
	{name: "a call is left out, decision and outcome", change: forging(func(f *forger) { f.remove(0, 1); f.remove(0, 1) }), head: ledger.ErrRollback},
	{name: "a rollback that is signed anew", change: forging(func(f *forger) { f.epochs = f.epochs[:1] }), head: ledger.ErrRollback},
	{name: "a rollback that was written on", change: forging(func(f *forger) {
		f.epochs[1].records = f.epochs[1].records[:1]
		for _, raw := range f.epochs[0].records[1:] {
			f.epochs[1].records = append(f.epochs[1].records, raw)
			f.renumber()
			f.edit(1, len(f.epochs[1].records)-1, func(r *writv1.Record) { r.Epoch = 2; r.DecisionId = nil })
		}
	}), head: ledger.ErrFork},
}

// third adds an epoch like the second.
func third(f *forger) {
	f.epochs = append(f.epochs, forged{number: 3, records: append([][]byte(nil), f.epochs[1].records...)})
	for i := range f.epochs[2].records {
		f.edit(2, i, func(r *writv1.Record) { r.Epoch = 3 })
	}
	f.renumber()
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func verifierOf(t testing.TB, dir string) note.Verifier {
	t.Helper()
	return verifier(t, strings.TrimSpace(string(read(t, dir+"/log.vkey"))))
}

func TestEveryAttackOnADirectoryIsFoundFromTheFilesOrWithAHead(t *testing.T) {
	t.Parallel()
	for _, a := range append(append([]attack(nil), withoutKey...), withKey...) {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			dir, v := story(t)
			kept := keep(t, dir, v)
			a.change(t, dir, forgerOf(t, dir, v))
			report := verify(t, dir, v)
			switch {
			case a.fault != "" && (report.Fault == nil || !strings.Contains(report.Fault.What.Error(), a.fault) || report.Fault.Segment == ""):
				t.Fatalf("the files alone: fault %v, want %q", report.Fault, a.fault)
			case a.fault == "" && report.Fault != nil:
				t.Fatalf("the files alone show %v: it is in the wrong class", report.Fault)
			case a.note != "" && !strings.Contains(strings.Join(report.Notes, "\n"), a.note):
				t.Fatalf("notes %q, want %q", report.Notes, a.note)
			case a.note == "" && a.fault == "" && len(report.Notes) > 0:
				t.Fatalf("the files alone show %q: it is in the wrong class", report.Notes)
			}
			against, err := ledger.VerifyAgainst(dir, v, kept)
			switch {
			case err != nil:
				t.Fatal(err)
			case against.Fault == nil:
				t.Fatal("not found with a head that was kept")
			case a.head != nil && !errors.Is(against.Fault, a.head):
				t.Fatalf("with a head that was kept: %v, want %v", against.Fault, a.head)
			}
		})
	}
}

// keep is the head of a ledger that somebody else keeps.
func keep(t testing.TB, dir string, v note.Verifier) ledger.Head {
	t.Helper()
	report := verify(t, dir, v)
	if report.Fault != nil || len(report.Notes) > 0 || !report.Ended {
		t.Fatalf("the ledger by itself: %+v", report)
	}
	head, err := ledger.OpenSole(report.Head, v)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestAForgedLedgerOfTheSameRecordsVerifies(t *testing.T) {
	t.Parallel()
	dir, v := story(t)
	kept := keep(t, dir, v)
	f := forgerOf(t, dir, v)
	f.renumber()
	f.write(dir) // else the attacks would be found for how they were written
	report, err := ledger.VerifyAgainst(dir, v, kept)
	if err != nil || report.Fault != nil || len(report.Notes) > 0 || report.Size != kept.Size || !report.Ended {
		t.Errorf("report = %+v, %v", report, err)
	}
}

func TestALedgerIsHeldAgainstAHeadOfAnySizeItHad(t *testing.T) {
	t.Parallel()
	dir, v := story(t)
	kept := keep(t, dir, v)
	prover := survey(t, dir, v)
	for size := range kept.Size + 1 {
		older := prover(size)
		if report, err := ledger.VerifyAgainst(dir, v, older); err != nil || report.Fault != nil {
			t.Errorf("size %d: %+v, %v", size, report, err)
		}
		older.Root[31]++
		if report, err := ledger.VerifyAgainst(dir, v, older); err != nil || !errors.Is(report.Fault, ledger.ErrFork) {
			t.Errorf("size %d, another root: %+v, %v", size, report, err)
		}
	}
	if _, err := ledger.VerifyAgainst(dir, v, ledger.Head{Origin: "elsewhere"}); !errors.Is(err, ledger.ErrMismatch) {
		t.Errorf("a head of another ledger: %v", err)
	}
	remove(t, segments(t, dir)[0])
	if _, err := ledger.VerifyAgainst(dir, v, prover(3)); !errors.Is(err, ledger.ErrPruned) {
		t.Errorf("a head older than what is held: %v, want %v", err, ledger.ErrPruned)
	}
	if report, err := ledger.VerifyAgainst(dir, v, prover(6)); err != nil || report.Fault != nil {
		t.Errorf("a head of what was pruned exactly: %+v, %v", report, err)
	}
}

func TestADisclosureOfAnotherPathRecordOrSaltIsRefused(t *testing.T) {
	t.Parallel()
	dir, v := story(t)
	f := forgerOf(t, dir, v)
	key, err := hex.DecodeString(strings.TrimSpace(string(read(t, filepath.Join(dir, "commit.key")))))
	if err != nil {
		t.Fatal(err)
	}
	record := f.parse(f.epochs[0].records[1])
	for _, tc := range []struct {
		name        string
		index       uint64 // of the salt
		path, value string
		as          string // path that it is shown for
		good        bool
	}{
		{"the value itself", 1, "arguments.iban", "1", "arguments.iban", true},
		{"another value", 1, "arguments.iban", "3", "arguments.iban", false},
		{"the salt of another path", 1, "arguments.name", "1", "arguments.iban", false},
		{"shown for another path", 1, "arguments.iban", "1", "arguments.name", false},
		{"the salt of another record", 3, "arguments.iban", "1", "arguments.iban", false},
	} {
		salt, err := ledger.Salt(key, ledger.LogID(v.Name()), tc.index, tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyDisclosure(record, tc.as, []byte(tc.value), salt); (err == nil) != tc.good || !tc.good && !errors.Is(err, ledger.ErrDisclosure) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestEveryTruncationIsARollbackFromTheHeadThatWasKept(t *testing.T) {
	t.Parallel()
	dir, v := story(t)
	kept := keep(t, dir, v)
	names := segments(t, dir)
	last := names[len(names)-1]
	whole := read(t, last)
	fs := frames(whole)
	records := fs[len(fs)-3].end // what follows is the last head and the seal
	for cut := range whole {
		write(t, last, whole[:cut])
		report, err := ledger.VerifyAgainst(dir, v, kept)
		if err != nil {
			t.Fatal(err)
		}
		if cut < records && report.Fault == nil {
			t.Fatalf("cut at byte %d: no fault", cut)
		}
		if cut == records && (report.Fault != nil || !strings.Contains(strings.Join(report.Notes, "\n"), "under the one that was kept")) {
			t.Fatalf("cut at byte %d, where all records are: %v, %q", cut, report.Fault, report.Notes)
		}
	}
}
