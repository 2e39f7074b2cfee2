// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/ledger"
)

func record(i uint64) []byte { return fmt.Appendf(nil, "record %d", i) }

// heads are the heads of the trees of the first size records, and the compact ranges.
func heads(t testing.TB, of func(uint64) []byte, most uint64) (out []ledger.Head, before [][][32]byte) {
	t.Helper()
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for i := range most + 1 {
		root := rfc6962.DefaultHasher.EmptyRoot()
		if i > 0 {
			var err error
			if root, err = tree.GetRootHash(nil); err != nil {
				t.Fatal(err)
			}
		}
		var hashes [][32]byte
		for _, h := range tree.Hashes() {
			hashes = append(hashes, [32]byte(h))
		}
		out, before = append(out, ledger.Head{Origin: "o", Size: i, Root: [32]byte(root)}), append(before, hashes)
		if i == most {
			break
		}
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(of(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	return out, before
}

// survey returns the heads that a ledger had, by size.
func survey(t testing.TB, dir string, v note.Verifier) func(uint64) ledger.Head {
	t.Helper()
	var records [][]byte
	if err := ledger.NewDirReader(dir, v).Read(func(_ uint64, raw []byte) error { records = append(records, raw); return nil }); err != nil {
		t.Fatal(err)
	}
	all, _ := heads(t, func(i uint64) []byte { return records[i] }, uint64(len(records)))
	return func(size uint64) ledger.Head {
		head := all[size]
		head.Origin = v.Name()
		return head
	}
}

func TestEveryPathOfAProverVerifies(t *testing.T) {
	t.Parallel()
	const most = 1100
	all, before := heads(t, record, most)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, most).Draw(t, "size")
		first := rapid.Uint64Range(0, size-1).Draw(t, "first")
		older := rapid.Uint64Range(0, size).Draw(t, "older")
		every := rapid.Uint64Range(1, 40).Draw(t, "every")
		p, err := ledger.NewProver(first, before[first])
		if err != nil {
			t.Fatal(err)
		}
		p.Want(older)
		for i := first; i < size; i++ {
			if err := p.Survey(record(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Surveyed(all[size]); err != nil {
			t.Fatal(err)
		}
		next := (first + every - 1) / every * every
		for i := first; i < size; i++ {
			take := p.Skip
			if i%every == 0 {
				take = p.Keep
			}
			ready, err := take(record(i))
			if err != nil {
				t.Fatal(err)
			}
			for _, proven := range ready {
				if proven.Index != next || !bytes.Equal(proven.Record, record(next)) {
					t.Fatalf("record %d comes, want %d", proven.Index, next)
				}
				next += every
				inclusion := ledger.Inclusion{Index: proven.Index, Path: proven.Path}
				if err := inclusion.Verify(proven.Record, all[size]); err != nil {
					t.Fatalf("record %d of %d from %d: %v", proven.Index, size, first, err)
				}
			}
		}
		if next < size {
			t.Fatalf("record %d did not come", next)
		}
		path, err := p.Consistency(older)
		if errors.Is(err, ledger.ErrNoProof) && older < first {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyConsistency(all[older], all[size], path); err != nil {
			t.Fatalf("from %d to %d: %v", older, size, err)
		}
	})
}

func TestAProverGivesNothingOfRecordsThatAreNotThoseOfTheHead(t *testing.T) {
	t.Parallel()
	all, _ := heads(t, record, 600)
	surveyed := func(n uint64) *ledger.Prover {
		p, err := ledger.NewProver(0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := p.Survey(record(i)); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	if err := surveyed(599).Surveyed(all[600]); !errors.Is(err, ledger.ErrHead) {
		t.Errorf("a record short: %v", err)
	}
	other := all[600]
	other.Root[0]++
	if err := surveyed(600).Surveyed(other); !errors.Is(err, ledger.ErrHead) {
		t.Errorf("another root: %v", err)
	}
	if _, err := surveyed(3).Keep(record(0)); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a second pass before the end of the first: %v", err)
	}
	if _, err := ledger.NewProver(3, nil); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a compact range that is none: %v", err)
	}
	p := surveyed(600)
	if err := p.Surveyed(all[600]); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(256) {
		ready, err := p.Keep(record(i ^ 1)) // another order
		if len(ready) > 0 {
			t.Fatalf("%d records are given out", len(ready))
		}
		if err != nil {
			if !errors.Is(err, ledger.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("another order of the records is taken")
}

func inclusion(t testing.TB) (record []byte, p ledger.Inclusion, v note.Verifier) {
	t.Helper()
	dir, v := story(t)
	var records [][]byte
	in := ledger.NewDirReader(dir, v)
	if err := in.Read(func(_ uint64, raw []byte) error { records = append(records, raw); return nil }); err != nil {
		t.Fatal(err)
	}
	head, signed := in.Head()
	prover, err := ledger.NewProver(in.First(), in.Before())
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range records {
		if err := prover.Survey(raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := prover.Surveyed(head); err != nil {
		t.Fatal(err)
	}
	for i, raw := range records {
		take := prover.Skip
		if i == 3 {
			take = prover.Keep
		}
		ready, err := take(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, proven := range ready {
			return proven.Record, ledger.Inclusion{Index: proven.Index, Path: proven.Path, Head: signed}, v
		}
	}
	t.Fatal("no path")
	return nil, ledger.Inclusion{}, nil
}

// verifyInclusion is what a reader of a tlog-proof does.
func verifyInclusion(text, record []byte, v note.Verifier) error {
	p, err := ledger.ParseInclusion(text)
	if err != nil {
		return err
	}
	head, err := ledger.OpenSole(p.Head, v)
	if err != nil {
		return err
	}
	return p.Verify(record, head)
}

func TestAProofOfInclusionThatWasTamperedWithIsRefused(t *testing.T) {
	t.Parallel()
	raw, p, v := inclusion(t)
	good := p.AppendText(nil)
	if err := verifyInclusion(good, raw, v); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if err := verifyInclusion(bad, raw, v); err == nil {
				t.Fatalf("bit %d of byte %d changed, and taken:\n%s", bit, i, bad)
			}
		}
		if err := verifyInclusion(good[:i], raw, v); err == nil {
			t.Fatalf("cut at %d, and taken", i)
		}
	}
	for _, spelling := range [][2]string{{"index 3", "index 03"}, {"index 3\n", "index 3\n\r"}, {"=\n", "=\r\n"}, {"index", "extra YQ==\nindex"}} {
		bad := bytes.Replace(good, []byte(spelling[0]), []byte(spelling[1]), 1)
		if err := verifyInclusion(bad, raw, v); !errors.Is(err, ledger.ErrInclusion) {
			t.Errorf("a second spelling: %v\n%s", err, bad)
		}
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if err := verifyInclusion(good, bad, v); !errors.Is(err, ledger.ErrInclusion) {
			t.Fatalf("byte %d of the record changed: %v", i, err)
		}
	}
}

func TestANoteThatOthersSignedTooIsTakenForTheLedgersAlone(t *testing.T) {
	t.Parallel()
	_, p, v := inclusion(t)
	skey, vkey, err := note.GenerateKey(rand.Reader, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := note.Open(p.Head, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	both, err := note.Sign(opened, witness)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenSole(both, v); !errors.Is(err, ledger.ErrHead) {
		t.Errorf("a note with two signatures: %v, want %v", err, ledger.ErrHead)
	}
	sole, err := ledger.Sole(both, v)
	if err != nil || !bytes.Equal(sole, p.Head) {
		t.Errorf("%v, %q, want %q", err, sole, p.Head)
	}
	if _, err := ledger.Sole(both, verifier(t, vkey)); err != nil {
		t.Errorf("the witness's signature alone: %v", err)
	}
	if _, err := ledger.Sole([]byte("no note"), v); !errors.Is(err, ledger.ErrHead) {
		t.Errorf("what is no note: %v", err)
	}
}

func FuzzParseInclusion(f *testing.F) {
	_, p, _ := inclusion(f)
	f.Add(p.AppendText(nil))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra YQ==\nindex 0\n\no\n1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ledger.ParseInclusion(text)
		if err != nil {
			return
		}
		if !bytes.Equal(p.AppendText(nil), text) || len(p.Path) > 64 {
			t.Fatalf("%q has a second spelling", text)
		}
	})
}
