// SPDX-License-Identifier: Apache-2.0

package proofs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
)

// ErrUntold says that a head which was kept is not one that the bundle can be held
// against: it is newer than the bundle's, or the bundle has no path from it.
var ErrUntold = errors.New("the bundle does not show that it goes on from the head that was kept")

// Trust is what is believed before a bundle is read.
type Trust struct {
	// Keys of ledgers, by origin. With any, a ledger that has none here is a fault;
	// without, each is verified with the key that stands in the bundle, which shows that
	// it is whole and not whose it is.
	Keys map[string]note.Verifier
	// Heads that were kept elsewhere, by origin.
	Heads map[string]ledger.Head
	// Record, if not nil, is called with every record that was proven, in order. An
	// error of it is the fault of that record.
	Record func(origin string, record []byte) error
	// Manifest, if not nil, is called after the last. An error of it is the fault.
	Manifest func(Manifest) error
}

// Report is what Verify found.
type Report struct {
	Ledgers  []LedgerReport
	Records  uint64 // that were proven
	Manifest *Manifest
	// Fault is the first thing that is wrong, or nil. Everything before it was verified.
	Fault *Fault
}

// LedgerReport is what Verify found of one ledger.
type LedgerReport struct {
	Origin string
	// Trusted says that its key was one of Trust.
	Trusted bool
	// Size and Root are those of its signed head.
	Size uint64
	Root [32]byte
	Head []byte
	// Records were proven, from First to Last.
	Records, First, Last uint64
	// Kept says that it was held against a head of Trust.
	Kept bool
}

// Whole says whether every record that the head is over is in the bundle.
func (l LedgerReport) Whole() bool { return l.Records == l.Size }

// Fault is the first thing that is wrong with a bundle.
type Fault struct {
	Entry  string // of the archive: the one that was read, or the last before
	Origin string // of the ledger; none before the first
	Index  uint64 // of the record, or of the next where it is no record
	What   error
}

// Error says where and what.
func (f *Fault) Error() string { return fmt.Sprintf("%s: record %d: %v", f.Entry, f.Index, f.What) }

// Unwrap is what is wrong.
func (f *Fault) Unwrap() error { return f.What }

// Verify verifies a bundle, compressed or not, from its bytes and what is believed
// before: each record by its bytes, its place and its path, each head by its signature
// and the one that was kept, and that nothing else stands in it. The error says that the
// bundle could not be read, or (ErrUntold) not be held against a head; what is wrong with
// what was read stands in the report.
func Verify(r io.Reader, trust Trust) (*Report, error) {
	v := &verification{trust: trust, report: &Report{}, source: &source{Reader: r}}
	in, err := Decompress(v.source)
	if err == nil {
		v.in = newTarball(in)
		err = errors.Join(v.run(), in.Close())
	}
	switch {
	case v.source.err != nil:
		return nil, fmt.Errorf("read the bundle: %w", v.source.err)
	case errors.Is(err, ErrUntold):
		return nil, err
	case err != nil:
		v.report.Fault = &Fault{Entry: v.entry, Index: v.next, What: err}
		if v.ledger != nil {
			v.report.Fault.Origin = v.ledger.Origin
		}
	}
	return v.report, nil
}

// source keeps what goes wrong with the reading itself.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// verification is a run of Verify.
type verification struct {
	trust  Trust
	report *Report
	source *source
	in     *tarball
	entry  string
	next   uint64 // index

	ledger *LedgerReport
	logID  [32]byte
	head   ledger.Head
	bare   bool // nothing follows the checkpoint of the ledger yet
}

func (v *verification) run() error {
	for v.report.Manifest == nil {
		if err := v.advance(); err != nil {
			return err
		}
		var err error
		number, name, _ := strings.Cut(v.in.name, "/")
		switch {
		case v.in.name == manifestName:
			err = v.manifest()
		case v.in.name == ledgerName(len(v.report.Ledgers), "log.vkey"):
			err = v.begin()
		case v.ledger == nil || number != fmt.Sprintf("%06d", len(v.report.Ledgers)-1):
			err = errors.New("an entry that does not belong here")
		case name == "older" && v.bare:
			err = v.older()
		default:
			err = v.record(name)
		}
		if err != nil {
			return err
		}
	}
	if err := v.in.next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("an entry after the manifest")
		}
		return err
	}
	return nil
}

// advance goes to the next entry, which there MUST be.
func (v *verification) advance() error {
	err := v.in.next()
	if errors.Is(err, io.EOF) {
		return errCut
	}
	if err == nil {
		v.entry = v.in.name
	}
	return err
}

// expect reads the next entry, which MUST be that.
func (v *verification) expect(name string, most int) ([]byte, error) {
	if err := v.advance(); err != nil {
		return nil, err
	}
	if v.in.name != name {
		return nil, fmt.Errorf("it stands where %s is to stand", name)
	}
	return v.in.content(most)
}

// begin reads the key and the head of the next ledger.
func (v *verification) begin() error {
	if err := v.settled(); err != nil {
		return err
	}
	n := len(v.report.Ledgers)
	if n >= maxLedgers {
		return fmt.Errorf("more than %d ledgers", maxLedgers)
	}
	text, err := v.in.content(maxKey)
	if err != nil {
		return err
	}
	vkey, ended := strings.CutSuffix(string(text), "\n")
	if !ended {
		return errors.New("the ledger's key is not written in its one form")
	}
	key, err := keyOf(vkey)
	if err != nil {
		return err
	}
	if n > 0 && v.ledger.Origin >= key.Name() {
		return fmt.Errorf("the ledger %s is out of order", key.Name())
	}
	v.report.Ledgers = append(v.report.Ledgers, LedgerReport{Origin: key.Name()})
	v.ledger, v.next, v.bare, v.logID = &v.report.Ledgers[n], 0, true, ledger.LogID(key.Name())
	trusted, given := v.trust.Keys[key.Name()]
	switch {
	case given && trusted.KeyHash() != key.KeyHash():
		return errors.New("its key is not the one given")
	case len(v.trust.Keys) > 0 && !given:
		return fmt.Errorf("no key was given of the ledger %s", key.Name())
	case given:
		key = trusted
	}
	v.ledger.Trusted = given
	signed, err := v.expect(ledgerName(n, "checkpoint"), ledger.MaxNoteBytes)
	if err != nil {
		return err
	}
	v.head, err = ledger.OpenSole(signed, key)
	v.ledger.Size, v.ledger.Root, v.ledger.Head = v.head.Size, v.head.Root, signed
	return err
}

// older reads an older head and the path from it, and holds the ledger against the one
// that was kept.
func (v *verification) older() error {
	v.bare = false
	text, err := v.in.content(ledger.MaxNoteBytes)
	if err != nil {
		return err
	}
	head, err := ledger.ParseHead(string(text))
	if err != nil {
		return err
	}
	text, err = v.expect(ledgerName(len(v.report.Ledgers)-1, "consistency"), maxConsistency)
	if err != nil {
		return err
	}
	older, err := parseOlder(head, text, v.ledger.Head)
	if err != nil {
		return err
	}
	if err := ledger.VerifyConsistency(head, v.head, older.Path); err != nil {
		return err
	}
	kept, ok := v.trust.Heads[v.ledger.Origin]
	switch {
	case !ok || kept.Size != head.Size:
	case kept.Root != head.Root:
		return fmt.Errorf("%w: the head that was kept has another root at size %d", ledger.ErrFork, kept.Size)
	default:
		v.ledger.Kept = true
	}
	return nil
}

// settled says whether the ledger at hand was held against the head that was kept.
func (v *verification) settled() error {
	if v.ledger == nil {
		return nil
	}
	kept, ok := v.trust.Heads[v.ledger.Origin]
	switch {
	case !ok || v.ledger.Kept:
		return nil
	case kept.Size == v.head.Size && kept.Root != v.head.Root:
		return fmt.Errorf("%w: the head that was kept has another root at size %d", ledger.ErrFork, kept.Size)
	case kept.Size == v.head.Size:
		v.ledger.Kept = true
		return nil
	default:
		return fmt.Errorf("%w: that of %s is of size %d, the bundle's of %d", ErrUntold, kept.Origin, kept.Size, v.head.Size)
	}
}

// record reads a record and its proof.
func (v *verification) record(name string) error {
	v.bare = false
	digits, ok := strings.CutSuffix(name, ".record")
	index, err := strconv.ParseUint(digits, 10, 64)
	n := len(v.report.Ledgers) - 1
	if !ok || err != nil || recordName(n, index, "record") != v.in.name {
		return errors.New("an entry that does not belong here")
	}
	if index < v.next {
		return fmt.Errorf("record %d stands after record %d", index, v.next-1)
	}
	v.next = index
	raw, err := v.in.content(ledger.MaxRecordBytes)
	if err != nil {
		return err
	}
	if _, err := ledger.CheckRecord(raw, v.logID, index); err != nil {
		return err
	}
	text, err := v.expect(recordName(n, index, "tlog-proof"), ledger.MaxInclusionBytes)
	if err != nil {
		return err
	}
	proof, err := ledger.ParseInclusion(text)
	if err != nil {
		return err
	}
	if proof.Index != index || !bytes.Equal(proof.Head, v.ledger.Head) {
		return fmt.Errorf("%w: it is of another place, or under another head", ledger.ErrInclusion)
	}
	if err := proof.Verify(raw, v.head); err != nil {
		return err
	}
	return v.proven(index, raw)
}

// proven counts a record.
func (v *verification) proven(index uint64, raw []byte) error {
	if v.trust.Record != nil {
		if err := v.trust.Record(v.ledger.Origin, raw); err != nil {
			return err
		}
	}
	if v.ledger.Records == 0 {
		v.ledger.First = index
	}
	v.ledger.Last = index
	v.ledger.Records++
	v.report.Records++
	v.next = index + 1
	return nil
}

// manifest reads the manifest, and holds it against what was read.
func (v *verification) manifest() error {
	if err := v.settled(); err != nil {
		return err
	}
	text, err := v.in.content(maxManifest)
	if err != nil {
		return err
	}
	m, err := parseManifest(text)
	if err != nil {
		return err
	}
	if m.Version != version || m.Records != v.report.Records || len(m.Ledgers) != len(v.report.Ledgers) {
		return fmt.Errorf("the manifest of version %d says %d records of %d ledgers, here are %d of %d",
			m.Version, m.Records, len(m.Ledgers), v.report.Records, len(v.report.Ledgers))
	}
	for i, l := range m.Ledgers {
		if got := v.report.Ledgers[i]; l.Origin != got.Origin || l.Records != got.Records {
			return fmt.Errorf("the manifest says %d records of %s, here are %d of %s", l.Records, l.Origin, got.Records, got.Origin)
		}
	}
	v.report.Manifest = &m
	if v.trust.Manifest != nil {
		return v.trust.Manifest(m)
	}
	return nil
}

// parseManifest reads a manifest in its one form.
func parseManifest(text []byte) (Manifest, error) {
	var m Manifest
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&m); err != nil {
		return m, fmt.Errorf("no manifest: %w", err)
	}
	if again, err := m.bytes(); err != nil || !bytes.Equal(again, text) {
		return m, errors.New("the manifest is not as it is written")
	}
	return m, nil
}

// ReadManifest reads the manifest of a bundle and nothing else of it. Nothing that it
// says is verified.
func ReadManifest(r io.Reader) (Manifest, error) {
	in, err := Decompress(r)
	if err != nil {
		return Manifest{}, err
	}
	defer in.Close() //nolint:errcheck // read only
	t := newTarball(in)
	for {
		if err := t.next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = errCut
			}
			return Manifest{}, err
		}
		if t.name != manifestName {
			if err := t.skip(); err != nil {
				return Manifest{}, err
			}
			continue
		}
		text, err := t.content(maxManifest)
		if err != nil {
			return Manifest{}, err
		}
		return parseManifest(text)
	}
}
