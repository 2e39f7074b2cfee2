// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// sentHeads bounds how many roots of heads that readers were given are kept. Others
// are computed from the segments.
const sentHeads = 4096

// Acknowledge says that the collector holds everything below size durably, under a
// tree of this root. The caller MUST have verified the collector's signature. A root
// that is not the ledger's own is refused with ErrMismatch, and so is a size that
// was never given out: a collector that lies unlocks nothing.
func (l *Ledger) Acknowledge(size uint64, root []byte) error {
	l.mu.Lock()
	acked, durable := l.acked, l.durable
	own, known := l.sent[size]
	l.mu.Unlock()
	if size > durable {
		return fmt.Errorf("%w: it is at %d records of %d", ErrMismatch, size, durable)
	}
	if size < acked {
		return nil // cumulative: said before, and more
	}
	if !known {
		b, err := l.RootAt(size)
		if err != nil {
			return err
		}
		own = [32]byte(b)
	}
	if !bytes.Equal(root, own[:]) {
		return fmt.Errorf("%w: at %d records", ErrMismatch, size)
	}
	l.acknowledged(size)
	return nil
}

func (l *Ledger) acknowledged(size uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = max(l.acked, size)
	for s := range l.sent {
		if s < size {
			delete(l.sent, s)
		}
	}
	for p := range l.waiting {
		if p.at.Index < size {
			delete(l.waiting, p)
			p.durable <- struct{}{}
		}
	}
}

// remember keeps the root of a head that a reader is given.
func (l *Ledger) remember(size uint64, root [32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sent) >= sentHeads {
		clear(l.sent)
	}
	l.sent[size] = root
}

// Head returns the newest signed head that is synced, and the note of it; of an
// empty ledger the note is nil.
func (l *Ledger) Head() (Head, []byte, error) {
	l.mu.Lock()
	durable := l.durable
	for _, b := range l.tail {
		if b.end() == durable {
			l.mu.Unlock()
			return Head{Origin: l.id.origin, Size: durable, Root: b.root}, b.note(), nil
		}
	}
	l.mu.Unlock()
	if durable == 0 {
		return Head{Origin: l.id.origin, Root: (&tree{}).root()}, nil, nil
	}
	// Nothing was synced in this epoch: it is the head that was recovered, and
	// Ed25519 signs it as it did before.
	root, err := l.RootAt(durable)
	if err != nil {
		return Head{}, nil, err
	}
	h := Head{Origin: l.id.origin, Size: durable, Root: [32]byte(root)}
	signed, err := SignHead(h, l.id.signer)
	return h, signed, err
}

// errFound ends a scan that has seen enough.
var errFound = errors.New("found")

// RootAt computes the root of the tree over the first size records. It returns
// ErrPruned where they begin before what is held, and ErrMismatch beyond the end.
func (l *Ledger) RootAt(size uint64) ([]byte, error) {
	l.mu.Lock()
	if size > l.size {
		l.mu.Unlock()
		return nil, fmt.Errorf("%w: there are not yet %d records", ErrMismatch, size)
	}
	for _, b := range l.tail {
		if b.end() == size {
			l.mu.Unlock()
			return b.root[:], nil
		}
	}
	var in segment
	for _, s := range l.segments {
		if s.first <= size {
			in = s
		}
		if size <= s.end {
			break
		}
	}
	l.mu.Unlock()
	if in.name == "" {
		return nil, fmt.Errorf("%w: %d", ErrPruned, size)
	}
	return l.rootIn(in, size)
}

func (l *Ledger) rootIn(in segment, size uint64) ([]byte, error) {
	scan, err := l.scanFile(in.name, func(_ frame, s *segmentScan) error {
		if s.tree.size == size {
			return errFound
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %d", ErrPruned, size)
	}
	if err == nil && !errors.Is(scan.fault, errFound) {
		err = fmt.Errorf("%w: no record %d in %s: %w", ErrCorrupt, size, in.name, orUnsealed(scan.fault))
	}
	if err != nil {
		return nil, err
	}
	root := scan.tree.root()
	return root[:], nil
}

// Prune removes the segments all of whose records are acknowledged and lie below the
// index, which is the one that the caller's snapshot of its state covers. It returns
// how many it removed. What stays keeps every proof: a segment begins with the
// compact range of the tree before it.
func (l *Ledger) Prune(below uint64) (int, error) {
	l.mu.Lock()
	limit := min(below, l.acked)
	n := 0
	for n < len(l.segments)-1 && l.segments[n].end <= limit && holdRecords(l.segments[n+1:], l.durable) {
		n++
	}
	victims := l.segments[:n:n]
	l.segments = l.segments[n:]
	l.mu.Unlock()
	for i, s := range victims { // the oldest first: what stays is always a run
		if err := l.fs.Remove(filepath.Join(l.opts.Dir, s.name)); err != nil {
			return i, fmt.Errorf("prune: %w", err)
		}
		l.bytes.Add(-s.bytes)
	}
	if n == 0 {
		return 0, nil
	}
	return n, l.fs.SyncDir(l.opts.Dir)
}

// holdRecords says whether a signed head that is synced is in the segments: without one
// nothing would vouch for the compact range in their headers.
func holdRecords(segments []segment, durable uint64) bool {
	for _, s := range segments {
		if s.end > s.first && s.first < durable {
			return true
		}
	}
	return false
}
