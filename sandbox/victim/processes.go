// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newSession and newGroup start a child to do it, for the leader of a group may not.
func newSession([]string) error {
	return startWith(&syscall.SysProcAttr{Setsid: true})
}

func newGroup([]string) error {
	return startWith(&syscall.SysProcAttr{Setpgid: true})
}

func startWith(attr *syscall.SysProcAttr) error {
	c := exec.Command(os.Args[0], "exit", "0")
	c.SysProcAttr = attr
	return c.Run()
}

// daemon leaves a process behind in a session of its own that writes to a file as long as it lives.
func daemon(a []string) error {
	c := exec.Command(os.Args[0], "beat", a[0])
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return startBeating(c, a[0])
}

// orphan does so without the session: its child outlives it by two generations.
func orphan(a []string) error {
	return startBeating(exec.Command("/bin/sh", "-c", `"$0" beat "$1" &`, os.Args[0], a[0]), a[0])
}

func startBeating(c *exec.Cmd, file string) error {
	if err := c.Start(); err != nil {
		return err
	}
	for range 500 {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errStopped
}

// beat ignores every signal it can and writes its id to a file, again and again, for ten seconds.
func beat(a []string) error {
	signal.Ignore()
	for range 1000 {
		if err := os.WriteFile(a[0], []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// processes starts so many that wait, and ends them.
func processes(a []string) error {
	var started []*exec.Cmd
	defer func() {
		for _, c := range started {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for range number(a[0]) {
		c := exec.Command(os.Args[0], "wait")
		if err := c.Start(); err != nil {
			return err
		}
		started = append(started, c)
	}
	time.Sleep(500 * time.Millisecond)
	return nil
}

func wait([]string) error {
	time.Sleep(20 * time.Second)
	return nil
}

// noNewPrivs executes its arguments under no_new_privs, and runAs as another user: what the tests need to
// be an unprivileged agent.
func noNewPrivs(a []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(a[0], a, os.Environ())
}

func runAs(a []string) error {
	id := number(a[0])
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(id, id, id); err != nil {
		return err
	}
	if err := syscall.Setresuid(id, id, id); err != nil {
		return err
	}
	return noNewPrivs(a[1:])
}
