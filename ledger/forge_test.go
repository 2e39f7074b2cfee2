// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// forger is whoever has the key of a ledger, and writes one without this package: what
// the holder of the key can do, the suite of attacks does.
type forger struct {
	t      testing.TB
	signer note.Signer
	origin string
	epochs []forged
}

// forged is an epoch, which has a segment of its own.
type forged struct {
	number  uint64
	records [][]byte
}

// story is a ledger of two epochs as an agent writes them: its directory and its key.
func story(t testing.TB) (dir string, v note.Verifier) {
	t.Helper()
	o := options(t.TempDir())
	now := time.Unix(1_700_000_000, 0)
	o.Clock = func() time.Time {
		now = now.Add(time.Second)
		return now
	}
	for epoch := range 2 {
		l, _, err := ledger.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		v = verifier(t, l.VerifierKey())
		of := func(kind writv1.RecordKind, n int) ledger.Entry {
			e := decision(10*epoch + n)
			e.Kind = kind
			switch kind {
			case writv1.RecordKind_RECORD_KIND_START:
				e = ledger.Entry{Kind: kind, Body: &writv1.StartRecord{Version: "1", Origin: l.Origin()}}
			case writv1.RecordKind_RECORD_KIND_OUTCOME:
				e.Body = &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}
			default:
				e.Body = &writv1.DecisionRecord{Tool: "t", Decision: &writv1.Decision{Verdict: writv1.Verdict_VERDICT_ALLOW}}
				e.Sensitive = []ledger.Sensitive{{Path: "arguments.iban", Value: []byte("1")}, {Path: "arguments.name", Value: []byte("2")}}
			}
			return e
		}
		for _, e := range []ledger.Entry{
			of(writv1.RecordKind_RECORD_KIND_START, 0),
			of(writv1.RecordKind_RECORD_KIND_DECISION, 1), of(writv1.RecordKind_RECORD_KIND_OUTCOME, 1),
			of(writv1.RecordKind_RECORD_KIND_DECISION, 2), of(writv1.RecordKind_RECORD_KIND_OUTCOME, 2),
		} {
			if _, err := l.Append(t.Context(), e, process); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(&writv1.EndRecord{}); err != nil {
			t.Fatal(err)
		}
	}
	return o.Dir, v
}

// forgerOf takes the key and the records out of a ledger.
func forgerOf(t testing.TB, dir string, v note.Verifier) *forger {
	t.Helper()
	signer, err := note.NewSigner(strings.TrimSpace(string(read(t, filepath.Join(dir, "log.key")))))
	if err != nil {
		t.Fatal(err)
	}
	f := &forger{t: t, signer: signer, origin: v.Name()}
	err = ledger.NewDirReader(dir, v).Read(func(_ uint64, raw []byte) error {
		epoch := f.parse(raw).GetEpoch()
		if n := len(f.epochs); n == 0 || f.epochs[n-1].number != epoch {
			f.epochs = append(f.epochs, forged{number: epoch})
		}
		last := &f.epochs[len(f.epochs)-1]
		last.records = append(last.records, raw)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *forger) parse(raw []byte) *writv1.Record {
	f.t.Helper()
	r := &writv1.Record{}
	if err := canonical.Unmarshal(raw, r); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// edit changes a record as a message.
func (f *forger) edit(epoch, slot int, change func(*writv1.Record)) {
	f.t.Helper()
	r := f.parse(f.epochs[epoch].records[slot])
	change(r)
	raw, err := canonical.Marshal(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.epochs[epoch].records[slot] = raw
}

// remove takes a record out, and gives the ones after it their new places.
func (f *forger) remove(epoch, slot int) {
	f.t.Helper()
	records := &f.epochs[epoch].records
	*records = append((*records)[:slot:slot], (*records)[slot+1:]...)
	f.renumber()
}

// insert puts a copy of a record before another.
func (f *forger) insert(epoch, slot int, raw []byte) {
	f.t.Helper()
	records := &f.epochs[epoch].records
	*records = append((*records)[:slot:slot], append([][]byte{raw}, (*records)[slot:]...)...)
	f.renumber()
}

func (f *forger) renumber() {
	f.t.Helper()
	index := uint64(0)
	for e := range f.epochs {
		for i := range f.epochs[e].records {
			f.edit(e, i, func(r *writv1.Record) { r.Index = index })
			index++
		}
	}
}

// write signs the records anew and writes them, a head under each, over what is there.
func (f *forger) write(dir string) {
	f.t.Helper()
	for _, name := range segments(f.t, dir) {
		if err := os.Remove(name); err != nil {
			f.t.Fatal(err)
		}
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for _, e := range f.epochs {
		first := tree.End()
		out := frameOf(0, headerOf(e.number, first, f.origin, tree.Hashes()))
		for _, raw := range e.records {
			if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(raw), nil); err != nil {
				f.t.Fatal(err)
			}
			out = append(append(out, frameOf(1, raw)...), frameOf(2, f.head(tree))...)
		}
		size, root := f.state(tree)
		out = append(out, frameOf(3, append(binary.LittleEndian.AppendUint64(nil, size), root...))...)
		write(f.t, filepath.Join(dir, fmt.Sprintf("%08d-%020d.dlog", e.number, first)), out)
	}
}

func (f *forger) state(tree *compact.Range) (uint64, []byte) {
	f.t.Helper()
	root, err := tree.GetRootHash(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return tree.End(), root
}

func (f *forger) head(tree *compact.Range) []byte {
	f.t.Helper()
	size, root := f.state(tree)
	head := ledger.Head{Origin: f.origin, Size: size, Root: [32]byte(root)}
	sig, err := f.signer.Sign(head.AppendText(nil))
	if err != nil {
		f.t.Fatal(err)
	}
	out := append(binary.LittleEndian.AppendUint64(nil, size), root...)
	return append(binary.BigEndian.AppendUint32(out, f.signer.KeyHash()), sig...)
}

func frameOf(kind byte, payload []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	out = append(append(out, 0, 0, 0, 0, kind), payload...)
	repair(out)
	return out
}

func headerOf(epoch, first uint64, origin string, hashes [][]byte) []byte {
	out := binary.LittleEndian.AppendUint32([]byte("WRITDLOG"), 1)
	out = binary.LittleEndian.AppendUint64(out, epoch)
	out = binary.LittleEndian.AppendUint64(out, first)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(origin)))
	out = append(append(out, origin...), byte(len(hashes)))
	return append(out, bytes.Join(hashes, nil)...)
}
