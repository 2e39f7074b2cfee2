// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// chunkBytes is how much a reader takes from a segment at a time. A batch fits it.
const chunkBytes = 512 << 10

// Bundle is a run of records that ends at a signed head.
type Bundle struct {
	First   uint64
	Records [][]byte // canonical bytes; they MUST NOT be changed
	Head    []byte   // the signed note of the head
	Size    uint64   // of the head: the index after the last record
	Root    []byte   // of the head
}

// Reader reads the records of a ledger in order, and follows it. Fresh ones come
// from memory, others from the segments. It gives out only what is synced: what the
// collector holds, a crash of the node MUST NOT take back. A Reader is for one
// goroutine, and needs no closing.
type Reader struct {
	l     *Ledger
	next  uint64
	ready []run // read and not yet given out
	// Where the next chunk begins.
	name     string
	offset   int64
	rewrites uint64
}

// run is one batch, or the end of one.
type run struct {
	first   uint64
	records [][]byte
	bytes   int
	head    Head
	payload []byte // of the head frame
}

// Reader returns a reader that begins with the record at index from, which is at most
// the size of the ledger and at least its oldest index (else ErrPruned).
func (l *Ledger) Reader(from uint64) (*Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from > l.size {
		return nil, fmt.Errorf("%w: there are not yet %d records", ErrMismatch, from)
	}
	if from < l.segments[0].first {
		return nil, fmt.Errorf("%w: %d", ErrPruned, from)
	}
	return &Reader{l: l, next: from}, nil
}

// Next returns the next bundle, of at most so many records and bytes, but for a
// batch that has more by itself. It waits for one, and fails when ctx ends, when the
// ledger is closed (ErrUnavailable), when the records are gone (ErrPruned).
func (r *Reader) Next(ctx context.Context, records, size int) (Bundle, error) {
	if len(r.ready) == 0 {
		if err := r.fill(ctx); err != nil {
			return Bundle{}, err
		}
	}
	out := Bundle{First: r.ready[0].first}
	n, last := 0, r.ready[0]
	for i, b := range r.ready {
		if i > 0 && (len(out.Records)+len(b.records) > records || n+b.bytes > size) {
			break
		}
		out.Records = append(out.Records, b.records...)
		n, last = n+b.bytes, b
		r.ready = r.ready[1:]
	}
	out.Size, out.Root, out.Head = last.head.Size, last.head.Root[:], expandHead(last.payload, last.head)
	r.next = out.Size
	r.l.remember(out.Size, last.head.Root)
	return out, nil
}

// fill waits until something is synced that was not given out, and reads it.
func (r *Reader) fill(ctx context.Context) error {
	for {
		r.l.mu.Lock()
		if r.l.durable > r.next {
			return r.fillLocked()
		}
		if errors.Is(r.l.failure, ErrClosed) {
			r.l.mu.Unlock()
			return ErrClosed
		}
		if r.l.changed == nil {
			r.l.changed = make(chan struct{})
		}
		changed := r.l.changed
		r.l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fillLocked reads from the tail in memory or else from a segment. It is called with
// mu held, and gives it back.
func (r *Reader) fillLocked() error {
	l := r.l
	if len(l.tail) > 0 && l.tail[0].first <= r.next {
		for _, b := range l.tail {
			if b.end() > r.next && b.end() <= l.durable {
				r.ready = append(r.ready, b.from(max(r.next, b.first)))
			}
		}
		l.mu.Unlock()
		return nil
	}
	var in segment
	for _, s := range l.segments {
		if s.first <= r.next && r.next < s.end {
			in = s
			break
		}
	}
	durable, rewrites := l.durable, l.rewrites
	l.mu.Unlock()
	if in.name == "" {
		return fmt.Errorf("%w: %d", ErrPruned, r.next)
	}
	if r.name != in.name || r.rewrites != rewrites {
		r.name, r.offset, r.rewrites = in.name, 0, rewrites
	}
	return r.fillFrom(durable)
}

func (b *batch) from(index uint64) run {
	out := run{
		first: index, head: Head{Origin: b.origin, Size: b.end(), Root: b.root},
		payload: b.frames[b.starts[len(b.leaves)]+prefixBytes:],
	}
	for slot := int(index - b.first); slot < len(b.leaves); slot++ { //nolint:gosec // at most batchRecords
		out.records = append(out.records, b.record(slot))
		out.bytes += len(b.record(slot))
	}
	return out
}

// fillFrom reads chunks of a segment until one holds something that was not given out.
func (r *Reader) fillFrom(durable uint64) error {
	f, err := r.l.fs.OpenFile(filepath.Join(r.l.opts.Dir, r.name), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %d", ErrPruned, r.next)
	}
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	for len(r.ready) == 0 {
		chunk := make([]byte, chunkBytes)
		n, err := f.ReadAt(chunk, r.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", r.name, err)
		}
		read, err := r.parse(chunk[:n], durable)
		if err != nil {
			return fmt.Errorf("%w: %s, after %d bytes: %w", ErrCorrupt, r.name, r.offset+read, err)
		}
		if read == 0 {
			return fmt.Errorf("%w: %s ends after %d bytes, before record %d", ErrCorrupt, r.name, r.offset, r.next)
		}
		r.offset += read
	}
	return nil
}

// parse takes whole batches off b, up to those that are synced. It returns how many
// bytes it is done with.
func (r *Reader) parse(b []byte, durable uint64) (done int64, err error) {
	var records [][]byte
	size, at := 0, 0
	for {
		kind, payload, err := parseFrame(b[at:])
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return done, nil
		}
		if err != nil {
			return int64(at), err
		}
		at += prefixBytes + len(payload)
		switch kind {
		case frameHeader:
			done = int64(at)
		case frameRecord:
			records, size = append(records, payload), size+len(payload)
		case frameHead:
			head := parseHead(payload, r.l.id.origin)
			if head.Size > durable {
				return done, nil
			}
			r.take(run{records: records, bytes: size, head: head, payload: payload})
			records, size, done = nil, 0, int64(at)
		case frameSeal:
			return int64(at), nil
		}
	}
}

// take keeps of a batch what was not given out.
func (r *Reader) take(b run) {
	if b.head.Size <= r.next || uint64(len(b.records)) > b.head.Size {
		return
	}
	b.first = b.head.Size - uint64(len(b.records))
	for b.first < r.next {
		b.bytes -= len(b.records[0])
		b.records, b.first = b.records[1:], b.first+1
	}
	r.ready = append(r.ready, b)
}
