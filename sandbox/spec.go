// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Spec says what to run, with what, and under which limits. The zero value of every field but Path is
// safe: no arguments, an empty environment, a private directory, nothing readable but the program and the
// system's libraries, and the default limits.
type Spec struct {
	// Path is the program, absolute. It is executed as it is: no shell, no search. A script needs its
	// interpreter in ReadOnly.
	Path string
	// Args are the arguments after the program's name. They never pass through a shell.
	Args []string
	// Env is the whole environment, "NAME=value" each. Nothing is added to it and nothing of the agent's
	// own environment comes through.
	Env []string
	// Dir is the working directory. Empty means a private one, made for this call with mode 0700, writable
	// by the program and removed with all it holds when Run returns. A directory given here is entered but
	// may be read or written only as far as ReadOnly and ReadWrite say so.
	Dir string
	// Stdin is what the program reads; empty means the null device.
	Stdin []byte
	// ReadOnly are files and directories, with all beneath, that may be read and executed.
	ReadOnly []string
	// ReadWrite are files and directories, with all beneath, that may be read and changed, never executed.
	ReadWrite []string
	// JIT permits memory that is writable and executable, which most programs that compile while they run
	// need and others do not.
	JIT bool
	// Limits bound the call.
	Limits Limits
	// Progress, if set, is called with each line the program writes to standard error, as it arrives,
	// without its end, and cut to MaxProgressLine. Calls come one after another, from one goroutine, and
	// none comes after Run has returned. It MUST return quickly, for the program's output waits for it, and
	// MUST NOT keep the slice. What it is given is the program's: hostile.
	Progress func(line []byte)
}

// MaxProgressLine is the longest line that Progress is given; the rest of a longer one is dropped.
const MaxProgressLine = 4096

// Limits bound one run. Zero means the default beside each field; a negative value is refused.
type Limits struct {
	// Wall is the time from the launch to the end, 10 s.
	Wall time.Duration
	// Grace is the time between SIGTERM and SIGKILL when the wall clock or the context ends a run. Zero is
	// none: the program is killed at once. It comes on top of Wall.
	Grace time.Duration
	// CPU is the processor time of the whole tree, 10 s; each process is held to it by the kernel, rounded
	// up to a second, the tree by polling.
	CPU time.Duration
	// Memory is the private and shared memory of the whole tree in bytes, 256 MiB, by polling. The kernel
	// holds what each process asks for to 64 MiB more; at that an allocation fails, and what the program
	// makes of it is the program's matter.
	Memory int64
	// Processes is the number of processes and threads of the tree, 64, by polling; see
	// Options.MaxProcesses for what the kernel holds.
	Processes int
	// OpenFiles is the number of descriptors of each process, 64.
	OpenFiles int
	// FileSize is the size of any one file written, 16 MiB.
	FileSize int64
	// Disk is what the private directory may hold in bytes, 64 MiB, and DiskEntries in files and
	// directories, 4096, both by polling. Directories of ReadWrite are not measured.
	Disk        int64
	DiskEntries int
	// Output is what is kept of standard output, and again of standard error, 1 MiB. A program that writes
	// more is killed.
	Output int64
}

// minMemory is less than any runtime holds once it has started.
const minMemory = 8 << 20

func (l Limits) withDefaults() Limits {
	orDefault(&l.Wall, 10*time.Second)
	orDefault(&l.CPU, 10*time.Second)
	orDefault(&l.Memory, 256<<20)
	orDefault(&l.Processes, 64)
	orDefault(&l.OpenFiles, 64)
	orDefault(&l.FileSize, 16<<20)
	orDefault(&l.Disk, 64<<20)
	orDefault(&l.DiskEntries, 4096)
	orDefault(&l.Output, 1<<20)
	return l
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (l Limits) check() error {
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"wall", int64(l.Wall)},
		{"grace", int64(l.Grace)},
		{"cpu", int64(l.CPU)},
		{"memory", l.Memory},
		{"processes", int64(l.Processes)},
		{"open files", int64(l.OpenFiles)},
		{"file size", l.FileSize},
		{"disk", l.Disk},
		{"disk entries", int64(l.DiskEntries)},
		{"output", l.Output},
	} {
		if f.v < 0 {
			return fmt.Errorf("%w: limit %s is negative", ErrSpec, f.name)
		}
	}
	if l.Memory < minMemory {
		return fmt.Errorf("%w: limit memory is below %d MiB, which nothing starts with", ErrSpec, minMemory>>20)
	}
	if l.OpenFiles < 8 {
		return fmt.Errorf("%w: limit open files is below 8, which nothing starts with", ErrSpec)
	}
	return nil
}

// complete returns the spec with defaults in place, or says what is wrong with it. Values are not echoed:
// arguments and environment may be sensitive.
func (s Spec) complete() (Spec, error) {
	s.Limits = s.Limits.withDefaults()
	if err := s.Limits.check(); err != nil {
		return s, err
	}
	if err := checkPath("path", s.Path); err != nil {
		return s, err
	}
	if s.Dir != "" {
		if err := checkPath("dir", s.Dir); err != nil {
			return s, err
		}
	}
	for _, p := range s.ReadOnly {
		if err := checkPath("read-only path", p); err != nil {
			return s, err
		}
	}
	for _, p := range s.ReadWrite {
		if err := checkPath("read-write path", p); err != nil {
			return s, err
		}
	}
	return s, s.checkStrings()
}

func (s Spec) checkStrings() error {
	for i, a := range s.Args {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("%w: argument %d holds a NUL", ErrSpec, i+1)
		}
	}
	for i, e := range s.Env {
		if strings.IndexByte(e, 0) >= 0 || strings.IndexByte(e, '=') < 1 {
			return fmt.Errorf("%w: environment entry %d is not NAME=value", ErrSpec, i+1)
		}
	}
	return nil
}

func checkPath(what, p string) error {
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || strings.IndexByte(p, 0) >= 0 {
		return fmt.Errorf("%w: %s %q is not a clean absolute path", ErrSpec, what, p)
	}
	return nil
}
