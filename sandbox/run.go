// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/writ-dev/writ/sandbox/internal/enter"
	"golang.org/x/sys/unix"
)

// Run runs a program to its end, or to that of its limits or of ctx, whichever comes first, and leaves
// nothing behind: no process of its tree, no private directory, no descriptor. A limit that ended the run
// is named in the Result and is the error; the end of ctx is the error context.Cause gives. A program that
// ends by itself is no error, whatever its exit code says.
func (r *Runner) Run(ctx context.Context, s Spec) (Result, error) {
	s, err := s.complete()
	if err != nil {
		return Result{ExitCode: -1}, err
	}
	if ctx.Err() != nil {
		return Result{ExitCode: -1}, fmt.Errorf("sandbox: not started: %w", context.Cause(ctx))
	}
	c := &call{runner: r, spec: s, mode: enter.Exec}
	return c.run(ctx)
}

func (c *call) run(ctx context.Context) (res Result, err error) {
	defer c.clear(&err)
	res.ExitCode = -1
	begun := time.Now()
	if err := c.furnish(); err != nil {
		return res, err
	}
	if err := c.start(); err != nil {
		return res, err
	}
	c.stream()
	limit, cause := c.await(ctx)
	gone := c.process.end()
	whole := c.collect()
	res = c.result(limit)
	res.Wall = time.Since(begun)
	return res, c.judge(res, cause, gone, whole)
}

// streams are what comes from the program while it runs. The captures belong to their readers until ended
// has been waited for.
type streams struct {
	stdout, stderr capture
	status         []byte
	// stops takes the first limit that a reader or the watcher sees exceeded.
	stops chan Limit
	ended sync.WaitGroup
	// cut is set by the reader whose stream did not come to its end.
	cut     [3]error
	unwatch func() // set by the reader of the status
}

// stop asks for the end of the run; the first to ask is heard.
func (s *streams) stop(l Limit) {
	select {
	case s.stops <- l:
	default:
	}
}

// stream starts to move the program's input and output.
func (c *call) stream() {
	s := &c.streams
	s.stops = make(chan Limit, 1)
	overflow := func() { s.stop(LimitOutput) }
	s.stdout = capture{limit: c.spec.Limits.Output, overflowed: overflow}
	s.stderr = capture{limit: c.spec.Limits.Output, overflowed: overflow}
	if c.spec.Progress != nil {
		s.stderr.lines = &lineWriter{show: c.spec.Progress}
	}
	s.ended.Go(func() { s.cut[0] = s.stdout.drain(c.stdout) })
	s.ended.Go(func() { s.cut[1] = s.stderr.drain(c.stderr) })
	s.ended.Go(c.readStatus)
	if c.stdin != nil {
		s.ended.Go(func() {
			_, _ = c.stdin.Write(c.spec.Stdin) // a program need not read its input
			_ = c.stdin.Close()
		})
	}
}

// maxStatus is more than a launcher has to say.
const maxStatus = 16

// readStatus reads until the launcher has become the program, or has died; in the first case the program
// comes under watch. The launcher itself is not watched: it has more threads than a program may be allowed.
func (c *call) readStatus() {
	s := &c.streams
	s.status, s.cut[2] = io.ReadAll(io.LimitReader(c.status, maxStatus))
	if enter.Started(s.status) != nil {
		return
	}
	s.unwatch = c.runner.watcher.add(&watched{
		group:   c.process.pid,
		limits:  c.spec.Limits,
		scratch: c.scratch,
		exceeds: s.stop,
	})
}

// await waits for the end, and brings it about where the program does not: cause is set when ctx did.
func (c *call) await(ctx context.Context) (_ Limit, cause error) {
	wall := time.NewTimer(c.spec.Limits.Wall)
	defer wall.Stop()
	select {
	case <-c.process.exited:
		return LimitNone, nil
	case l := <-c.streams.stops:
		return l, nil
	case <-wall.C:
		c.terminate()
		return LimitWall, nil
	case <-ctx.Done():
		c.terminate()
		return LimitNone, context.Cause(ctx)
	}
}

// terminate gives the tree its grace.
func (c *call) terminate() {
	if c.spec.Limits.Grace == 0 {
		return
	}
	c.process.signal(unix.SIGTERM)
	grace := time.NewTimer(c.spec.Limits.Grace)
	defer grace.Stop()
	select {
	case <-c.process.exited:
	case <-grace.C:
	}
}

// drainTime bounds the reading of what dead processes left in a pipe.
const drainTime = 2 * time.Second

// collect waits for the readers: true if each has read to the end.
func (c *call) collect() bool {
	s := &c.streams
	deadline := time.Now().Add(drainTime)
	_ = c.stdout.SetReadDeadline(deadline)
	_ = c.stderr.SetReadDeadline(deadline)
	_ = c.status.SetReadDeadline(deadline)
	if c.stdin != nil {
		_ = c.stdin.SetWriteDeadline(time.Now())
	}
	s.ended.Wait()
	if s.unwatch != nil {
		s.unwatch()
	}
	return s.cut == [3]error{}
}

// result is what the run left; limit is what ended it as far as await knows.
func (c *call) result(limit Limit) Result {
	p, s := c.process, &c.streams
	res := Result{ExitCode: -1, Stdout: s.stdout.data, Stderr: s.stderr.data, Limit: limit}
	select {
	case <-p.reaped:
	default:
		return res // it hangs in the kernel, judge says so
	}
	res.CPU = time.Duration(p.usage.Utime.Nano() + p.usage.Stime.Nano())
	res.MaxRSS = p.usage.Maxrss << 10
	if p.status.Exited() {
		res.ExitCode = p.status.ExitStatus()
	} else {
		res.Signal = unix.SignalName(p.status.Signal())
	}
	if limit == LimitNone {
		res.Limit = c.implied(res)
	}
	return res
}

// implied is the limit that ended a run without having been asked to: the kernel held it, or it was seen
// exceeded only after the end.
func (c *call) implied(res Result) Limit {
	s, l := &c.streams, c.spec.Limits
	select {
	case limit := <-s.stops:
		return limit
	default:
	}
	sig := c.process.status.Signal()
	switch {
	case sig == syscall.SIGXCPU, sig == syscall.SIGKILL && res.CPU >= l.CPU:
		return LimitCPU
	case sig == syscall.SIGXFSZ:
		return LimitFileSize
	case res.ExitCode != 0 && res.MaxRSS > l.Memory:
		return LimitMemory
	}
	return LimitNone
}

// judge says what the end of a run is to the caller.
func (c *call) judge(res Result, cause error, gone, whole bool) error {
	switch {
	case !gone:
		return fmt.Errorf("%w: processes of group %d", ErrLeftover, c.process.pid)
	case cause != nil:
		return fmt.Errorf("sandbox: run ended: %w", cause)
	case res.Limit != LimitNone:
		return res.Limit.err()
	case !whole:
		return fmt.Errorf("%w: output not read to its end", ErrLeftover)
	}
	if err := enter.Started(c.streams.status); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStart, c.spec.Path, err)
	}
	return nil
}
