// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs until it is ended, or its test ends.
type process struct {
	name    string
	address string
	command *exec.Cmd
	output  output
	exited  chan struct{}
	// err is how it ended, once exited is closed.
	err error
	// killed says that kill was called.
	killed bool
}

// output keeps the first bytes that a program says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const maxOutput = 1 << 20

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len() < maxOutput {
		o.text.Write(b)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts a program.
func start(t *testing.T, name, path string, args ...string) *process {
	t.Helper()
	command := exec.Command(path, args...)
	command.SysProcAttr = &syscall.SysProcAttr{}
	return launch(t, name, command)
}

// launch starts a command that does not outlive the test.
func launch(t *testing.T, name string, command *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, command: command, exited: make(chan struct{})}
	command.Stdout, command.Stderr = &p.output, &p.output
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := p.command.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		// It may be over already.
		_ = p.command.Process.Kill()
		<-p.exited
		if t.Failed() && !p.killed {
			t.Logf("%s said:\n%s", name, p.output.String())
		}
	})
	return p
}

// await waits until what is to be true of the program is so.
func (p *process) await(t *testing.T, condition func() bool) {
	t.Helper()
	p.awaitFor(t, startTimeout, condition)
}

// awaitFor is await for what takes its time.
func (p *process) awaitFor(t *testing.T, patience time.Duration, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-p.exited:
			t.Fatalf("%s ended by itself: %v\n%s", p.name, p.err, p.output.String())
		case <-deadline:
			t.Fatalf("%s is not as it should be after %s:\n%s", p.name, patience, p.output.String())
		case <-tick.C:
		}
	}
}

// kill ends the program with SIGKILL.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.killed = true
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("kill %s: %v\n%s", p.name, err, p.output.String())
	}
	<-p.exited
	var how *exec.ExitError
	if status, ok := statusOf(p.err, &how); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s did not die of the kill: %v\n%s", p.name, p.err, p.output.String())
	}
}

func statusOf(err error, how **exec.ExitError) (syscall.WaitStatus, bool) {
	if !errors.As(err, how) {
		return 0, false
	}
	status, ok := (*how).Sys().(syscall.WaitStatus)
	return status, ok && status.Signaled()
}

// stop ends the program in good order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("stop %s: %v", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(startTimeout):
		t.Fatalf("%s does not stop:\n%s", p.name, p.output.String())
	}
	if p.err != nil {
		t.Fatalf("%s stopped badly: %v", p.name, fmt.Errorf("%w\n%s", p.err, p.output.String()))
	}
}
