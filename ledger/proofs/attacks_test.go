// SPDX-License-Identifier: Apache-2.0

package proofs_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/proofs"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// entry is an entry of a bundle that is made by hand.
type entry struct {
	name    string
	content []byte
	header  func(*tar.Header)
}

// entriesOf takes a bundle apart.
func entriesOf(t testing.TB, bundle []byte) (out []entry) {
	t.Helper()
	in := tar.NewReader(bytes.NewReader(bundle))
	for {
		h, err := in.Next()
		if err == io.EOF { //nolint:errorlint // of archive/tar
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{name: h.Name, content: content})
	}
}

// archive puts entries together as any program may.
func archive(t testing.TB, entries []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.content)), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if e.header != nil {
			e.header(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(e.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Places of the entries of the example.
const (
	vkeyEntry = iota
	checkpointEntry
	olderEntry
	consistencyEntry
	record0, proof0 = iota, iota + 1
	record2, proof2 = iota + 1, iota + 2
	record4, proof4 = iota + 2, iota + 3
	second          = iota + 3 // the second ledger's key
)

// attack is one way to change the example; the bundle alone shows it, at a record of a
// ledger.
type attack struct {
	name   string
	change func(t *testing.T, e []entry, one, two *source) []entry
	index  uint64
	of     int // the ledger: 0, 1, or none before the first
	what   string
}

// swapRecord puts another record in the place of the second, with the proof that it had.
func swapRecord(change func(raw []byte) []byte) func(*testing.T, []entry, *source, *source) []entry {
	return func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2].content = change(bytes.Clone(e[record2].content))
		return e
	}
}

// replace replaces a part of one entry.
func replace(place int, old, by string) func(*testing.T, []entry, *source, *source) []entry {
	return func(t *testing.T, e []entry, _, _ *source) []entry {
		t.Helper()
		if !bytes.Contains(e[place].content, []byte(old)) {
			t.Fatalf("%s has no %q:\n%s", e[place].name, old, e[place].content)
		}
		e[place].content = bytes.Replace(e[place].content, []byte(old), []byte(by), 1)
		return e
	}
}

var attacks = []attack{
	{"a record says another tenant", swapRecord(func(raw []byte) []byte { return bytes.Replace(raw, []byte("acme"), []byte("evil"), 1) }), 2, 0, "not a proof of inclusion"},
	{"a record is another of the ledger", func(_ *testing.T, e []entry, one, _ *source) []entry {
		e[record2].content = one.records[3]
		return e
	}, 2, 0, "its index is 3, want 2"},
	{"a record is another ledger's", func(_ *testing.T, e []entry, _, two *source) []entry {
		e[record2].content = two.records[2]
		return e
	}, 2, 0, "it belongs to another ledger"},
	{"a record has an unknown field", swapRecord(func(raw []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(raw, 99, protowire.VarintType), 1)
	}), 2, 0, "not canonical"},
	{"a record has a field twice", swapRecord(func(raw []byte) []byte { return append(bytes.Clone(raw[:34]), raw...) }), 2, 0, "not canonical"},
	{"a record has a long varint", swapRecord(func(raw []byte) []byte { return bytes.Replace(raw, []byte{0x18, 0x01}, []byte{0x18, 0x81, 0x00}, 1) }), 2, 0, "not canonical"},
	{"a record is empty", swapRecord(func([]byte) []byte { return nil }), 2, 0, "not a valid record"},
	{"a record has 65,536 bytes", swapRecord(func([]byte) []byte { return make([]byte, 65_536) }), 2, 0, "65536 bytes, at most 65535"},
	{"a record and its proof are deleted", func(_ *testing.T, e []entry, _, _ *source) []entry { return append(e[:record2], e[record4:]...) }, 3, 1, "the manifest of version 1 says 5 records of 2 ledgers, here are 4"},
	{"a record is deleted without its proof", func(_ *testing.T, e []entry, _, _ *source) []entry { return append(e[:record2], e[proof2:]...) }, 1, 0, "does not belong here"},
	{"a proof is deleted", func(_ *testing.T, e []entry, _, _ *source) []entry { return append(e[:proof2], e[record4:]...) }, 2, 0, "where 000000/00000000000000000002.tlog-proof is to stand"},
	{"two records are swapped", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2], e[proof2], e[record4], e[proof4] = e[record4], e[proof4], e[record2], e[proof2]
		return e
	}, 5, 0, "record 2 stands after record 4"},
	{"a record is there twice", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e[:record4:record4], append([]entry{e[record2], e[proof2]}, e[record4:]...)...)
	}, 3, 0, "record 2 stands after record 2"},
	{"two proofs are swapped", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[proof2].content, e[proof4].content = e[proof4].content, e[proof2].content
		return e
	}, 2, 0, "of another place"},
	{"a proof says another index", replace(proof2, "index 2", "index 3"), 2, 0, "of another place"},
	{"a proof has extra data", replace(proof2, "index 2", "extra YQ==\nindex 2"), 2, 0, "not a proof of inclusion"},
	{"a proof has a second spelling", replace(proof2, "index 2", "index 02"), 2, 0, "a second spelling"},
	{"a proof lacks a hash", func(_ *testing.T, e []entry, _, _ *source) []entry {
		lines := strings.SplitAfter(string(e[proof2].content), "\n")
		e[proof2].content = []byte(strings.Join(append(lines[:2:2], lines[3:]...), ""))
		return e
	}, 2, 0, "not a proof of inclusion"},
	{"a proof has a hash more", replace(proof2, "index 2\n", "index 2\n"+hashLine(1)), 2, 0, "not a proof of inclusion"},
	{"a proof has 65 hashes", replace(proof2, "index 2\n", "index 2\n"+strings.Repeat(hashLine(1), 65)), 2, 0, "not a proof of inclusion"},
	{"a proof is under another head", func(t *testing.T, e []entry, one, _ *source) []entry {
		t.Helper()
		p, head := one.at(t, 4, 0)
		for i := range 4 {
			take := p.Skip
			if i == 2 {
				take = p.Keep
			}
			ready, err := take(one.records[i])
			if err != nil {
				t.Fatal(err)
			}
			for _, proven := range ready {
				e[proof2].content = ledger.Inclusion{Index: 2, Path: proven.Path, Head: one.sign(t, head)}.AppendText(nil)
			}
		}
		return e
	}, 2, 0, "under another head"},
	{"a head is that of another key", func(t *testing.T, e []entry, one, _ *source) []entry {
		t.Helper()
		other := *one
		skey, _, err := note.GenerateKey(rand.Reader, one.key.Name())
		if err != nil {
			t.Fatal(err)
		}
		if other.signer, err = note.NewSigner(skey); err != nil {
			t.Fatal(err)
		}
		e[checkpointEntry].content = other.sign(t, one.head)
		return e
	}, 0, 0, "not a signed head"},
	{"a key is another that signed everything", func(t *testing.T, e []entry, one, _ *source) []entry {
		t.Helper()
		skey, vkey, err := note.GenerateKey(rand.Reader, one.key.Name())
		if err != nil {
			t.Fatal(err)
		}
		other := *one
		if other.signer, err = note.NewSigner(skey); err != nil {
			t.Fatal(err)
		}
		e[vkeyEntry].content, e[checkpointEntry].content = []byte(vkey+"\n"), other.sign(t, one.head)
		return e
	}, 0, 0, "its key is not the one given"},
	{"a head is another ledger's", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[checkpointEntry].content = e[second+1].content
		return e
	}, 0, 0, "not a signed head"},
	{"a head has a second signature", func(_ *testing.T, e []entry, _, two *source) []entry {
		e[checkpointEntry].content = append(e[checkpointEntry].content, "— "+two.key.Name()+" AAAAAAAA\n"...)
		return e
	}, 0, 0, "not a signed head|other signatures"},
	{"a head is there twice", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e[:olderEntry:olderEntry], append([]entry{e[checkpointEntry]}, e[olderEntry:]...)...)
	}, 0, 0, "does not belong here"},
	{"two signed heads of one size", func(t *testing.T, e []entry, one, _ *source) []entry {
		t.Helper()
		forked := one.head
		forked.Root[0]++
		e[proof2].content = bytes.Replace(e[proof2].content, e[checkpointEntry].content, one.sign(t, forked), 1)
		return e
	}, 2, 0, "under another head"},
	{"a head is deleted", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e[:checkpointEntry], e[olderEntry:]...)
	}, 0, 0, "where 000000/checkpoint is to stand"},
	{"an older head is another", replace(olderEntry, "\n3\n", "\n2\n"), 0, 0, "no request of C2SP tlog-witness"},
	{"a path from an older head lacks a hash", func(_ *testing.T, e []entry, _, _ *source) []entry {
		lines := strings.SplitAfter(string(e[consistencyEntry].content), "\n")
		e[consistencyEntry].content = []byte(strings.Join(append(lines[:1:1], lines[2:]...), ""))
		return e
	}, 0, 0, "root is not the ledger's own"},
	{"a path from an older head is deleted", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e[:consistencyEntry], e[record0:]...)
	}, 0, 0, "where 000000/consistency is to stand"},
	{"two ledgers are swapped", func(_ *testing.T, e []entry, _, _ *source) []entry {
		end := len(e) - 1
		var out []entry
		for _, x := range e[second:end] {
			x.name = strings.Replace(x.name, "000001/", "000000/", 1)
			out = append(out, x)
		}
		for _, x := range e[:second] {
			x.name = strings.Replace(x.name, "000000/", "000001/", 1)
			out = append(out, x)
		}
		return append(out, e[end])
	}, 3, 1, "is out of order"},
	{"a ledger is deleted", func(_ *testing.T, e []entry, _, _ *source) []entry { return append(e[:second], e[len(e)-1]) }, 5, 0, "says 5 records of 2 ledgers, here are 3 of 1"},
	{"a ledger's records stand under the other", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2].name = strings.Replace(e[record2].name, "000000/", "000001/", 1)
		return e
	}, 1, 0, "does not belong here"},
	{"the manifest is deleted", func(_ *testing.T, e []entry, _, _ *source) []entry { return e[:len(e)-1] }, 3, 1, "cut short"},
	{"the manifest says another number", func(_ *testing.T, e []entry, _, _ *source) []entry {
		m := &e[len(e)-1]
		m.content = bytes.Replace(m.content, []byte(`"records": 5`), []byte(`"records": 6`), 1)
		return e
	}, 3, 1, "says 6 records"},
	{"the manifest says another origin", func(_ *testing.T, e []entry, _, _ *source) []entry {
		m := &e[len(e)-1]
		m.content = bytes.Replace(m.content, []byte("agent/one"), []byte("agent/onf"), 1)
		return e
	}, 3, 1, "the manifest says 3 records of example.org/agent/onf"},
	{"the manifest has a field more", func(_ *testing.T, e []entry, _, _ *source) []entry {
		m := &e[len(e)-1]
		m.content = bytes.Replace(m.content, []byte("{"), []byte(`{"x": 1,`), 1)
		return e
	}, 3, 1, "no manifest"},
	{"the manifest has a key twice", func(_ *testing.T, e []entry, _, _ *source) []entry {
		m := &e[len(e)-1]
		m.content = bytes.Replace(m.content, []byte("{"), []byte(`{"version": 2,`), 1)
		return e
	}, 3, 1, "not as it is written"},
	{"the manifest is of another version", func(_ *testing.T, e []entry, _, _ *source) []entry {
		m := &e[len(e)-1]
		m.content = bytes.Replace(m.content, []byte(`"version": 1`), []byte(`"version": 2`), 1)
		return e
	}, 3, 1, "the manifest of version 2"},
	{"an entry after the manifest", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e, entry{name: "x", content: []byte("y")})
	}, 3, 1, "an entry after the manifest"},
	{"an entry out of the bundle", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append([]entry{{name: "../../etc/passwd", content: []byte("x")}}, e...)
	}, 0, -1, "does not belong here"},
	{"an entry between two records", func(_ *testing.T, e []entry, _, _ *source) []entry {
		return append(e[:record2:record2], append([]entry{{name: "000000/../x.record", content: []byte("x")}}, e[record2:]...)...)
	}, 1, 0, "does not belong here"},
	{"a link", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2].header = func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 }
		return e
	}, 1, 0, "not as it is written"},
	{"a header of another day", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2].header = func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }
		return e
	}, 1, 0, "not as it is written"},
	{"a name in two spellings", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[record2].name = "000000/2.record"
		return e
	}, 1, 0, "does not belong here"},
	{"a ledger of another number", func(_ *testing.T, e []entry, _, _ *source) []entry {
		e[second].name = "000002/log.vkey"
		return e
	}, 5, 0, "does not belong here"},
}

func hashLine(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n"
}

func TestEveryAttackOnABundleIsFoundFromItAlone(t *testing.T) {
	t.Parallel()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			bundle, one, two := example(t)
			bad := archive(t, a.change(t, entriesOf(t, bundle), one, two))
			if bytes.Equal(bad, bundle) {
				t.Fatal("the attack changes nothing")
			}
			f := verify(t, bad, trusted(one, two)).Fault
			origin := ""
			if a.of >= 0 {
				origin = []string{one.key.Name(), two.key.Name()}[a.of]
			}
			if a.name == "two ledgers are swapped" {
				origin = two.key.Name()
			}
			if f == nil || f.Index != a.index || f.Origin != origin || !oneOf(f.What.Error(), a.what) {
				t.Errorf("fault %+v\nwant %q at record %d of %q", f, a.what, a.index, origin)
			}
		})
	}
}

func oneOf(text, wanted string) bool {
	for want := range strings.SplitSeq(wanted, "|") {
		if strings.Contains(text, want) {
			return true
		}
	}
	return false
}

// What the holder of the key can write anew, and what was left out of a selection, no
// bundle shows.
func TestWhatTakesAHeadIsFoundWithOne(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	kept := one.head

	forked := *one
	forked.records = append([][]byte(nil), one.records...)
	forked.records[1] = reworded(t, one.records[1])
	short := *one
	short.records = one.records[:4]
	for name, s := range map[string]*source{"a fork by the key's holder": &forked, "a rollback that is signed anew": &short} {
		var out bytes.Buffer
		w := proofs.NewWriter(&out)
		s.add(t, w, 0)
		two.add(t, w, 0)
		if err := w.Close(proofs.Manifest{Filter: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if report := verify(t, out.Bytes(), trusted(one, two)); report.Fault != nil {
			t.Errorf("%s: the bundle alone shows %v: it is in the wrong class", name, report.Fault)
		}
		trust := trusted(one, two)
		trust.Heads = map[string]ledger.Head{kept.Origin: kept}
		report, err := proofs.Verify(bytes.NewReader(out.Bytes()), trust)
		if err == nil && report.Fault == nil {
			t.Errorf("%s: not found with a head that was kept", name)
		}
	}

	// A record that is left out, with a manifest that fits.
	e := entriesOf(t, bundle)
	e = append(e[:record2], e[record4:]...)
	m := &e[len(e)-1]
	m.content = bytes.Replace(bytes.Replace(m.content, []byte(`"records": 5`), []byte(`"records": 4`), 1), []byte(`"records": 3`), []byte(`"records": 2`), 1)
	report := verify(t, archive(t, e), trusted(one, two))
	if report.Fault != nil || report.Ledgers[0].Whole() {
		t.Errorf("a record less: %+v", report)
	}
}

// reworded is a record that says something else, in its place.
func reworded(t *testing.T, raw []byte) []byte {
	t.Helper()
	record := &writv1.Record{}
	if err := canonical.Unmarshal(raw, record); err != nil {
		t.Fatal(err)
	}
	record.TimeUnixNs++
	out, err := canonical.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryChangedBitAndEveryTruncationOfABundleIsFound(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	trust := trusted(one, two)
	// The words of the manifest that nobody vouches for.
	free := map[int]bool{}
	for _, word := range []string{`"writ test"`, `"2026-01-31T09:00:00Z"`, `"ndjson"`, `"e.ndjson"`} {
		at := bytes.LastIndex(bundle, []byte(word))
		for i := range word {
			free[at+i] = true
		}
	}
	for i := range bundle {
		bad := bytes.Clone(bundle)
		bad[i] ^= 1 << (i % 8)
		if report, err := proofs.Verify(bytes.NewReader(bad), trust); err == nil && report.Fault == nil && !free[i] {
			t.Fatalf("a changed bit in byte %d is not found: %q", i, bundle[max(0, i-40):min(len(bundle), i+40)])
		}
		if i%7 != 0 { // a prime, so that every place of a block is met
			continue
		}
		if report, err := proofs.Verify(bytes.NewReader(bundle[:i]), trust); err == nil && report.Fault == nil {
			t.Fatalf("cut at byte %d, and not found", i)
		}
	}
	for _, more := range [][]byte{{0}, {1}, make([]byte, 512), bundle} {
		if report, err := proofs.Verify(bytes.NewReader(append(bytes.Clone(bundle), more...)), trust); err == nil && report.Fault == nil {
			t.Errorf("with %d bytes more, and not found", len(more))
		}
	}
}

func TestEveryBitOfARecordAndItsProofIsTracedToIt(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	entries := entriesOf(t, bundle)
	for _, place := range []int{record2, proof2} {
		for i := range entries[place].content {
			for bit := range 8 {
				e := append([]entry(nil), entries...)
				e[place].content = bytes.Clone(e[place].content)
				e[place].content[i] ^= 1 << bit
				f := verify(t, archive(t, e), trusted(one, two)).Fault
				if f == nil || f.Index != 2 || f.Origin != one.key.Name() {
					t.Fatalf("bit %d of byte %d of %s: fault %v, want one of record 2", bit, i, e[place].name, f)
				}
			}
		}
	}
}

func TestACompressedBundleThatIsDamagedIsFound(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	for _, name := range []string{"b.gz", "b.zst"} {
		var out bytes.Buffer
		w, err := proofs.Compress(name, &out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bundle); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		whole := out.Bytes()
		for cut := 0; cut < len(whole); cut += 11 {
			if report, err := proofs.Verify(bytes.NewReader(whole[:cut]), trusted(one, two)); err == nil && report.Fault == nil {
				t.Fatalf("%s cut at byte %d, and not found", name, cut)
			}
		}
	}
}

func FuzzVerify(f *testing.F) {
	bundle, one, two := example(f)
	f.Add(bundle)
	for _, cut := range []int{0, 100, 512, 1024, len(bundle) / 2, len(bundle) - 1024} {
		f.Add(bundle[:cut])
	}
	var out bytes.Buffer
	w, err := proofs.Compress("b.zst", &out)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write(bundle); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	known := map[string]bool{}
	for _, s := range []*source{one, two} {
		for _, raw := range s.records {
			known[string(rfc6962.DefaultHasher.HashLeaf(raw))] = true
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		trust := trusted(one, two)
		trust.Record = func(_ string, raw []byte) error {
			if !known[string(rfc6962.DefaultHasher.HashLeaf(raw))] {
				panic(fmt.Sprintf("a record that nobody signed is proven: %x", raw))
			}
			return nil
		}
		if _, err := proofs.Verify(bytes.NewReader(b), trust); err != nil {
			t.Fatal(err)
		}
		_, _ = proofs.ReadManifest(bytes.NewReader(b))
	})
}
