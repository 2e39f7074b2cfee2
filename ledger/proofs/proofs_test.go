// SPDX-License-Identifier: Apache-2.0

package proofs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/proofs"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// source is a ledger to export from.
type source struct {
	signer  note.Signer
	key     note.Verifier
	vkey    string
	records [][]byte
	head    ledger.Head
	signed  []byte
}

// newSource makes a ledger of so many decisions with an origin.
func newSource(t testing.TB, origin string, n int) *source {
	t.Helper()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0)
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: origin, Clock: func() time.Time { now = now.Add(time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := l.Append(t.Context(), ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: append(make([]byte, 15), byte(i)),
			Body: &writv1.DecisionRecord{Tool: fmt.Sprintf("tool-%d", i)},
		}, writv1.Durability_DURABILITY_PROCESS); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	s := &source{vkey: l.VerifierKey()}
	if s.key, err = note.NewVerifier(s.vkey); err != nil {
		t.Fatal(err)
	}
	skey, err := os.ReadFile(filepath.Join(dir, "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	if s.signer, err = note.NewSigner(strings.TrimSpace(string(skey))); err != nil {
		t.Fatal(err)
	}
	in := ledger.NewDirReader(dir, s.key)
	if err := in.Read(func(_ uint64, raw []byte) error { s.records = append(s.records, raw); return nil }); err != nil {
		t.Fatal(err)
	}
	s.head, s.signed = in.Head()
	return s
}

// at is the prover of the ledger's first size records, of which wanted are to be proven,
// and the head over them.
func (s *source) at(t testing.TB, size uint64, older uint64) (*ledger.Prover, ledger.Head) {
	t.Helper()
	p, err := ledger.NewProver(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Want(older)
	for _, raw := range s.records[:size] {
		if err := p.Survey(raw); err != nil {
			t.Fatal(err)
		}
	}
	root, err := p.Root()
	if err != nil {
		t.Fatal(err)
	}
	head := ledger.Head{Origin: s.key.Name(), Size: size, Root: root}
	if err := p.Surveyed(head); err != nil {
		t.Fatal(err)
	}
	return p, head
}

// sign signs a head as the ledger would.
func (s *source) sign(t testing.TB, head ledger.Head) []byte {
	t.Helper()
	signed, err := ledger.SignHead(head, s.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// add exports every second record of a ledger, shown to go on from an older size.
func (s *source) add(t testing.TB, w *proofs.Writer, older uint64) {
	t.Helper()
	p, head := s.at(t, uint64(len(s.records)), older)
	var from *proofs.Older
	if older > 0 {
		_, was := s.at(t, older, 0)
		path, err := p.Consistency(older)
		if err != nil {
			t.Fatal(err)
		}
		from = &proofs.Older{Head: was, Path: path}
	}
	if err := w.Ledger(s.vkey, s.sign(t, head), from); err != nil {
		t.Fatal(err)
	}
	for i, raw := range s.records {
		take := p.Skip
		if i%2 == 0 {
			take = p.Keep
		}
		ready, err := take(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, proven := range ready {
			if err := w.Record(proven); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// example is a bundle of two ledgers, three records of the first and two of the second,
// of which the first is shown to go on from its third record.
func example(t testing.TB) (bundle []byte, one, two *source) {
	t.Helper()
	one, two = newSource(t, "example.org/agent/one", 5), newSource(t, "example.org/agent/two", 4)
	var out bytes.Buffer
	w := proofs.NewWriter(&out)
	one.add(t, w, 3)
	two.add(t, w, 0)
	if err := w.Close(proofs.Manifest{Program: "writ test", Time: "2026-01-31T09:00:00Z", Filter: []byte("{}"), Format: "ndjson", Data: "e.ndjson"}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), one, two
}

// trusted is what an auditor has.
func trusted(sources ...*source) proofs.Trust {
	keys := map[string]note.Verifier{}
	for _, s := range sources {
		keys[s.key.Name()] = s.key
	}
	return proofs.Trust{Keys: keys}
}

func verify(t testing.TB, bundle []byte, trust proofs.Trust) *proofs.Report {
	t.Helper()
	report, err := proofs.Verify(bytes.NewReader(bundle), trust)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestABundleThatNobodyChangedVerifies(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	trust := trusted(one, two)
	var got []string
	trust.Record = func(origin string, record []byte) error {
		got = append(got, fmt.Sprintf("%s %x", origin, record))
		return nil
	}
	for _, name := range []string{"b.tar", "b.tar.gz", "b.tgz", "b.tar.zst"} {
		got = nil
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
		report := verify(t, out.Bytes(), trust)
		if report.Fault != nil || report.Records != 5 || len(report.Ledgers) != 2 || report.Manifest.Records != 5 {
			t.Fatalf("%s: %+v, %v", name, report, report.Fault)
		}
		first := report.Ledgers[0]
		if first.Origin != one.key.Name() || !first.Trusted || first.Records != 3 || first.First != 0 || first.Last != 4 || first.Size != 5 || first.Root != one.head.Root || first.Whole() || first.Kept {
			t.Errorf("%s: %+v", name, first)
		}
		want := fmt.Sprintf("%s %x", one.key.Name(), one.records[2])
		if len(got) != 5 || got[1] != want {
			t.Errorf("%s: given out %q, want %q second", name, got, want)
		}
	}
	manifest, err := proofs.ReadManifest(bytes.NewReader(bundle))
	if err != nil || manifest.Format != "ndjson" || len(manifest.Ledgers) != 2 {
		t.Errorf("the manifest alone: %+v, %v", manifest, err)
	}
}

// Whoever has tar takes a bundle apart.
func TestABundleIsATarArchive(t *testing.T) {
	t.Parallel()
	bundle, one, _ := example(t)
	in := tar.NewReader(bytes.NewReader(bundle))
	var names []string
	for {
		entry, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, entry.Name)
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if entry.Name == "000000/00000000000000000002.record" && !bytes.Equal(content, one.records[2]) {
			t.Errorf("%s is not the record", entry.Name)
		}
	}
	want := "000000/log.vkey 000000/checkpoint 000000/older 000000/consistency " +
		"000000/00000000000000000000.record 000000/00000000000000000000.tlog-proof 000000/00000000000000000002.record 000000/00000000000000000002.tlog-proof " +
		"000000/00000000000000000004.record 000000/00000000000000000004.tlog-proof " +
		"000001/log.vkey 000001/checkpoint 000001/00000000000000000000.record 000001/00000000000000000000.tlog-proof " +
		"000001/00000000000000000002.record 000001/00000000000000000002.tlog-proof export.json"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("entries\n%s, want\n%s", got, want)
	}
}

func TestABundleIsHeldAgainstTheHeadsThatWereKept(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	_, third := one.at(t, 3, 0)
	_, fourth := one.at(t, 4, 0)
	newer := one.head
	newer.Size++
	forked := func(h ledger.Head) ledger.Head { h.Root[0]++; return h }
	for _, tc := range []struct {
		name  string
		head  ledger.Head
		fault error
		err   error
	}{
		{"the bundle's own head", one.head, nil, nil},
		{"the older head that it was made for", third, nil, nil},
		{"another history at the bundle's size", forked(one.head), ledger.ErrFork, nil},
		{"another history at the older size", forked(third), ledger.ErrFork, nil},
		{"an older head that it was not made for", fourth, nil, proofs.ErrUntold},
		{"a head newer than the bundle's", newer, nil, proofs.ErrUntold},
		{"the last ledger's head", two.head, nil, nil},
		{"another history of the last ledger", forked(two.head), ledger.ErrFork, nil},
	} {
		trust := trusted(one, two)
		trust.Heads = map[string]ledger.Head{tc.head.Origin: tc.head}
		report, err := proofs.Verify(bytes.NewReader(bundle), trust)
		if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
			continue
		}
		if err != nil {
			continue
		}
		switch {
		case tc.fault == nil && report.Fault != nil, tc.fault != nil && report.Fault == nil:
			t.Errorf("%s: fault %v, want %v", tc.name, report.Fault, tc.fault)
		case tc.fault != nil && !errors.Is(report.Fault, tc.fault):
			t.Errorf("%s: fault %v, want %v", tc.name, report.Fault, tc.fault)
		}
		for _, l := range report.Ledgers {
			if tc.fault == nil && l.Kept != (l.Origin == tc.head.Origin) {
				t.Errorf("%s: %s is kept: %v", tc.name, l.Origin, l.Kept)
			}
		}
	}
}

func TestKeysAreBelievedOverThoseInTheBundle(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	if report := verify(t, bundle, proofs.Trust{}); report.Fault != nil || report.Ledgers[0].Trusted {
		t.Errorf("without a key: %+v", report)
	}
	if report := verify(t, bundle, trusted(one)); report.Fault == nil || report.Fault.Origin != two.key.Name() || !strings.Contains(report.Fault.What.Error(), "no key was given") {
		t.Errorf("with one key of two: %v", report.Fault)
	}
	trust := trusted(two)
	trust.Keys[one.key.Name()] = two.key
	if report := verify(t, bundle, trust); report.Fault == nil || !strings.Contains(report.Fault.What.Error(), "not the one given") {
		t.Errorf("with another key: %v", report.Fault)
	}
}

func TestWhatACallbackSaysOfARecordIsItsFault(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	trust := trusted(one, two)
	odd := errors.New("odd")
	n := 0
	trust.Record = func(string, []byte) error {
		if n++; n == 2 {
			return odd
		}
		return nil
	}
	if f := verify(t, bundle, trust).Fault; f == nil || f.Index != 2 || f.Origin != one.key.Name() || !errors.Is(f, odd) {
		t.Errorf("fault %v", f)
	}
	trust = trusted(one, two)
	trust.Manifest = func(proofs.Manifest) error { return odd }
	if f := verify(t, bundle, trust).Fault; f == nil || !errors.Is(f, odd) {
		t.Errorf("fault %v", f)
	}
}

// failing is a reader that fails after so many bytes.
type failing struct {
	in   io.Reader
	left int
}

func (f *failing) Read(b []byte) (int, error) {
	if f.left <= 0 {
		return 0, os.ErrPermission
	}
	n, err := f.in.Read(b[:min(len(b), f.left)])
	f.left -= n
	return n, err
}

func TestAReaderThatFailsIsNoFaultOfTheBundle(t *testing.T) {
	t.Parallel()
	bundle, one, two := example(t)
	if _, err := proofs.Verify(&failing{bytes.NewReader(bundle), len(bundle) / 2}, trusted(one, two)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v, want %v", err, os.ErrPermission)
	}
}

func TestAWriterTakesOnlyWhatVerifies(t *testing.T) {
	t.Parallel()
	one, two := newSource(t, "example.org/agent/one", 3), newSource(t, "example.org/agent/two", 3)
	w := proofs.NewWriter(io.Discard)
	if err := w.Record(ledger.Proven{}); err == nil {
		t.Error("a record before its ledger is taken")
	}
	if err := w.Ledger(two.vkey, one.signed, nil); !errors.Is(err, ledger.ErrHead) {
		t.Errorf("a head of another ledger: %v", err)
	}
	_, was := two.at(t, 2, 0)
	was.Root[0]++
	if err := w.Ledger(two.vkey, two.signed, &proofs.Older{Head: was}); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("an older head of another history: %v", err)
	}
	w = proofs.NewWriter(io.Discard)
	if err := w.Ledger(two.vkey, two.signed, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Ledger(one.vkey, one.signed, nil); err == nil {
		t.Error("ledgers out of order are taken")
	}
	if err := w.Record(ledger.Proven{Index: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Record(ledger.Proven{Index: 2}); err == nil {
		t.Error("a record twice is taken")
	}
}
