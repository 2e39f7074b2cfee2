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
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

const (
	segmentSuffix = ".dlog"
	tempSuffix    = ".tmp"
)

func segmentName(epoch, first uint64) string {
	return fmt.Sprintf("%08d-%020d%s", epoch, first, segmentSuffix)
}

func parseSegmentName(name string) (segment, bool) {
	epoch, first, ok := strings.Cut(strings.TrimSuffix(name, segmentSuffix), "-")
	e, err1 := strconv.ParseUint(epoch, 10, 64)
	i, err2 := strconv.ParseUint(first, 10, 64)
	return segment{name: name, epoch: e, first: i}, ok && err1 == nil && err2 == nil && segmentName(e, i) == name
}

// listSegments returns the segments of a directory in order, and the names of
// files that a rewrite left behind.
func listSegments(fsys FS, dir string) (segments []segment, left []string, err error) {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list segments: %w", err)
	}
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e.Name(), segmentSuffix+tempSuffix):
			left = append(left, e.Name())
		case strings.HasSuffix(e.Name(), segmentSuffix):
			s, ok := parseSegmentName(e.Name())
			if !ok {
				return nil, nil, fmt.Errorf("%w: %s is no name of a segment", ErrCorrupt, e.Name())
			}
			segments = append(segments, s)
		}
	}
	slices.SortFunc(segments, func(a, b segment) int { return strings.Compare(a.name, b.name) })
	return segments, left, nil
}

// segmentScan is what one pass over a segment found.
type segmentScan struct {
	header  header
	tree    tree  // over the records up to offset
	offset  int64 // end of the last good frame
	sealed  bool
	covered covered
	fault   error // why the scan ended before the segment did, or nil
}

// covered is the state at the last head: what may have been answered.
type covered struct {
	tree    tree
	offset  int64
	payload []byte // of the head frame; nil before the first
}

// scan walks the frames of a segment. It checks CRCs, structure, and that sizes and
// the seal fit the records; not the roots and signatures of heads. visit, if not
// nil, sees each frame after that; an error of it ends the scan.
func scan(r io.Reader, visit func(frame, *segmentScan) error) segmentScan {
	s := segmentScan{}
	sc, h := newScanner(r), newHasher()
	for {
		f, err := sc.next()
		if errors.Is(err, io.EOF) && s.offset > 0 {
			return s
		}
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: empty segment", errTorn)
		}
		if err == nil {
			err = s.take(f, h)
		}
		if err == nil && visit != nil {
			err = visit(f, &s)
		}
		if err != nil {
			s.fault = err
			return s
		}
		s.offset = f.end()
		if f.kind == frameHead {
			s.covered.offset = s.offset
		}
	}
}

func (s *segmentScan) take(f frame, h hasher) (err error) {
	switch {
	case (f.offset == 0) != (f.kind == frameHeader):
		return errors.New("a header that is not the first frame, or a first frame that is no header")
	case s.sealed:
		return errors.New("a frame after the seal")
	case f.kind == frameHeader:
		if s.header, err = parseHeader(f.payload); err != nil {
			return err
		}
		s.tree, err = newTree(s.header.first, s.header.hashes)
		s.covered.tree = s.tree
		return err
	case f.kind == frameRecord:
		s.tree.append(h.leaf(f.payload))
		return nil
	case f.kind == frameHead:
		head := parseHead(f.payload, s.header.origin)
		if head.Size != s.tree.size || head.Size == s.covered.tree.size {
			return fmt.Errorf("a head of size %d after %d records, of which the last head covers %d", head.Size, s.tree.size, s.covered.tree.size)
		}
		s.covered.tree = s.tree
		s.covered.payload = append(s.covered.payload[:0], f.payload...)
		return nil
	default:
		seal := parseHead(f.payload, s.header.origin)
		if seal.Size != s.tree.size || s.covered.tree.size != s.tree.size || seal.Root != s.tree.root() {
			return errors.New("a seal that does not fit the records")
		}
		s.sealed = true
		return nil
	}
}

// recover brings the ledger to the state on the disk, and begins an epoch.
func (l *Ledger) recover() (Recovery, error) {
	segments, left, err := listSegments(l.fs, l.opts.Dir)
	if err != nil {
		return Recovery{}, err
	}
	for _, name := range left {
		if err := l.fs.Remove(filepath.Join(l.opts.Dir, name)); err != nil {
			return Recovery{}, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	if len(segments) == 0 {
		l.id, err = makeIdentity(l.opts.Dir, l.opts.Origin)
	} else {
		l.id, err = readIdentity(l.opts.Dir, l.opts.Origin)
	}
	if err != nil {
		return Recovery{}, err
	}
	r := Recovery{Origin: l.id.origin, Fresh: len(segments) == 0, Epoch: 1}
	if len(segments) > 0 {
		r.Epoch = segments[len(segments)-1].epoch + 1
		if segments, err = l.recoverSegments(segments, &r); err != nil {
			return r, err
		}
	}
	l.segments, l.epoch = segments, r.Epoch
	r.Size = l.tree.size
	root := l.tree.root()
	r.Root = root[:]
	if err := l.fold(&r); err != nil {
		return r, err
	}
	return r, l.beginEpoch(&r)
}

// beginEpoch makes the epoch's first segment.
func (l *Ledger) beginEpoch(r *Recovery) error {
	file, s, err := l.createSegment()
	if err != nil {
		return err
	}
	l.file, l.segments = file, append(l.segments, s)
	l.size, l.durable = l.tree.size, l.tree.size
	for _, s := range l.segments {
		l.bytes.Add(s.bytes)
	}
	r.Oldest = l.segments[0].first
	return nil
}

// createSegment makes the segment that begins with the next record. The segment
// before it MUST be sealed and synced.
func (l *Ledger) createSegment() (File, segment, error) {
	s := segment{name: segmentName(l.epoch, l.tree.size), epoch: l.epoch, first: l.tree.size, end: l.tree.size}
	h := header{epoch: l.epoch, first: s.first, origin: l.id.origin, hashes: l.tree.hashes()}
	b := h.append(nil)
	s.bytes = int64(len(b))
	f, err := l.fs.OpenFile(filepath.Join(l.opts.Dir, s.name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, s, fmt.Errorf("create segment: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.SyncDir(l.opts.Dir)
	}
	if err != nil {
		return nil, s, errors.Join(fmt.Errorf("create segment: %w", err), f.Close())
	}
	return f, s, nil
}

// recoverSegments verifies the segments, leaves l.tree as it was at the last signed
// head, and mends the last segment. It returns those that hold records.
func (l *Ledger) recoverSegments(segments []segment, r *Recovery) ([]segment, error) {
	scans, err := l.scanAll(segments)
	if err != nil {
		return nil, err
	}
	var last covered
	for i := range segments {
		s, scan := &segments[i], scans[i]
		if err := l.fits(s, &scan, i == 0); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, s.name, err)
		}
		whole := scan.fault == nil && scan.sealed
		if !whole && i < len(segments)-1 {
			return nil, fmt.Errorf("%w: %s is not whole, after %d bytes: %w", ErrCorrupt, s.name, scan.offset, orUnsealed(scan.fault))
		}
		if scan.covered.payload != nil {
			last = scan.covered
		}
		if scan.offset > 0 {
			l.tree = scan.covered.tree
		}
		s.end, s.bytes = l.tree.size, scan.offset
		if i == len(segments)-1 {
			if err := l.mendLast(s, &scan, r); err != nil {
				return nil, err
			}
		}
	}
	if err := l.checkLast(last); err != nil {
		return nil, err
	}
	return l.removeEmpty(segments)
}

// scanAll scans the segments, as many at a time as there are processors: each begins
// with the compact range of the tree before it, so that none has to wait for another.
func (l *Ledger) scanAll(segments []segment) ([]segmentScan, error) {
	scans := make([]segmentScan, len(segments))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range segments {
		group.Go(func() (err error) {
			scans[i], err = l.scanFile(s.name, nil)
			return err
		})
	}
	return scans, group.Wait()
}

// removeEmpty removes the segments of epochs that recorded nothing.
func (l *Ledger) removeEmpty(segments []segment) ([]segment, error) {
	kept := segments[:0]
	for _, s := range segments {
		if s.end > s.first {
			kept = append(kept, s)
			continue
		}
		if err := l.fs.Remove(filepath.Join(l.opts.Dir, s.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove segment: %w", err)
		}
	}
	return kept, nil
}

func orUnsealed(err error) error {
	if err == nil {
		return errors.New("no seal")
	}
	return err
}

// fits checks a segment's header against its name and the segments before it.
func (l *Ledger) fits(s *segment, scan *segmentScan, oldest bool) error {
	h := scan.header
	switch {
	case scan.offset == 0 && errors.Is(scan.fault, errTorn):
		return nil // no header: a segment that was being made; mendTail decides
	case scan.offset == 0:
		return scan.fault
	case h.origin != l.id.origin:
		return fmt.Errorf("is of %s", h.origin)
	case h.epoch != s.epoch || h.first != s.first:
		return errors.New("its name is not that in its header")
	case !oldest && (h.first != l.tree.size || !slices.Equal(h.hashes, l.tree.hashes())):
		return fmt.Errorf("begins at %d, and the one before ends at %d or has another tree", h.first, l.tree.size)
	default:
		return nil
	}
}

// checkLast verifies the one signature that covers everything that is kept.
func (l *Ledger) checkLast(last covered) error {
	if last.payload == nil {
		if l.tree.size > 0 {
			return fmt.Errorf("%w: no signed head covers the segments", ErrCorrupt)
		}
		return nil
	}
	head := parseHead(last.payload, l.id.origin)
	if head.Size != l.tree.size || head.Root != l.tree.root() {
		return fmt.Errorf("%w: the records are not those under the head of size %d", ErrCorrupt, head.Size)
	}
	if err := verifyHead(last.payload, head, l.id.verifier); err != nil {
		return fmt.Errorf("%w: head of size %d: %w", ErrCorrupt, head.Size, err)
	}
	return nil
}

// mendLast ends the last segment at the last head, and seals it; one without records is
// removed. Only what was never answered may go: an answer leaves after the write of the
// head, so nothing after the last head was answered. Where a good head still stands
// behind the damage, answered records are damaged, and that is not for us to hide.
//
// It writes the segment anew, a whole one too: it may hold what the process before us
// could not sync, which reads well and which no sync writes any more.
func (l *Ledger) mendLast(s *segment, scan *segmentScan, r *Recovery) error {
	if scan.fault != nil && !errors.Is(scan.fault, errTorn) {
		return fmt.Errorf("%w: %s, after %d bytes: %w", ErrCorrupt, s.name, scan.offset, scan.fault)
	}
	rest, err := l.readFrom(s.name, scan.offset)
	if err != nil {
		return err
	}
	if l.headIn(rest, l.tree.size) {
		return fmt.Errorf("%w: %s is damaged after %d bytes, before a signed head", ErrCorrupt, s.name, scan.offset)
	}
	r.LostBytes += int64(len(rest))
	if covered := max(scan.covered.offset, headerBytes(scan.header)); !scan.sealed && scan.offset > covered {
		r.LostBytes += scan.offset - covered
	}
	if scan.covered.payload == nil { // no record in it was answered
		s.end = s.first
		return nil // removed with the other empty ones
	}
	s.bytes = scan.covered.offset
	seal := appendSeal(nil, l.tree.size, l.tree.root())
	f, err := l.writeAnew(*s, seal)
	if err != nil {
		return err
	}
	s.bytes += int64(len(seal))
	return f.Close()
}

// readFrom reads the end of a segment.
func (l *Ledger) readFrom(name string, offset int64) ([]byte, error) {
	f, err := l.fs.OpenFile(filepath.Join(l.opts.Dir, name), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	rest, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<40))
	if err != nil {
		return nil, fmt.Errorf("read the tail of %s: %w", name, err)
	}
	return rest, nil
}

func headerBytes(h header) int64 { return int64(len(h.append(nil))) }

// headIn says whether a frame in b is a head of more than size records that the
// ledger's key signed.
func (l *Ledger) headIn(b []byte, size uint64) bool {
	mark := []byte{headBytes, 0, 0, 0}
	for {
		i := bytes.Index(b, mark)
		if i < 0 {
			return false
		}
		if kind, payload, err := parseFrame(b[i:]); err == nil && kind == frameHead {
			head := parseHead(payload, l.id.origin)
			if head.Size > size && verifyHead(payload, head, l.id.verifier) == nil {
				return true
			}
		}
		b = b[i+1:]
	}
}

func (l *Ledger) scanFile(name string, visit func(frame, *segmentScan) error) (segmentScan, error) {
	f, err := l.fs.OpenFile(filepath.Join(l.opts.Dir, name), os.O_RDONLY, 0)
	if err != nil {
		return segmentScan{}, fmt.Errorf("open segment: %w", err)
	}
	s := scan(f, visit)
	if errors.Is(s.fault, errRead) {
		return s, errors.Join(fmt.Errorf("read %s: %w", name, s.fault), f.Close())
	}
	return s, f.Close()
}
