// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Records are handed to the fold in runs of so many, and so many runs wait for it: one
// goroutine reads while another folds.
const (
	foldRun   = 256
	foldAhead = 4
)

// fold gives every record to OnRecord. The tree over them is verified by now.
func (l *Ledger) fold(r *Recovery) error {
	if l.opts.OnRecord == nil {
		return l.lookAtLast(r)
	}
	f := &folding{l: l, runs: make(chan []*writv1.Record, foldAhead), ended: make(chan struct{})}
	go f.read()
	err := f.give(r)
	close(f.ended)
	for range f.runs { // until the reader has seen it
	}
	return errors.Join(err, f.err)
}

// lookAtLast finds out what the last record is, where nobody wants to see the others.
func (l *Ledger) lookAtLast(r *Recovery) error {
	if len(l.segments) == 0 {
		return nil
	}
	last := &folding{l: l, index: l.segments[len(l.segments)-1].first}
	var raw []byte
	err := last.segment(l.segments[len(l.segments)-1], func(b []byte) error {
		raw = append(raw[:0], b...)
		last.index++
		return nil
	})
	if err != nil || raw == nil {
		return err
	}
	last.index--
	record, err := last.parse(raw)
	r.Clean = record.GetKind() == writv1.RecordKind_RECORD_KIND_END
	return err
}

// folding is a walk over all records that are held.
type folding struct {
	l     *Ledger
	index uint64 // of the record that is read next
	runs  chan []*writv1.Record
	ended chan struct{} // closed when nobody takes runs any more
	err   error         // of read, once runs is closed
}

// give calls OnRecord with what read reads.
func (f *folding) give(r *Recovery) error {
	for run := range f.runs {
		for _, record := range run {
			r.Clean = record.GetKind() == writv1.RecordKind_RECORD_KIND_END
			if err := f.l.opts.OnRecord(record); err != nil {
				return err
			}
		}
	}
	return nil
}

// errEnded says that nobody takes what is read.
var errEnded = errors.New("the fold has ended")

// read reads every record, in order.
func (f *folding) read() {
	defer close(f.runs)
	var run []*writv1.Record
	for i, s := range f.l.segments {
		if i == 0 {
			f.index = s.first
		}
		err := f.segment(s, func(b []byte) error {
			record, err := f.parse(b)
			if err != nil {
				return fmt.Errorf("%w: %s holds another record at %d", err, s.name, f.index)
			}
			f.index++
			if run = append(run, record); len(run) < foldRun {
				return nil
			}
			err = f.hand(run)
			run = make([]*writv1.Record, 0, foldRun)
			return err
		})
		if errors.Is(err, errEnded) {
			return
		}
		if err != nil {
			f.err = err
			return
		}
	}
	_ = f.hand(run)
}

func (f *folding) hand(run []*writv1.Record) error {
	select {
	case f.runs <- run:
		return nil
	case <-f.ended:
		return errEnded
	}
}

// parse reads the record at index.
func (f *folding) parse(b []byte) (*writv1.Record, error) {
	record := &writv1.Record{}
	if err := proto.Unmarshal(b, record); err != nil || record.GetIndex() != f.index || !bytes.Equal(record.GetLogId(), f.l.id.logID[:]) {
		return nil, ErrCorrupt
	}
	return record, nil
}

// segment calls visit with the bytes of every record of a segment.
func (f *folding) segment(s segment, visit func(record []byte) error) error {
	file, err := f.l.fs.OpenFile(filepath.Join(f.l.opts.Dir, s.name), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	in := newScanner(file)
	for {
		next, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && next.kind == frameRecord {
			err = visit(next.payload)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", s.name, err)
		}
	}
}
