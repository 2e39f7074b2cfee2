// SPDX-License-Identifier: Apache-2.0

package command

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// maxProgram bounds a program that is hashed, so that no call waits on it.
const maxProgram = 1 << 30

// program is the file that a tool runs.
type program struct {
	path  string // absolute, without symbolic links
	state state
}

// state tells a file from another, and from itself with other content: the
// change time cannot be set back by who may write to it.
type state struct {
	device, inode    uint64
	size             int64
	changed, changes unix.Timespec
}

// digests remembers what was hashed, so that a program is read once and not at
// each call.
type digests struct {
	mu  sync.Mutex // guards of
	sum map[state]string
}

// open finds a tool's program, and checks that it is the one that was reviewed.
func (e *Executor) open(options *writv1.CommandExecutor) (*program, error) {
	path, err := resolve(e.dir, options.GetPath())
	if err != nil {
		return nil, err
	}
	if err := guarded(path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tools.ErrFailed, err)
	}
	defer func() { _ = file.Close() }() // read only: nothing to lose
	state, err := stateOf(file)
	if err != nil {
		return nil, err
	}
	if pin := options.GetSha256(); pin != "" {
		sum, err := e.digests.of(file, state)
		if err != nil {
			return nil, err
		}
		if sum != pin {
			return nil, fmt.Errorf("%w: %s has another SHA-256 than the bundle says", tools.ErrProgramChanged, path)
		}
	}
	return &program{path: path, state: state}, nil
}

// resolve returns the program's path without symbolic links. One that is given
// relative to the bundle stays in the bundle, wherever links would lead.
func resolve(dir, path string) (string, error) {
	absolute := path
	if !filepath.IsAbs(path) {
		if !filepath.IsLocal(path) {
			return "", fmt.Errorf("%w: the program's path leads out of the bundle", tools.ErrFailed)
		}
		absolute = filepath.Join(dir, path)
	}
	real, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return "", fmt.Errorf("%w: %w", tools.ErrFailed, err)
	}
	if filepath.IsAbs(path) {
		return real, nil
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", tools.ErrFailed, err)
	}
	if inside, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(inside) {
		return "", fmt.Errorf("%w: the program's path leads out of the bundle", tools.ErrFailed)
	}
	return real, nil
}

// guarded refuses a program that everybody may change: the file itself, or a
// directory above it in which everybody may put another in its place.
func guarded(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("%w: %w", tools.ErrFailed, err)
		}
		shared := info.Mode().Perm()&0o002 != 0
		if shared && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("%w: everybody may write to %s", tools.ErrProgramChanged, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// reachable says whether a user may execute the program and enter every directory
// above it, as far as the permission bits tell.
func reachable(path string, uid, gid uint32) error {
	for at := path; ; at = filepath.Dir(at) {
		var s unix.Stat_t
		if err := unix.Stat(at, &s); err != nil {
			return fmt.Errorf("%w: stat %s: %w", tools.ErrFailed, at, err)
		}
		execute := uint32(0o001)
		switch {
		case s.Uid == uid:
			execute = 0o100
		case s.Gid == gid:
			execute = 0o010
		}
		if s.Mode&execute == 0 {
			return fmt.Errorf("%w: user %d, as whom programs run, may not pass %s", tools.ErrFailed, uid, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// stateOf returns the state of an open program, which must be a regular file that
// somebody may execute.
func stateOf(file *os.File) (state, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		return state{}, fmt.Errorf("%w: stat the program: %w", tools.ErrFailed, err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFREG || s.Mode&0o111 == 0 {
		return state{}, fmt.Errorf("%w: %s is not an executable file", tools.ErrFailed, file.Name())
	}
	return state{device: uint64(s.Dev), inode: s.Ino, size: s.Size, changed: s.Mtim, changes: s.Ctim}, nil
}

// unchanged says whether the program is still the file that was opened.
func (p *program) unchanged() error {
	file, err := os.OpenFile(p.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", tools.ErrProgramChanged, err)
	}
	defer func() { _ = file.Close() }() // read only: nothing to lose
	if now, err := stateOf(file); err != nil || now != p.state {
		return fmt.Errorf("%w: %s was changed while it ran", tools.ErrProgramChanged, p.path)
	}
	return nil
}

// of returns the SHA-256 of an open file in the state it was found in.
func (d *digests) of(file *os.File, found state) (string, error) {
	d.mu.Lock()
	sum, known := d.sum[found]
	d.mu.Unlock()
	if known {
		return sum, nil
	}
	hash := sha256.New()
	if n, err := io.Copy(hash, io.LimitReader(file, maxProgram+1)); err != nil || n > maxProgram {
		return "", fmt.Errorf("%w: the program cannot be hashed, or has more than %d bytes", tools.ErrFailed, maxProgram)
	}
	if now, err := stateOf(file); err != nil || now != found {
		return "", fmt.Errorf("%w: %s was changed while it was hashed", tools.ErrProgramChanged, file.Name())
	}
	sum = hex.EncodeToString(hash.Sum(nil))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sum[found] = sum
	return sum, nil
}
