// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout bounds how long a program may take to stop when it is asked to.
const stopTimeout = 15 * time.Second

// process is a program that was started, and that stop stops.
type process struct {
	command *exec.Cmd
	log     string
	exited  chan struct{}
}

// start starts a program whose output goes to a file of its name in dir.
func start(dir, name, path string, args ...string) (*process, error) {
	p := &process{command: exec.Command(path, args...), log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	defer log.Close()
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		// How it ended stands in its log.
		_ = p.command.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

// ended returns an error with the end of the log if the program is gone.
func (p *process) ended() error {
	select {
	case <-p.exited:
		text, err := os.ReadFile(p.log)
		if err != nil {
			return fmt.Errorf("%s ended: %w", p.command.Path, err)
		}
		return fmt.Errorf("%s ended:\n%s", p.command.Path, text[max(0, len(text)-4096):])
	default:
		return nil
	}
}

// stop asks the program to stop, and makes it.
func (p *process) stop() error {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.command.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", p.command.Path, err)
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(stopTimeout):
		}
	}
	return fmt.Errorf("%s does not stop", p.command.Path)
}
