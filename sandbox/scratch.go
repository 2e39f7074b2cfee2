// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scratch is the private directory of one run.
type scratch struct{ path string }

// newScratch makes a directory that only the tool's user (and root) may enter.
func newScratch(base string, u User, own bool) (*scratch, error) {
	path, err := os.MkdirTemp(base, "writ-")
	if err != nil {
		return nil, fmt.Errorf("%w: making the private directory: %w", ErrStart, err)
	}
	if own {
		if err := os.Lchown(path, u.UID, u.GID); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: giving the private directory away: %w", ErrStart, err), os.Remove(path))
		}
	}
	return &scratch{path}, nil
}

// exceeds reports whether the directory holds more than it may. The program works in it meanwhile, so
// entries come and go; a directory the agent cannot look into, and a path too long to follow, hide what
// they hold and count as too much.
func (s *scratch) exceeds(bytes int64, entries int) bool {
	over := errors.New("over")
	err := filepath.WalkDir(s.path, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if entries--; entries < -1 { // the directory itself is one
			return over
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && d.Type().IsRegular() {
			bytes -= st.Blocks * 512
		}
		if bytes < 0 {
			return over
		}
		return nil
	})
	return err != nil
}

// sweepTime bounds the removal of one private directory.
const sweepTime = 5 * time.Second

// remove takes the directory away with all it holds. No process of the run may be alive.
func (s *scratch) remove() error {
	root, err := os.OpenFile(s.path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Chmod(0o700); err != nil {
		return err
	}
	w := sweeper{root: root, deadline: time.Now().Add(sweepTime)}
	if err := w.empty(root, w.clear); err != nil {
		return err
	}
	return os.Remove(s.path)
}

// sweeper empties a tree of any depth with two descriptors and no recursion: what lies two levels down is
// moved up into the root, so that depth costs a rename and not a stack.
type sweeper struct {
	root     *os.File
	moved    int
	deadline time.Time
}

// sweepBatch is how many names are read at a time.
const sweepBatch = 512

// empty removes the files in dir and calls subdir for each directory in it, until none is left.
func (w *sweeper) empty(dir *os.File, subdir func(name string) error) error {
	for {
		if time.Now().After(w.deadline) {
			return os.ErrDeadlineExceeded
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(sweepBatch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := w.drop(dir, name, subdir); err != nil {
				return err
			}
		}
	}
}

func (w *sweeper) drop(dir *os.File, name string, subdir func(string) error) error {
	switch err := unix.Unlinkat(int(dir.Fd()), name, 0); err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM:
		return subdir(name)
	default:
		return err
	}
}

// clear empties and removes a directory in the root, moving its directories up beside it.
func (w *sweeper) clear(name string) error {
	root := int(w.root.Fd())
	if err := unix.Fchmodat(root, name, 0o700, 0); err != nil {
		return err
	}
	fd, err := unix.Openat(root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if err := w.empty(dir, func(sub string) error { return w.lift(dir, sub) }); err != nil {
		return err
	}
	return unix.Unlinkat(root, name, unix.AT_REMOVEDIR)
}

// lift moves a directory up into the root under a name that is free there.
func (w *sweeper) lift(dir *os.File, name string) error {
	// A directory that moves has its ".." rewritten, which needs the right to write in it.
	if err := unix.Fchmodat(int(dir.Fd()), name, 0o700, 0); err != nil {
		return err
	}
	for {
		w.moved++
		err := unix.Renameat2(int(dir.Fd()), name, int(w.root.Fd()), ".lifted-"+strconv.Itoa(w.moved), unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return err
		}
	}
}
