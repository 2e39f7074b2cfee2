// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/writ-dev/writ/sandbox/internal/enter"
	"golang.org/x/sys/unix"
)

// call is one run. Its fields are the running goroutine's, except where a reader owns a capture until
// ended has been waited for.
type call struct {
	runner *Runner
	spec   Spec
	mode   enter.Mode

	scratch *scratch
	rules   *ruleset
	// child are the descriptors of the launcher, by their number there; closed once it has them.
	child []int
	// Our ends of its pipes; stdin is nil where there is nothing to write.
	stdin, stdout, stderr, status *os.File

	process *process
	streams streams
}

// furnish makes everything that the launcher is given.
func (c *call) furnish() error {
	if err := c.makeDir(); err != nil {
		return err
	}
	if err := c.makeRules(); err != nil {
		return err
	}
	return c.makeDescriptors()
}

func (c *call) makeDir() (err error) {
	if c.spec.Dir == "" {
		c.scratch, err = newScratch(c.runner.options.Scratch, c.runner.user, c.runner.own)
	}
	return err
}

func (c *call) makeRules() (err error) {
	if c.mode == enter.Check {
		c.rules, err = newRuleset(c.runner.report.LandlockABI)
		return err
	}
	c.rules, err = rulesetFor(c.runner.report.LandlockABI, c.spec, c.dir())
	return err
}

// dir is the private directory, or "".
func (c *call) dir() string {
	if c.scratch == nil {
		return ""
	}
	return c.scratch.path
}

// makeDescriptors opens what the launcher inherits, in the order of its numbers there.
func (c *call) makeDescriptors() error {
	for _, open := range [...]func() (int, error){
		0:               c.openStdin,
		1:               func() (int, error) { return pipeOut(&c.stdout) },
		2:               func() (int, error) { return pipeOut(&c.stderr) },
		enter.PlanFD:    c.writePlan,
		enter.StatusFD:  func() (int, error) { return pipeOut(&c.status) },
		enter.RulesetFD: func() (int, error) { return unix.FcntlInt(uintptr(c.rules.fd), unix.F_DUPFD_CLOEXEC, 0) },
		enter.DirFD:     c.openDir,
	} {
		fd, err := open()
		if fd >= 0 {
			c.child = append(c.child, fd)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStart, err)
		}
	}
	return nil
}

func (c *call) openStdin() (int, error) {
	if len(c.spec.Stdin) == 0 {
		return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return pipeIn(&c.stdin)
}

func (c *call) openDir() (int, error) {
	dir := c.spec.Dir
	if dir == "" {
		dir = c.scratch.path
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("working directory %s: %w", dir, err)
	}
	return fd, nil
}

// writePlan puts the plan into memory that only the launcher will read: arguments and environment may be
// sensitive, and stand in no file.
func (c *call) writePlan() (int, error) {
	plan := enter.Plan{
		Mode:           c.mode,
		Parent:         os.Getpid(),
		RefuseExecGain: c.runner.report.ExecGain && !c.spec.JIT,
		Path:           c.spec.Path,
		Args:           append([]string{c.spec.Path}, c.spec.Args...),
		Env:            c.spec.Env,
		Limits:         c.runner.resourceLimits(c.spec.Limits),
		Filter:         c.runner.filter,
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		return -1, fmt.Errorf("writing the plan: %w", err)
	}
	for b := plan.Encode(); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("writing the plan: %w", err)
		}
		b = b[n:]
	}
	return fd, nil
}

// pipeOut makes a pipe, keeps the reading end and returns the writing one.
func pipeOut(keep **os.File) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	return p[1], ours(keep, p[0])
}

// pipeIn makes a pipe, keeps the writing end and returns the reading one.
func pipeIn(keep **os.File) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	return p[0], ours(keep, p[1])
}

// ours makes a file with deadlines of our end; the other end stays blocking, as programs expect.
func ours(keep **os.File, fd int) error {
	err := unix.SetNonblock(fd, true)
	*keep = os.NewFile(uintptr(fd), "pipe")
	return err
}

// start starts the launcher and lets go of what is its own now.
func (c *call) start() (err error) {
	defer c.closeChild()
	files := make([]uintptr, len(c.child))
	for i, fd := range c.child {
		files[i] = uintptr(fd)
	}
	attr := &syscall.ProcAttr{
		// The launcher has a trusted environment; the program's own stands in the plan.
		Env:   []string{"GOTRACEBACK=none", "GOMAXPROCS=1", "GOGC=off"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if c.runner.own {
		u := c.runner.user
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	}
	launcher := "/proc/self/fd/" + strconv.Itoa(int(c.runner.launcher.Fd()))
	c.process, err = startProcess(launcher, []string{enter.Name}, attr)
	if err != nil {
		return fmt.Errorf("%w: starting the launcher: %w", ErrStart, err)
	}
	return nil
}

func (c *call) closeChild() {
	for _, fd := range c.child {
		_ = unix.Close(fd)
	}
	c.child = nil
}

// clear takes away what the call made, and adds to err what could not be.
func (c *call) clear(err *error) {
	c.closeChild()
	if c.rules != nil {
		c.rules.close()
	}
	for _, f := range []*os.File{c.stdin, c.stdout, c.stderr, c.status} {
		if f != nil {
			_ = f.Close() // closing stdin's end twice is no error of the run
		}
	}
	if c.scratch == nil {
		return
	}
	if e := c.scratch.remove(); e != nil {
		*err = errors.Join(*err, fmt.Errorf("%w: private directory: %w", ErrLeftover, e))
	}
}
