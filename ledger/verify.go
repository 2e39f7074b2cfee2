// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Report is what Verify found.
type Report struct {
	Origin   string
	Segments int
	First    uint64 // index of the first record; above 0 where older ones were pruned
	Size     uint64 // index after the last record that a signed head covers
	Records  uint64 // verified, and covered by a signed head
	Heads    uint64
	Epochs   uint64
	Root     [32]byte // of the tree of Size
	// Ended says that the last record is an END: without one the ledger is in use, was
	// killed, or lost its tail, which only an acknowledged head can tell apart.
	Ended bool
	// Fault is the first thing that is wrong, or nil.
	Fault *Fault
	// Notes are what is odd and no fault.
	Notes []string
}

// Fault is the first thing that is wrong with a ledger. Everything before it was
// verified.
type Fault struct {
	Segment string // file
	Offset  int64  // of the frame in it
	Index   uint64 // of the record, or of the next where it is no record
	What    error
}

// Error says where and what.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s: byte %d: record %d: %v", f.Segment, f.Offset, f.Index, f.What)
}

// Unwrap is what is wrong.
func (f *Fault) Unwrap() error { return f.What }

// Verify verifies the segments of a directory, offline and without changing them: CRCs
// and structure, the canonical form, index and ledger of every record and its body,
// the order of epochs, the tree, and the root and signature of every head. Notes tell
// of outcomes without a decision, and decisions taken twice. The error says that
// nothing could be read; what is wrong with what was read stands in the report.
//
// A verified ledger is one that the key's holder wrote. That nothing was cut off its
// end, and that there is no other version of it, only a head that somebody else kept
// can show: compare Size and Root with one.
func Verify(dir string, v note.Verifier) (*Report, error) {
	segments, left, err := listSegments(OS{}, dir)
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		return nil, fmt.Errorf("verify %s: no segments: %w", dir, fs.ErrNotExist)
	}
	r := newVerification(v)
	for _, name := range left {
		r.Notes = append(r.Notes, name+" is left over from a rewrite")
	}
	for i, s := range segments {
		if err := r.file(dir, s, i == len(segments)-1); err != nil {
			return nil, err
		}
		if r.Fault != nil {
			break
		}
	}
	return r.done(), nil
}

// VerifySegment verifies one segment on its own, by the compact range in its header,
// which the heads in it vouch for.
func VerifySegment(name string, segment io.Reader, v note.Verifier) *Report {
	r := newVerification(v)
	r.segment(name, segment, nil, true)
	return r.done()
}

// verification is a run of Verify.
type verification struct {
	Report
	verifier  note.Verifier
	logID     [32]byte
	tree      tree // over what was read
	started   bool
	epoch     uint64
	records   uint64 // read
	ended     bool
	decisions map[[16]byte]bool // open: no outcome yet
	truncated bool              // decisions is not complete
}

// maxDecisions bounds how many decision ids are kept to pair outcomes with.
const maxDecisions = 4 << 20

func newVerification(v note.Verifier) *verification {
	return &verification{
		Report: Report{Origin: v.Name()}, verifier: v, logID: LogID(v.Name()), decisions: map[[16]byte]bool{},
	}
}

func (r *verification) done() *Report {
	if r.records > r.Records && r.Fault == nil {
		r.Notes = append(r.Notes, fmt.Sprintf("%d records at the end are under no signed head: they were never answered", r.records-r.Records))
	}
	r.Ended = r.ended && r.records == r.Records
	return &r.Report
}

func (r *verification) file(dir string, s segment, last bool) error {
	f, err := os.Open(filepath.Join(dir, s.name)) //nolint:gosec // the directory is the caller's
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	r.segment(s.name, f, &s, last)
	return nil
}

// segment verifies one segment. s is what its name says, or nil.
func (r *verification) segment(name string, in io.Reader, s *segment, last bool) {
	r.Segments++
	found := scan(in, func(f frame, at *segmentScan) error {
		switch f.kind {
		case frameHeader:
			return r.header(at.header, s)
		case frameRecord:
			return r.record(f.payload)
		case frameHead:
			return r.head(f.payload, at.tree)
		default:
			return nil
		}
	})
	r.tree = found.tree
	err := found.fault
	if err == nil && !last && !found.sealed {
		err = errors.New("no seal, and another segment follows")
	}
	if err != nil {
		r.Fault = &Fault{Segment: name, Offset: found.offset, Index: r.First + r.records, What: err}
	}
}

// header verifies that a segment goes on where the one before it ended.
func (r *verification) header(h header, s *segment) error {
	switch {
	case h.origin != r.Origin:
		return fmt.Errorf("the segment is of %q, the key of %q", h.origin, r.Origin)
	case s != nil && (h.epoch != s.epoch || h.first != s.first):
		return fmt.Errorf("the name says epoch %d from %d, the header epoch %d from %d", s.epoch, s.first, h.epoch, h.first)
	case h.epoch < 1 || h.epoch < r.epoch:
		return fmt.Errorf("epoch %d after epoch %d", h.epoch, r.epoch)
	case r.started && h.first != r.First+r.records:
		return fmt.Errorf("the segment begins at %d, the one before ended at %d", h.first, r.First+r.records)
	case r.started && !slices.Equal(h.hashes, r.tree.hashes()):
		return errors.New("the compact range is not that of the records before")
	}
	if !r.started {
		r.started, r.First, r.Size = true, h.first, h.first
	}
	if h.epoch != r.epoch {
		r.Epochs++
		r.epoch = h.epoch
	}
	return nil
}

func (r *verification) record(raw []byte) error {
	record, err := r.check(raw)
	if err != nil {
		return err
	}
	r.ended = record.GetKind() == writv1.RecordKind_RECORD_KIND_END
	r.pair(record)
	return nil
}

// check verifies that a record is the next one, and counts it.
func (r *verification) check(raw []byte) (*writv1.Record, error) {
	record, err := CheckRecord(raw, r.logID, r.First+r.records)
	if err != nil {
		return nil, err
	}
	if record.GetEpoch() != r.epoch {
		return nil, fmt.Errorf("%w: epoch %d in a segment of epoch %d", ErrRecord, record.GetEpoch(), r.epoch)
	}
	r.records++
	return record, nil
}

// pair notes what does not pair. It is no fault: an outcome may belong to a decision
// that was pruned, and the order of both is the agent's business.
func (r *verification) pair(record *writv1.Record) {
	if len(record.GetDecisionId()) != 16 || len(r.Notes) > 1000 {
		return
	}
	id := [16]byte(record.GetDecisionId())
	open, known := r.decisions[id]
	switch record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		if known {
			r.Notes = append(r.Notes, fmt.Sprintf("record %d: a second decision %x", record.GetIndex(), id))
		}
		if len(r.decisions) >= maxDecisions {
			r.truncated = true
			clear(r.decisions)
		}
		r.decisions[id] = true
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		if !known && r.First == 0 && !r.truncated {
			r.Notes = append(r.Notes, fmt.Sprintf("record %d: an outcome without a decision %x", record.GetIndex(), id))
		}
		if known && !open {
			r.Notes = append(r.Notes, fmt.Sprintf("record %d: a second outcome of decision %x", record.GetIndex(), id))
		}
		if known {
			r.decisions[id] = false
		}
	}
}

func (r *verification) head(payload []byte, t tree) error {
	head := parseHead(payload, r.Origin)
	root := t.root()
	if head.Root != root {
		return fmt.Errorf("%w: the root of size %d is not that of the records", ErrHead, head.Size)
	}
	if err := verifyHead(payload, head, r.verifier); err != nil {
		return err
	}
	r.Heads++
	r.Size, r.Root, r.Records = head.Size, root, r.records
	return nil
}
