// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// FS is what the ledger asks of a file system for its segments.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	ReadDir(dir string) ([]fs.DirEntry, error)
	Remove(name string) error
	Rename(from, to string) error
	// SyncDir makes what was created, renamed and removed in dir durable.
	SyncDir(dir string) error
}

// File is an open segment.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Seeker
	io.Closer
	Truncate(size int64) error
	// Sync makes the contents durable, as fdatasync(2).
	Sync() error
}

// OS is the operating system's file system.
type OS struct{}

// OpenFile opens a file as os.OpenFile does.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm) //nolint:gosec // the directory is the operator's
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// ReadDir lists a directory as os.ReadDir does.
func (OS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// Remove removes a file.
func (OS) Remove(name string) error { return os.Remove(name) }

// Rename renames a file over another.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir syncs a directory.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the directory is the operator's
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct{ *os.File }

// Sync fails for a file that was removed too: what is written to it survives nothing,
// though every write and sync of it goes well.
func (f osFile) Sync() error {
	if err := fdatasync(f.File); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink == 0 {
		return fmt.Errorf("%s was removed: %w", f.Name(), fs.ErrNotExist)
	}
	return nil
}

// lockDir makes dir if need be, and takes it for this process. The lock goes with
// the process, however that ends.
func lockDir(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make ledger directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // descriptors are small
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return func() error {
		// To close it is not enough: a child that is being started has it open too,
		// until it runs its program.
		return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close()) //nolint:gosec // descriptors are small
	}, nil
}
