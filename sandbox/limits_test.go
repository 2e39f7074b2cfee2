// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
)

// TestLimitsEndARun runs what goes over one limit; outside, each does what it wants to its end.
func TestLimitsEndARun(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	tests := []struct {
		name   string
		args   []string
		limits sandbox.Limits
		want   error
		limit  sandbox.Limit
		// endless attempts have no control run.
		endless bool
	}{
		{
			name: "memory held by one process", args: []string{"memory", "200"},
			limits: sandbox.Limits{Memory: 64 << 20}, want: sandbox.ErrMemory, limit: sandbox.LimitMemory,
		},
		{
			name: "shared memory, which no limit on private data counts", args: []string{"shared_memory", "200"},
			limits: sandbox.Limits{Memory: 64 << 20}, want: sandbox.ErrMemory, limit: sandbox.LimitMemory,
		},
		{
			name: "processes that wait", args: []string{"processes", "12"},
			limits: sandbox.Limits{Processes: 16}, want: sandbox.ErrProcesses, limit: sandbox.LimitProcesses,
		},
		{
			name: "many files", args: []string{"many_files", "300", "1"},
			limits: sandbox.Limits{DiskEntries: 100}, want: sandbox.ErrDisk, limit: sandbox.LimitDisk,
		},
		{
			name: "files that are large together", args: []string{"many_files", "16", "512"},
			limits: sandbox.Limits{Disk: 2 << 20, FileSize: 1 << 20}, want: sandbox.ErrDisk, limit: sandbox.LimitDisk,
		},
		{
			name: "a flood on standard output", args: []string{"flood", "1", "3000000"},
			want: sandbox.ErrOutput, limit: sandbox.LimitOutput,
		},
		{
			name: "a flood on standard error", args: []string{"flood", "2", "3000000"},
			want: sandbox.ErrOutput, limit: sandbox.LimitOutput,
		},
		{
			name: "a processor kept busy", args: []string{"spin"},
			limits: sandbox.Limits{CPU: 300 * time.Millisecond}, want: sandbox.ErrCPU, limit: sandbox.LimitCPU, endless: true,
		},
		{
			name: "time spent waiting", args: []string{"wait"},
			limits: sandbox.Limits{Wall: 300 * time.Millisecond}, want: sandbox.ErrTimeout, limit: sandbox.LimitWall, endless: true,
		},
		{
			name: "a program that ignores SIGTERM", args: []string{"ignore_sigterm"},
			limits: sandbox.Limits{Wall: 300 * time.Millisecond, Grace: 100 * time.Millisecond},
			want:   sandbox.ErrTimeout, limit: sandbox.LimitWall, endless: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.endless {
				if code, stderr := outside(t, tt.args...); code != 0 {
					t.Fatalf("outside it does not work either, so nothing is proven: exit %d, %.200s", code, stderr)
				}
			}
			s := attempt(tt.args...)
			s.Limits = tt.limits
			res, err := r.Run(t.Context(), s)
			if !errors.Is(err, tt.want) || res.Limit != tt.limit {
				t.Fatalf("Run = %v, limit %v, exit %d %s; want %v, limit %v\nstderr: %.200s",
					err, res.Limit, res.ExitCode, res.Signal, tt.want, tt.limit, res.Stderr)
			}
			if res.Wall > 8*time.Second {
				t.Errorf("it took %v", res.Wall)
			}
			if alive := aliveWith(t, victim()+"\x00"+tt.args[0]); len(alive) != 0 {
				t.Errorf("still alive: %v", alive)
			}
		})
	}
}

func TestTheKernelHoldsWhatIsNotPolled(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	tests := []struct {
		name   string
		spec   sandbox.Spec
		limits sandbox.Limits
		want   error
	}{
		{
			"a file that is too large kills its writer",
			sandbox.Spec{Path: "/bin/dd", Args: []string{"if=/dev/zero", "of=f", "bs=65536", "count=64"}},
			sandbox.Limits{FileSize: 1 << 20},
			sandbox.ErrFileSize,
		},
		{
			"a file of the limit's size is written",
			sandbox.Spec{Path: "/bin/dd", Args: []string{"if=/dev/zero", "of=f", "bs=65536", "count=16"}},
			sandbox.Limits{FileSize: 1 << 20},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.spec
			s.Limits = tt.limits
			res, err := r.Run(t.Context(), s)
			if !errors.Is(err, tt.want) {
				t.Errorf("Run = %v, exit %d %s, want %v\nstderr: %s", err, res.ExitCode, res.Signal, tt.want, res.Stderr)
			}
		})
	}
	t.Run("an allocation beyond the limit fails in the program", func(t *testing.T) {
		t.Parallel()
		s := sandbox.Spec{Path: "/usr/bin/python3", Args: []string{"-c", "bytearray(1 << 30)"}}
		res := mustRun(t, r, s)
		if res.ExitCode != 1 || !strings.Contains(string(res.Stderr), "MemoryError") {
			t.Errorf("exit %d, stderr %s; want a MemoryError", res.ExitCode, res.Stderr)
		}
	})
	t.Run("descriptors beyond the limit are not opened", func(t *testing.T) {
		t.Parallel()
		if code, stderr := outside(t, "open_files", "64"); code != 0 {
			t.Fatalf("outside it does not work either: %s", stderr)
		}
		s := attempt("open_files", "64")
		s.Limits.OpenFiles = 32
		if res := mustRun(t, r, s); res.ExitCode != 3 || !strings.Contains(string(res.Stderr), "too many open files") {
			t.Errorf("exit %d, stderr %s", res.ExitCode, res.Stderr)
		}
	})
}

// TestForkBombIsEnded runs the real one, which has no harmless control run.
func TestForkBombIsEnded(t *testing.T) {
	r := newRunner(t, func(o *sandbox.Options) { o.MaxProcesses = 128 })
	s := sandbox.Spec{
		Path:     "/bin/sh",
		Args:     []string{"-c", "bomb() { bomb | bomb & }; bomb; sleep 10"},
		ReadOnly: []string{"/bin/sleep"},
		Limits:   sandbox.Limits{Wall: 5 * time.Second, CPU: 5 * time.Second},
	}
	res, err := r.Run(t.Context(), s)
	if !errors.Is(err, sandbox.ErrProcesses) {
		t.Errorf("Run = %v after %v, want %v\nstderr: %.300s", err, res.Wall, sandbox.ErrProcesses, res.Stderr)
	}
	if alive := aliveWith(t, "bomb() {"); len(alive) != 0 {
		t.Errorf("%d still alive", len(alive))
	}
}

func TestOutputAtItsLimit(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	const limit = 100_000
	for _, stream := range []string{"1", "2"} {
		for _, tt := range []struct {
			name string
			n    int
			keep int
			want error
		}{
			{"one byte less is kept whole", limit - 1, limit - 1, nil},
			{"the limit itself is kept whole", limit, limit, nil},
			{"one byte more ends the run", limit + 1, limit, sandbox.ErrOutput},
		} {
			t.Run(tt.name+" on descriptor "+stream, func(t *testing.T) {
				t.Parallel()
				s := attempt("flood", stream, strconv.Itoa(tt.n))
				s.Limits.Output = limit
				res, err := r.Run(t.Context(), s)
				if !errors.Is(err, tt.want) {
					t.Fatalf("Run = %v, want %v", err, tt.want)
				}
				out, other := res.Stdout, res.Stderr
				if stream == "2" {
					out, other = res.Stderr, res.Stdout
				}
				if len(out) != tt.keep || len(other) != 0 {
					t.Errorf("kept %d and %d bytes, want %d and 0", len(out), len(other), tt.keep)
				}
			})
		}
	}
}

func TestCancelledContextEndsARun(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the caller went away")
	s := attempt("ignore_sigterm")
	s.Progress = func([]byte) { cancel(reason) }
	res, err := r.Run(ctx, s)
	if !errors.Is(err, reason) || res.Limit != sandbox.LimitNone {
		t.Errorf("Run = %v, limit %v, want %v", err, res.Limit, reason)
	}
	if _, err := r.Run(ctx, s); !errors.Is(err, reason) {
		t.Errorf("Run after the end of its context = %v, want %v", err, reason)
	}
}

// TestTermsAreGraceful holds that a program that heeds SIGTERM may say its last word.
func TestTermsAreGraceful(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	s := sandbox.Spec{
		Path:   "/bin/sh",
		Args:   []string{"-c", `trap 'echo tidied; exit 7' TERM; while :; do :; done`},
		Limits: sandbox.Limits{Wall: 300 * time.Millisecond, Grace: 5 * time.Second, CPU: 20 * time.Second},
	}
	res, err := r.Run(t.Context(), s)
	if !errors.Is(err, sandbox.ErrTimeout) || string(res.Stdout) != "tidied\n" || res.ExitCode != 7 {
		t.Errorf("Run = %v, exit %d, stdout %q", err, res.ExitCode, res.Stdout)
	}
	if res.Wall > 4*time.Second {
		t.Errorf("it took %v, though the program ended at once", res.Wall)
	}
}

func TestScratchOfAnyShapeIsRemoved(t *testing.T) {
	t.Parallel()
	r := newRunner(t) // its clean-up fails if anything stays
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"directories deeper than any path", []string{"deep_dirs", "600"}},
		{"directories without permissions", []string{"locked_dirs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := attempt(tt.args...)
			s.Limits.DiskEntries = 1 << 20
			res, err := r.Run(t.Context(), s)
			// Hidden or too deep to be measured counts as too much, if it was looked at in time.
			if err != nil && !errors.Is(err, sandbox.ErrDisk) || err == nil && res.ExitCode != 0 {
				t.Errorf("Run = %v, exit %d, stderr %s", err, res.ExitCode, res.Stderr)
			}
		})
	}
}

func TestBadSpecsStartNothing(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	ok := attempt("exit", "0")
	change := func(f func(*sandbox.Spec)) sandbox.Spec {
		s := ok
		f(&s)
		return s
	}
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, []byte("not a program"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		spec sandbox.Spec
		want error
	}{
		{"no path", sandbox.Spec{}, sandbox.ErrSpec},
		{"a relative path", sandbox.Spec{Path: "bin/true"}, sandbox.ErrSpec},
		{"a path with dots", sandbox.Spec{Path: "/bin/../bin/true"}, sandbox.ErrSpec},
		{"a path with a NUL", sandbox.Spec{Path: "/bin/true\x00"}, sandbox.ErrSpec},
		{"a relative directory", change(func(s *sandbox.Spec) { s.Dir = "x" }), sandbox.ErrSpec},
		{"a relative readable path", change(func(s *sandbox.Spec) { s.ReadOnly = []string{"x"} }), sandbox.ErrSpec},
		{"a relative writable path", change(func(s *sandbox.Spec) { s.ReadWrite = []string{"x"} }), sandbox.ErrSpec},
		{"an argument with a NUL", change(func(s *sandbox.Spec) { s.Args = []string{"a\x00b"} }), sandbox.ErrSpec},
		{"an environment entry without a name", change(func(s *sandbox.Spec) { s.Env = []string{"=x"} }), sandbox.ErrSpec},
		{"an environment entry without a value", change(func(s *sandbox.Spec) { s.Env = []string{"x"} }), sandbox.ErrSpec},
		{"a negative limit", change(func(s *sandbox.Spec) { s.Limits.Wall = -1 }), sandbox.ErrSpec},
		{"too little memory", change(func(s *sandbox.Spec) { s.Limits.Memory = 1 }), sandbox.ErrSpec},
		{"too few descriptors", change(func(s *sandbox.Spec) { s.Limits.OpenFiles = 1 }), sandbox.ErrSpec},
		{"a missing program", sandbox.Spec{Path: "/nothing/here"}, sandbox.ErrStart},
		{"a directory as program", sandbox.Spec{Path: "/usr"}, sandbox.ErrStart},
		{"a file that is no program", sandbox.Spec{Path: plain}, sandbox.ErrStart},
		{"a missing directory", change(func(s *sandbox.Spec) { s.Dir = "/nothing/here" }), sandbox.ErrStart},
		{"a file as directory", change(func(s *sandbox.Spec) { s.Dir = plain }), sandbox.ErrStart},
		{"a missing readable path", change(func(s *sandbox.Spec) { s.ReadOnly = []string{"/nothing"} }), sandbox.ErrStart},
		{"more arguments than the kernel takes", change(func(s *sandbox.Spec) {
			s.Args = []string{"print", strings.Repeat("x", 1<<20)}
		}), sandbox.ErrStart},
		{"more than a plan holds", change(func(s *sandbox.Spec) {
			s.Args = []string{"print", strings.Repeat("x", 16<<20)}
		}), sandbox.ErrStart},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res, err := r.Run(t.Context(), tt.spec)
			if !errors.Is(err, tt.want) || res.ExitCode == 0 {
				t.Errorf("Run = exit %d, %v, want %v", res.ExitCode, err, tt.want)
			}
		})
	}
}
