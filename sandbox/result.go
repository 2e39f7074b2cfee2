// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"time"
)

// Result is what a run left. It is meaningful beside an error too: what the program had written until
// then, and what it used.
type Result struct {
	// ExitCode is the program's own, or -1 when a signal ended it or it never ran.
	ExitCode int
	// Signal names what ended the program, "SIGSEGV" say, or is empty.
	Signal string
	// Stdout and Stderr hold at most Limits.Output bytes each.
	Stdout, Stderr []byte
	// Wall is the time from the launch to the end of the last process of the tree.
	Wall time.Duration
	// CPU and MaxRSS are of the program and the children it waited for. The launcher's own start is in
	// them: about 2 ms, 3 MB.
	CPU    time.Duration
	MaxRSS int64
	// Limit is the limit that ended the run, if one did.
	Limit Limit
}

// Limit names one of the limits of a run.
type Limit uint8

// The limits.
const (
	// LimitNone is no limit: the program ended by itself or was cancelled.
	LimitNone Limit = iota
	// LimitWall is Limits.Wall.
	LimitWall
	// LimitCPU is Limits.CPU.
	LimitCPU
	// LimitMemory is Limits.Memory.
	LimitMemory
	// LimitProcesses is Limits.Processes.
	LimitProcesses
	// LimitOpenFiles is Limits.OpenFiles. It never ends a run: opening fails in the program.
	LimitOpenFiles
	// LimitFileSize is Limits.FileSize.
	LimitFileSize
	// LimitDisk is Limits.Disk or Limits.DiskEntries.
	LimitDisk
	// LimitOutput is Limits.Output.
	LimitOutput
)

var limitNames = [...]string{
	"none", "wall", "cpu", "memory", "processes", "open_files", "file_size", "disk", "output",
}

// String names the limit in one word.
func (l Limit) String() string {
	if int(l) < len(limitNames) {
		return limitNames[l]
	}
	return "unknown"
}

// The errors of Run and New. A program that ran to its end is no error, whatever its exit code.
var (
	// ErrTimeout says that the wall clock ended the run.
	ErrTimeout = errors.New("sandbox: wall clock limit reached")
	// ErrCPU says that the limit on processor time ended the run.
	ErrCPU = errors.New("sandbox: processor time limit reached")
	// ErrMemory says that the tree held more memory than its limit. An allocation that failed at the
	// kernel's limit without the tree having held that much is seen as the program's own failure only.
	ErrMemory = errors.New("sandbox: memory limit reached")
	// ErrProcesses says that the tree had more processes and threads than its limit.
	ErrProcesses = errors.New("sandbox: process limit reached")
	// ErrFileSize says that the program was killed for writing a file beyond the limit. A program that
	// ignores SIGXFSZ sees EFBIG instead and ends as it likes.
	ErrFileSize = errors.New("sandbox: file size limit reached")
	// ErrDisk says that the private directory held more than its limit.
	ErrDisk = errors.New("sandbox: disk limit reached")
	// ErrOutput says that the program wrote more than its limit to standard output or standard error.
	ErrOutput = errors.New("sandbox: output limit reached")
	// ErrSpec says that the Spec is not one that can be run; nothing was started.
	ErrSpec = errors.New("sandbox: bad spec")
	// ErrStart says that the program did not start: it is missing, not executable, not readable under the
	// sandbox, or a wall could not be put up. Nothing of it ran.
	ErrStart = errors.New("sandbox: program not started")
	// ErrUnavailable says that this system does not give the tier that was asked for.
	ErrUnavailable = errors.New("sandbox: not available on this system")
	// ErrLeftover says that something could not be cleared away within its time: a process that does not
	// die, or the private directory. The Result stands.
	ErrLeftover = errors.New("sandbox: something was left behind")
)

// err is the sentinel of a limit; LimitNone and LimitOpenFiles end no run and have none.
func (l Limit) err() error {
	switch l {
	case LimitWall:
		return ErrTimeout
	case LimitCPU:
		return ErrCPU
	case LimitMemory:
		return ErrMemory
	case LimitProcesses:
		return ErrProcesses
	case LimitFileSize:
		return ErrFileSize
	case LimitDisk:
		return ErrDisk
	case LimitOutput:
		return ErrOutput
	case LimitNone, LimitOpenFiles:
	}
	return nil
}
