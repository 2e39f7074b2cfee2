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
	Head     []byte   // the signed note of Size: what to keep elsewhere, for VerifyAgainst
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

// What VerifyAgainst finds, and nothing else can.
var (
	// ErrFork says that the ledger has another history than the one that a head which
	// was kept elsewhere is over: it was written anew by whoever has its key.
	ErrFork = errors.New("fork")
	// ErrRollback says that records which such a head is over are not there.
	ErrRollback = errors.New("rollback")
)

// Verify verifies the segments of a directory, offline and without changing them: CRCs
// and structure, the canonical form, index and ledger of every record and its body,
// the order of epochs, the tree, and the root and signature of every head. Notes tell
// of what only the key's holder can have written and no agent writes: epochs that do not
// begin with one START, outcomes without a decision, decisions taken twice or allowed
// and without an outcome, clocks that jumped. The error says that nothing could be read;
// what is wrong with what was read stands in the report.
//
// A verified ledger is one that the key's holder wrote. That nothing was cut off its
// end, and that there is no other version of it, only a head that somebody else kept
// can show: VerifyAgainst holds the ledger against one.
func Verify(dir string, v note.Verifier) (*Report, error) {
	return verifyDir(dir, newVerification(v))
}

// VerifyAgainst is Verify against a head of the ledger that was kept elsewhere, and is
// believed. What contradicts it is a Fault that wraps ErrFork or ErrRollback. The error
// is ErrPruned where the head is older than the oldest record held, which cannot be told.
func VerifyAgainst(dir string, v note.Verifier, pinned Head) (*Report, error) {
	if pinned.Origin != v.Name() {
		return nil, fmt.Errorf("%w: the head is of %s, the key of %s", ErrMismatch, pinned.Origin, v.Name())
	}
	r := newVerification(v)
	r.pinned = &pinned
	report, err := verifyDir(dir, r)
	if err == nil && report.Fault == nil && pinned.Size < report.First {
		return nil, fmt.Errorf("%w: the head is of size %d, the oldest record held is %d", ErrPruned, pinned.Size, report.First)
	}
	return report, err
}

func verifyDir(dir string, r *verification) (*Report, error) {
	segments, left, err := listSegments(OS{}, dir)
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		return nil, fmt.Errorf("verify %s: no segments: %w", dir, fs.ErrNotExist)
	}
	for _, name := range left {
		r.note("%s is left over from a rewrite", name)
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
	verifier note.Verifier
	logID    [32]byte
	tree     tree       // over what was read
	before   [][32]byte // compact range of what was there before First
	last     string     // segment that was read
	started  bool
	epoch    uint64
	records  uint64 // read
	ended    bool
	story    story
	pinned   *Head // what the ledger is held against, or nil
	held     bool  // the ledger has what pinned is over
}

func newVerification(v note.Verifier) *verification {
	return &verification{Report: Report{Origin: v.Name()}, verifier: v, logID: LogID(v.Name()), story: newStory()}
}

// maxNotes bounds the notes of a report.
const maxNotes = 1000

func (r *Report) note(format string, args ...any) {
	if len(r.Notes) < maxNotes {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

func (r *verification) done() *Report {
	uncovered := r.records - r.Records
	switch {
	case r.Fault != nil:
	case r.pinned != nil && !r.held && r.pinned.Size > r.Size:
		r.Fault = &Fault{Segment: r.last, Index: r.Size, What: fmt.Errorf(
			"%w: the head that was kept is over %d records, those here are over %d", ErrRollback, r.pinned.Size, r.Size)}
	case uncovered > 0 && r.held && r.pinned.Size > r.Size:
		r.note("%d records at the end are under no signed head here, and under the one that was kept", uncovered)
	case uncovered > 0:
		r.note("%d records at the end are under no signed head: they were never answered", uncovered)
	}
	r.Ended = r.ended && uncovered == 0
	if r.Ended && r.Fault == nil {
		r.story.end(&r.Report)
	}
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
	r.last = name
	found := scan(in, func(f frame, at *segmentScan) error {
		switch f.kind {
		case frameHeader:
			if err := r.header(at.header, s); err != nil {
				return err
			}
			return r.hold(at.tree)
		case frameRecord:
			if err := r.record(f.payload); err != nil {
				return err
			}
			return r.hold(at.tree)
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
		r.started, r.First, r.Size, r.before = true, h.first, h.first, h.hashes
	}
	if h.epoch != r.epoch {
		r.Epochs++
		r.story.epoch(h.epoch, r.epoch > 0 || h.first == 0)
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
	r.story.record(&r.Report, record)
	return nil
}

// hold holds the tree, where it is of its size, against the head that was kept.
func (r *verification) hold(t tree) error {
	if r.pinned == nil || t.size != r.pinned.Size {
		return nil
	}
	if t.root() != r.pinned.Root {
		return fmt.Errorf("%w: the %d records before are not those that the head which was kept is over", ErrFork, t.size)
	}
	r.held = true
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
	r.Size, r.Root, r.Records, r.Head = head.Size, root, r.records, expandHead(payload, head)
	return nil
}
