// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// moment is when the agent is killed.
type moment int

const (
	// atWrite is when the ledger was just written: the decisions in it are on their
	// way to their callers.
	atWrite moment = iota
	// atAnswer is when a caller has just got an answer: it rests on a record that was
	// written before, or on none.
	atAnswer
)

// killAtMoment kills the agent a random while later, at its moment.
func (r *run) killAtMoment(t *testing.T, calls *load) (killed time.Time) {
	t.Helper()
	<-time.After(minUp + rand.N(maxUp-minUp))
	agent := r.desk.agent
	agent.killed = true
	var err error
	switch pid, n := agent.command.Process.Pid, 1+rand.IntN(8); r.moment {
	case atWrite:
		killed, err = killAtWrite(pid, r.desk.ledger(), n)
	case atAnswer:
		killed, err = killAtAnswer(pid, calls.answers, n)
	}
	if err != nil {
		t.Fatalf("wait for the moment: %v\n%s", err, agent.output.String())
	}
	agent.kill(t)
	r.desk.agent = nil
	return killed
}

// killAtAnswer sends SIGKILL to a process when a client gets the nth answer from now.
func killAtAnswer(pid int, answers <-chan struct{}, n int) (time.Time, error) {
	deadline := time.After(startTimeout)
	for range n {
		select {
		case <-answers:
		case <-deadline:
			return time.Time{}, fmt.Errorf("nobody is answered: %w", os.ErrDeadlineExceeded)
		}
	}
	err := unix.Kill(pid, unix.SIGKILL)
	return time.Now(), err
}

// killAtWrite sends SIGKILL to a process when files of a directory are written for the
// nth time from now. A thread that sleeps until then is woken sooner than one that looks
// again and again is given the processor back.
func killAtWrite(pid int, dir string, n int) (time.Time, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return time.Time{}, err
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_MODIFY); err != nil {
		return time.Time{}, err
	}
	for range n {
		if err := awaitEvent(watch); err != nil {
			return time.Time{}, fmt.Errorf("nothing is written to %s: %w", dir, err)
		}
	}
	err = unix.Kill(pid, unix.SIGKILL)
	return time.Now(), err
}

// awaitEvent waits for events of an inotify watch, for as long as a program may take.
func awaitEvent(watch int) error {
	ready := []unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}
	count, err := unix.Poll(ready, int(startTimeout.Milliseconds()))
	switch {
	case errors.Is(err, unix.EINTR):
		return awaitEvent(watch)
	case err != nil:
		return err
	case count == 0:
		return os.ErrDeadlineExceeded
	}
	var events [16 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
	_, err = unix.Read(watch, events[:])
	return err
}
