// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the leader of a process group: the launcher first, and then the program it becomes. Its group
// is the whole tree, because nobody under the filter can leave it. The group's id cannot be given to
// others while the leader is unreaped, so all killing is done before the reaping.
type process struct {
	pid int
	// exited is closed when the leader has ended and waits to be reaped.
	exited chan struct{}
	// release is closed by the owner when the leader may be reaped, and reaped when it was.
	release, reaped chan struct{}
	// status and usage are set before reaped is closed.
	status syscall.WaitStatus
	usage  syscall.Rusage
}

// startProcess executes path as the leader of a new group.
func startProcess(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	p := &process{
		exited:  make(chan struct{}),
		release: make(chan struct{}),
		reaped:  make(chan struct{}),
	}
	started := make(chan error)
	go p.supervise(path, argv, attr, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// supervise starts the process, waits for its end and reaps it, all on one thread: the launcher asks to
// die with its parent, and to the kernel the parent is the thread.
func (p *process) supervise(path string, argv []string, attr *syscall.ProcAttr, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(path, argv, attr)
	p.pid = pid
	started <- err
	if err != nil {
		return
	}
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	close(p.exited)
	<-p.release
	for {
		if _, err := syscall.Wait4(pid, &p.status, 0, &p.usage); err != syscall.EINTR {
			break
		}
	}
	close(p.reaped)
}

// signal sends to the whole group. It MUST NOT be called after release is closed.
func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(-p.pid, sig) }

// settleTime bounds the wait for killed processes to be gone. Only one that hangs in the kernel takes long.
const settleTime = 5 * time.Second

// end kills what is left of the group and waits until nothing is: true if so.
func (p *process) end() bool {
	p.signal(unix.SIGKILL)
	patience := time.NewTimer(settleTime)
	defer patience.Stop()
	close(p.release)
	select {
	case <-p.reaped:
	case <-patience.C:
		return false
	}
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		p.reapOrphans()
		if syscall.Kill(-p.pid, 0) == syscall.ESRCH || !groupLives(p.pid) {
			return true
		}
		select {
		case <-patience.C:
			return false
		case <-time.After(pause):
		}
	}
}

// reapOrphans reaps members of the group that became the agent's own children, as they do where the agent
// is the first process of its container.
func (p *process) reapOrphans() {
	for {
		pid, err := syscall.Wait4(-p.pid, nil, syscall.WNOHANG, nil)
		if err != syscall.EINTR && (err != nil || pid <= 0) {
			return
		}
	}
}
