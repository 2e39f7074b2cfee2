// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
)

const (
	// giveBytes is how much a DirReader holds back to verify one signature for all of it.
	giveBytes = 1 << 20
	// maxUncovered bounds what it holds when no head comes. A batch is far below it.
	maxUncovered = 64 << 20
)

// DirReader reads the records of a ledger from its directory, in order, without the
// ledger's lock and without changing anything: while an agent writes it, and while
// none does. It gives out only what a head vouches for that the key signed. A
// DirReader is for one goroutine, and needs no closing.
//
//	r := ledger.NewDirReader(dir, verifier)
//	err := r.Read(func(index uint64, record []byte) error { ... }) // and again, for what is new
type DirReader struct {
	dir       string
	verified  *verification
	at        segment
	scan      segmentScan // of at, as far as was given out
	uncovered int64
	head      []byte // payload of the newest head that was verified
	err       error
}

// NewDirReader returns a reader of the ledger in dir whose heads v verifies.
func NewDirReader(dir string, v note.Verifier) *DirReader {
	return &DirReader{dir: dir, verified: newVerification(v)}
}

// Uncovered is how many bytes at the end of the ledger no signed head covered when it
// was last read: a batch that is being written, or a torn tail.
func (r *DirReader) Uncovered() int64 { return r.uncovered }

// First is the index of the oldest record that was there when the first was read.
func (r *DirReader) First() uint64 { return r.verified.First }

// Before is the compact range, left to right, of what was there before First.
func (r *DirReader) Before() [][32]byte { return r.verified.before }

// Head returns the newest head that what was given out is under, and its signed note;
// no note before there is one.
func (r *DirReader) Head() (Head, []byte) {
	if r.head == nil {
		return Head{Origin: r.verified.Origin}, nil
	}
	head := parseHead(r.head, r.verified.Origin)
	return head, expandHead(r.head, head)
}

// Read calls visit with every record that was not given out before, which is the
// callee's to keep, and returns at the end of what is there now. What is wrong with
// the ledger is a *Fault, after everything before it was given out; ErrPruned says
// that records were removed before they were read. After an error, visit's included,
// every Read returns it.
func (r *DirReader) Read(visit func(index uint64, record []byte) error) error {
	if r.err == nil {
		r.err = r.read(visit)
	}
	return r.err
}

func (r *DirReader) read(visit func(uint64, []byte) error) error {
	segments, _, err := listSegments(OS{}, r.dir)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return fmt.Errorf("read %s: no segments: %w", r.dir, fs.ErrNotExist)
	}
	for i, s := range segments {
		if s.name < r.at.name || s.name == r.at.name && r.scan.sealed {
			continue
		}
		if err := r.segment(s, i == len(segments)-1, visit); err != nil {
			return err
		}
	}
	return nil
}

// segment reads what is new of a segment.
func (r *DirReader) segment(s segment, last bool, visit func(uint64, []byte) error) error {
	if r.verified.started && s.name != r.at.name && s.first > r.next() {
		return fmt.Errorf("%w: %d", ErrPruned, r.next())
	}
	f, err := os.Open(filepath.Join(r.dir, s.name)) //nolint:gosec // the directory is the caller's
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was empty, or it was pruned and what follows does not fit
	}
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if s.name != r.at.name {
		r.at, r.scan = s, segmentScan{}
	}
	if _, err := f.Seek(r.scan.offset, io.SeekStart); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	p := &pass{r: r, scan: r.scan, covered: r.scan, in: newScanner(f), visit: visit}
	p.in.offset = r.scan.offset
	err = p.run()
	if err == nil && !last && !r.scan.sealed {
		err = p.faultAt(errors.New("no seal, and another segment follows"))
	}
	r.uncovered = 0
	if info, statErr := f.Stat(); statErr == nil {
		r.uncovered = info.Size() - r.scan.offset
	}
	if err == nil && r.uncovered < 0 {
		err = p.faultAt(errors.New("the segment is shorter than it was"))
	}
	return err
}

// next is the index of the next record to be given out.
func (r *DirReader) next() uint64 { return r.verified.First + r.verified.records }

// pass is one walk over what is new of a segment.
type pass struct {
	r       *DirReader
	in      *scanner
	scan    segmentScan // as far as was read
	covered segmentScan // as far as a head, the header or the seal covers
	visit   func(uint64, []byte) error

	records [][]byte // read and not given out
	bytes   int
	under   int // how many of records covered is over
}

// run walks to the end of what is whole.
func (p *pass) run() error {
	hash := newHasher()
	for {
		f, err := p.in.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
			return p.give()
		}
		if err == nil {
			err = p.take(f, hash)
		}
		if err != nil {
			if err := p.give(); err != nil {
				return err
			}
			return p.faultAt(err)
		}
		if p.bytes >= giveBytes && p.under == len(p.records) {
			if err := p.give(); err != nil {
				return err
			}
		}
	}
}

// take checks a frame and keeps what is in it.
func (p *pass) take(f frame, hash hasher) error {
	if f.kind == frameHead { // whose payload is not written over that of p.covered
		p.scan.covered.payload = nil
	}
	if err := p.scan.take(f, hash); err != nil {
		return err
	}
	p.scan.offset = f.end()
	switch f.kind {
	case frameHeader:
		if err := p.r.verified.header(p.scan.header, &p.r.at); err != nil {
			return err
		}
	case frameRecord:
		if _, err := p.r.verified.check(f.payload); err != nil {
			return err
		}
		if p.bytes += len(f.payload); p.bytes > maxUncovered {
			return fmt.Errorf("no head covers %d bytes of records", p.bytes)
		}
		p.records = append(p.records, bytes.Clone(f.payload))
		return nil
	}
	p.covered, p.under = p.scan, len(p.records)
	return nil
}

// give verifies the newest head, gives out what it covers, and forgets the rest, which
// is read again the next time. Within a segment it is called where there is no rest.
func (p *pass) give() error {
	v := p.r.verified
	if p.under > 0 {
		if err := v.head(p.covered.covered.payload, p.covered.tree); err != nil {
			return p.faultAt(err)
		}
		p.r.head = bytes.Clone(p.covered.covered.payload)
	}
	first := p.covered.tree.size - uint64(p.under) //nolint:gosec // a count
	for i, record := range p.records[:p.under] {
		if err := p.visit(first+uint64(i), record); err != nil { //nolint:gosec // an index
			return err
		}
	}
	p.records, p.bytes, p.under = nil, 0, 0
	p.r.scan = p.covered
	// A segment that is being made has no header yet: it says nothing of what is before it.
	if v.started && p.covered.offset > 0 {
		v.tree, v.records = p.covered.tree, p.covered.tree.size-v.First
	}
	return nil
}

func (p *pass) faultAt(err error) error {
	return &Fault{Segment: p.r.at.name, Offset: p.in.offset, Index: p.r.next(), What: err}
}
