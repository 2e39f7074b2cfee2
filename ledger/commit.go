// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// batch is what one write put into the ledger. It does not change after it was
// written.
type batch struct {
	origin string
	first  uint64
	before [][32]byte // compact range of the tree before first
	leaves [][32]byte
	starts []int // of each record's frame, then of the head's, in frames
	frames []byte
	root   [32]byte
}

func (b *batch) end() uint64 { return b.first + uint64(len(b.leaves)) }

// record returns the canonical bytes of a record.
func (b *batch) record(slot int) []byte {
	return b.frames[b.starts[slot]+prefixBytes : b.starts[slot+1]]
}

// note returns the signed note of the batch's head.
func (b *batch) note() []byte {
	payload := b.frames[b.starts[len(b.leaves)]+prefixBytes:]
	return expandHead(payload, Head{Origin: b.origin, Size: b.end(), Root: b.root})
}

// draft is a batch that is being put together, in buffers that are used again.
type draft struct {
	group  []*pending
	frames []byte
	leaves [][32]byte
	starts []int
	tree   tree
}

func (d *draft) reset(t *tree) {
	clear(d.group)
	d.group, d.frames, d.leaves, d.starts = d.group[:0], d.frames[:0], d.leaves[:0], d.starts[:0]
	d.tree = *t
}

func (d *draft) full() bool { return len(d.group) >= batchRecords || len(d.frames) >= batchBytes }

// commitLoop is the committer: the only goroutine that writes.
func (l *Ledger) commitLoop() {
	defer close(l.stopped)
	probe := time.NewTicker(l.opts.ProbeInterval)
	probe.Stop()
	for {
		select {
		case p := <-l.queue:
			// Whoever is about to append does so now, and shares the signature and
			// the write: alone they cost more than all else here.
			runtime.Gosched()
			l.commit(p)
		case <-l.broken:
			probe.Reset(l.opts.ProbeInterval)
		case <-probe.C:
			if l.mend() {
				probe.Stop()
			}
		case <-l.stopping:
			probe.Stop()
			l.finish()
			return
		}
	}
}

// commit writes p, and what else is queued, as one batch.
func (l *Ledger) commit(p *pending) {
	d := &l.draft
	d.reset(&l.tree)
	now := l.opts.Clock()
	for p != nil {
		if p.state.CompareAndSwap(stateQueued, stateTaken) {
			if err := l.draftRecord(d, p, now); err != nil {
				l.refuse(p, err)
			}
		}
		p = nil
		if !d.full() {
			select {
			case p = <-l.queue:
			default:
			}
		}
	}
	if len(d.group) == 0 {
		return
	}
	b, err := l.write(d)
	if err != nil {
		l.fail(err)
		for _, p := range d.group {
			l.refuse(p, l.unavailable())
		}
		return
	}
	l.publish(b, d)
}

// draftRecord adds a record to the draft, or leaves the draft as it was.
func (l *Ledger) draftRecord(d *draft, p *pending, now time.Time) error {
	if l.down.Load() {
		return l.unavailable()
	}
	start := len(d.frames)
	frames, err := l.appendRecord(beginFrame(d.frames, frameRecord), p, d.tree.size, now)
	d.frames = frames[:start]
	if err != nil {
		return err
	}
	record := frames[start+prefixBytes:]
	if len(record) > MaxRecordBytes {
		return fmt.Errorf("%w: it would have %d bytes", ErrTooLarge, len(record))
	}
	if l.bytes.Load()+int64(len(frames))+segmentExtra > l.room(&p.entry) {
		return fmt.Errorf("%w: %d of %d bytes", ErrFull, l.bytes.Load(), l.opts.MaxBytes)
	}
	endFrame(frames, start)
	leaf := l.hasher.leaf(record)
	d.tree.append(leaf)
	d.frames, d.group = frames, append(d.group, p)
	d.leaves, d.starts = append(d.leaves, leaf), append(d.starts, start)
	return nil
}

// room is how far a record may fill the ledger: decisions, and what callers have
// recorded besides, leave a sixteenth, so that what was decided gets its outcome.
func (l *Ledger) room(e *Entry) int64 {
	switch {
	case e.Kind == writv1.RecordKind_RECORD_KIND_DECISION, e.Kind == writv1.RecordKind_RECORD_KIND_SESSION,
		e.Kind == writv1.RecordKind_RECORD_KIND_OBSERVATION && len(e.DecisionID) == 0:
		return l.opts.MaxBytes - l.opts.MaxBytes/16
	}
	return l.opts.MaxBytes
}

// write signs the draft and writes it, in the segment that it belongs to.
func (l *Ledger) write(d *draft) (*batch, error) {
	root := d.tree.root()
	d.starts = append(d.starts, len(d.frames))
	frames, err := appendHead(d.frames, Head{Origin: l.id.origin, Size: d.tree.size, Root: root}, l.id.signer)
	if err != nil {
		return nil, err
	}
	d.frames = frames
	s := l.current()
	if s.end > s.first && s.bytes+int64(len(frames)) > l.opts.SegmentBytes {
		if err := l.rotate(); err != nil {
			return nil, err
		}
	}
	if _, err := l.file.Write(frames); err != nil {
		return nil, fmt.Errorf("write segment: %w", err)
	}
	return &batch{
		origin: l.id.origin, first: l.tree.size, before: l.tree.hashes(), root: root,
		leaves: slices.Clone(d.leaves), starts: slices.Clone(d.starts), frames: slices.Clone(frames),
	}, nil
}

// current is the segment that is being written, which the committer alone changes.
func (l *Ledger) current() segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[len(l.segments)-1]
}

// publish makes a written batch the ledger's newest, and answers for it.
func (l *Ledger) publish(b *batch, d *draft) {
	l.tree = d.tree
	l.bytes.Add(int64(len(b.frames)))
	wanted := false
	l.mu.Lock()
	l.size = l.tree.size
	s := &l.segments[len(l.segments)-1]
	s.end, s.bytes = l.size, s.bytes+int64(len(b.frames))
	l.tail, l.tailSize = append(l.tail, b), l.tailSize+len(b.frames)
	for l.tailSize > tailBytes && len(l.tail) > 1 {
		l.tailSize -= len(l.tail[0].frames)
		l.tail[0] = nil
		l.tail = l.tail[1:]
	}
	for i, p := range d.group {
		p.at, p.err = Position{Index: b.first + uint64(i), Recorded: true, in: b, slot: i}, nil //nolint:gosec // not negative
		switch {
		case p.durable == nil:
		case l.failure != nil: // a sync failed during the write: nobody would sync this
			p.lateErr = l.failure
			p.durable <- struct{}{}
		default:
			l.syncing = append(l.syncing, p)
			wanted = true
		}
	}
	l.mu.Unlock()
	if wanted {
		select {
		case l.urgent <- struct{}{}:
		default:
		}
	}
	for _, p := range d.group {
		if p.entry.Written != nil {
			p.entry.Written(nil)
		}
	}
	for _, p := range d.group { // from here on p is its caller's, and the syncer's
		if p.async {
			p.release()
		} else {
			p.done <- struct{}{}
		}
	}
}

// refuse says that an entry was not written.
func (l *Ledger) refuse(p *pending, err error) {
	if p.entry.Written != nil {
		p.entry.Written(err)
	}
	if !p.async {
		p.at, p.err = Position{}, err
		p.done <- struct{}{}
		return
	}
	e := p.entry
	p.release()
	if l.opts.OnLost != nil {
		l.opts.OnLost(e, err)
	}
}

// rotate seals the segment, syncs it, and begins another.
func (l *Ledger) rotate() error {
	seal, err := l.seal()
	if err != nil {
		return err
	}
	file, s, err := l.createSegment()
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.file
	l.segments[len(l.segments)-1].bytes += seal
	l.segments = append(l.segments, s)
	l.file = file
	l.mu.Unlock()
	l.bytes.Add(seal + s.bytes)
	return old.Close()
}

// seal ends the segment and syncs it. It returns the bytes of the seal.
func (l *Ledger) seal() (int64, error) {
	b := appendSeal(nil, l.tree.size, l.tree.root())
	if _, err := l.file.Write(b); err != nil {
		return 0, fmt.Errorf("seal segment: %w", err)
	}
	reply := make(chan error, 1)
	l.flush <- reply
	return int64(len(b)), <-reply
}

// finish writes what is queued, seals, and turns everybody else away.
func (l *Ledger) finish() {
	for {
		select {
		case p := <-l.queue:
			l.commit(p)
			continue
		default:
		}
		break
	}
	var err error
	if !l.down.Load() {
		_, err = l.seal()
	}
	l.mu.Lock()
	l.failure = ErrClosed
	waiting, syncing := l.waiting, l.syncing
	l.waiting, l.syncing = map[*pending]bool{}, nil
	l.notify()
	l.mu.Unlock()
	l.down.Store(true)
	for _, p := range syncing { // the seal could not be synced, and so neither they
		p.lateErr = ErrClosed
		p.durable <- struct{}{}
	}
	for p := range waiting {
		p.lateErr = fmt.Errorf("%w: the ledger was closed", ErrNotAcknowledged)
		p.durable <- struct{}{}
	}
	l.closeErr = errors.Join(l.closeErr, err, l.file.Close())
}
