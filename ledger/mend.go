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
)

// mend tries to make an unavailable ledger available again, and says whether it is.
// It neither trusts the file that failed nor syncs it a second time (the kernel may
// have dropped the pages and called them clean): it reads back what was answered,
// verifies it against the tree in memory, and writes it to a new file.
func (l *Ledger) mend() bool {
	if !l.down.Load() {
		return true
	}
	file, err := l.rewrite()
	if err != nil {
		l.mu.Lock()
		l.failure = fmt.Errorf("%w: %w", ErrUnavailable, err)
		l.mu.Unlock()
		return false
	}
	l.mu.Lock()
	old := l.file
	l.file, l.failure = file, nil
	l.durable = l.size
	l.rewrites++
	l.notify()
	l.mu.Unlock()
	l.down.Store(false)
	_ = old.Close() // it has failed, and nothing in it is needed any more
	if l.opts.OnState != nil {
		l.opts.OnState(nil)
	}
	return true
}

// rewrite writes the last segment, up to what was answered, to a new file in the
// place of the old one.
func (l *Ledger) rewrite() (File, error) {
	if err := l.removeStrays(); err != nil {
		return nil, err
	}
	return l.writeAnew(l.current(), nil)
}

// writeAnew writes the first s.bytes of a segment, which hold the records of the tree in
// memory, and end after them, to a new file in the place of the old one.
func (l *Ledger) writeAnew(s segment, end []byte) (File, error) {
	name := filepath.Join(l.opts.Dir, s.name)
	f, err := l.fs.OpenFile(name+tempSuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write %s anew: %w", s.name, err)
	}
	if err := l.fill(f, s, end); err != nil {
		// It takes room that may be what is missing; the next try removes it too.
		return nil, errors.Join(fmt.Errorf("write %s anew: %w", s.name, err), f.Close(), l.fs.Remove(name+tempSuffix))
	}
	err = l.fs.Rename(name+tempSuffix, name)
	if err == nil {
		err = l.fs.SyncDir(l.opts.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s anew: %w", s.name, err), f.Close())
	}
	return f, nil
}

// fill writes and syncs what a segment holds and how it ends.
func (l *Ledger) fill(f File, s segment, end []byte) error {
	old, err := l.fs.OpenFile(filepath.Join(l.opts.Dir, s.name), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer old.Close() //nolint:errcheck // read only
	if err := l.copyVerified(f, old, s); err != nil {
		return err
	}
	if _, err := f.Write(end); err != nil {
		return err
	}
	return f.Sync()
}

// copyVerified copies the answered part of a segment, and fails unless it holds
// exactly the records of the tree in memory.
func (l *Ledger) copyVerified(to io.Writer, from io.Reader, s segment) error {
	found := scan(io.TeeReader(io.LimitReader(from, s.bytes), to), nil)
	switch {
	case found.fault != nil:
		return fmt.Errorf("copy segment: %w", found.fault)
	case found.offset != s.bytes || found.tree.size != l.tree.size || found.tree.root() != l.tree.root():
		return fmt.Errorf("%w: %s does not read back as it was written", ErrCorrupt, s.name)
	default:
		return nil
	}
}

// removeStrays removes segments that were begun and never became the ledger's.
func (l *Ledger) removeStrays() error {
	found, left, err := listSegments(l.fs, l.opts.Dir)
	if err != nil {
		return err
	}
	l.mu.Lock()
	own := slices.Clone(l.segments)
	l.mu.Unlock()
	for _, s := range found {
		if !slices.ContainsFunc(own, func(o segment) bool { return o.name == s.name }) {
			left = append(left, s.name)
		}
	}
	for _, name := range left {
		if err := l.fs.Remove(filepath.Join(l.opts.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return l.fs.SyncDir(l.opts.Dir)
}
