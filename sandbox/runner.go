// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-dev/writ/sandbox/internal/enter"
	"golang.org/x/sys/unix"
)

// Runner runs programs under the walls of one tier. It is safe for use by several goroutines.
type Runner struct {
	options  Options
	report   Report
	user     User
	own      bool
	filter   []byte
	launcher *os.File
	hard     map[int]uint64 // the agent's own hard limits, which nothing can raise
	watcher  watcher

	mu      sync.Mutex
	others  int       // guarded by mu; threads the user had beside runs
	counted time.Time // guarded by mu; when others was counted
}

// launchable is set when the running program has shown that it can be its own launcher.
var launchable atomic.Bool

// MaybeLaunch becomes the program of a plan if this process was started as a launcher, and otherwise
// returns. A program that has no separate launcher MUST call it first thing in main (and in TestMain),
// before it parses flags or starts goroutines.
func MaybeLaunch() {
	if len(os.Args) == 1 && os.Args[0] == enter.Name {
		enter.Main()
	}
	launchable.Store(true)
}

// New probes the system, tries the walls on a process of its own, and returns a Runner, or ErrUnavailable
// with the reasons: it never falls back to less.
func New(o Options) (*Runner, error) {
	if o.MaxProcesses < 0 {
		return nil, fmt.Errorf("%w: MaxProcesses is negative", ErrSpec)
	}
	orDefault(&o.MaxProcesses, 256)
	if o.Scratch == "" {
		o.Scratch = os.TempDir()
	}
	u, own := toolUser(o.User)
	r := &Runner{options: o, user: u, own: own, report: probe(u, own)}
	if r.report.Tier < T1 {
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, strings.Join(r.report.Reasons, "; "))
	}
	var err error
	if r.filter, err = filter(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if r.hard, err = hardLimits(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if r.launcher, err = openLauncher(o.Launcher); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := r.check(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Report is what New found.
func (r *Runner) Report() Report { return r.report }

// Close gives back what the Runner holds open. No Run may be under way or follow.
func (r *Runner) Close() error { return r.launcher.Close() }

// check sends a process behind the walls that tries to get out.
func (r *Runner) check() error {
	s, err := Spec{Path: "/"}.complete()
	if err != nil {
		return err
	}
	c := &call{runner: r, spec: s, mode: enter.Check}
	res, err := c.run(context.Background())
	if err != nil {
		return fmt.Errorf("%w: trying the walls: %w", ErrUnavailable, err)
	}
	if res.ExitCode != 0 {
		return fmt.Errorf("%w: a wall does not hold: %s", ErrUnavailable,
			strings.ReplaceAll(strings.TrimSpace(string(res.Stdout)), "\n", ", "))
	}
	return nil
}

// launcherFD is the least descriptor for the launcher, above those that a child is given.
const launcherFD = 16

// openLauncher pins the launcher: what is installed in its place later is not started, and no directory on
// the way needs to be open to the user that programs run as.
func openLauncher(path string) (*os.File, error) {
	if path == "" {
		path = findLauncher()
	}
	if path == "" {
		return nil, fmt.Errorf("no launcher: %s is not beside this program, and this program does not call sandbox.MaybeLaunch",
			LauncherName)
	}
	low, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("launcher %s: %w", path, err)
	}
	defer unix.Close(low)
	fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, launcherFD)
	if err != nil {
		return nil, fmt.Errorf("launcher %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func findLauncher() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), LauncherName)
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
			return beside
		}
	}
	if launchable.Load() {
		return "/proc/self/exe"
	}
	return ""
}

// limited are the resources that a run has a limit on, in the order they are set: those that can starve
// the launcher's own runtime last.
var limited = [...]int{
	unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_FSIZE, unix.RLIMIT_NOFILE,
	unix.RLIMIT_STACK, unix.RLIMIT_CPU, unix.RLIMIT_NPROC, unix.RLIMIT_DATA,
}

func hardLimits() (map[int]uint64, error) {
	hard := make(map[int]uint64, len(limited))
	for _, resource := range limited {
		var rl unix.Rlimit
		if err := unix.Prlimit(0, resource, nil, &rl); err != nil {
			return nil, fmt.Errorf("reading the agent's limits: %w", err)
		}
		hard[resource] = rl.Max
	}
	return hard, nil
}

// unusedMemory is how much more than Memory a process may ask for: the kernel counts what is asked for, we
// poll what is used, and stacks of threads and the heaps of runtimes are asked for long before. So what
// grows is usually ended by the limit's name, and not by a failed allocation of its own.
const unusedMemory = 64 << 20

// stackSize is what a program's first stack may grow to, the usual default.
const stackSize = 8 << 20

// resourceLimits are what the kernel is asked to hold.
func (r *Runner) resourceLimits(l Limits) []enter.Limit {
	ceiling := r.processCeiling(l.Processes)
	seconds := uint64((l.CPU + time.Second - 1) / time.Second)
	want := map[int][2]uint64{
		unix.RLIMIT_FSIZE:  {uint64(l.FileSize), uint64(l.FileSize)},
		unix.RLIMIT_NOFILE: {uint64(l.OpenFiles), uint64(l.OpenFiles)},
		unix.RLIMIT_STACK:  {stackSize, stackSize},
		// SIGXCPU at the first, SIGKILL at the second.
		unix.RLIMIT_CPU:   {seconds, seconds + 1},
		unix.RLIMIT_NPROC: {ceiling, ceiling},
		unix.RLIMIT_DATA:  {uint64(l.Memory + unusedMemory), uint64(l.Memory + unusedMemory)},
	}
	out := make([]enter.Limit, 0, len(limited))
	for _, resource := range limited {
		w := want[resource] // zero for core, memlock, msgqueue
		out = append(out, enter.Limit{
			Resource: resource,
			Soft:     min(w[0], r.hard[resource]),
			Hard:     min(w[1], r.hard[resource]),
		})
	}
	return out
}

// recount is how long a count of the user's threads is good for.
const recount = 30 * time.Second

// processCeiling is the number of threads at which the kernel refuses the user another, for a run that may
// have so many itself.
func (r *Runner) processCeiling(own int) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.counted) > recount {
		r.others, r.counted = threadsOf(r.user.UID), now
	}
	return uint64(r.others + max(r.options.MaxProcesses, own))
}
