// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
)

// world is what attempts are aimed at: a directory with a file in it that everybody may read and write,
// so that only the sandbox is in the way, and a listening socket.
type world struct{ dir, file, addr string }

func newWorld(t *testing.T) world {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w := world{dir: dir, file: filepath.Join(dir, "file")}
	w.restore(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w.addr = l.Addr().String()
	return w
}

// restore puts the file back as it was; its owner is whom the sandbox runs programs as, if it may be.
func (w world) restore(t *testing.T) {
	t.Helper()
	for _, name := range []string{w.file, w.file + "2", filepath.Join(w.dir, "new")} {
		_ = os.Remove(name)
	}
	if err := os.WriteFile(w.file, []byte("kept"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.file, 0o666); err != nil {
		t.Fatal(err)
	}
	r := sandbox.Probe()
	if err := os.Chown(w.file, r.UID, r.GID); err != nil {
		t.Fatal(err)
	}
}

// TestEscapesAreStopped runs each attempt outside, where it must work, and inside, where it must not.
func TestEscapesAreStopped(t *testing.T) {
	r := newRunner(t)
	w := newWorld(t)
	tests := []struct {
		name string
		args []string
		// rootOnly attempts need root outside; signal is what stops it if not an error.
		rootOnly bool
		signal   string
		// cause is part of what the victim must have met, "" if anything but success is fine.
		cause string
	}{
		{name: "reading the password file", args: []string{"read_file", "/etc/passwd"}, cause: "permission denied"},
		{name: "reading a file anybody may read", args: []string{"read_file", w.file}, cause: "permission denied"},
		{name: "reading it through a symlink of its own", args: []string{"symlink_read", w.file}, cause: "permission denied"},
		{name: "listing the root directory", args: []string{"read_dir", "/"}, cause: "permission denied"},
		{name: "listing processes", args: []string{"read_dir", "/proc"}, cause: "permission denied"},
		{name: "reading the agent's environment", args: []string{"parent_environ"}, cause: "permission denied"},
		{name: "overwriting a file", args: []string{"write_file", w.file}, cause: "permission denied"},
		{name: "making a file", args: []string{"write_file", filepath.Join(w.dir, "new")}, cause: "permission denied"},
		{name: "removing a file", args: []string{"unlink_file", w.file}, cause: "permission denied"},
		{name: "renaming a file", args: []string{"rename_file", w.file, w.file + "2"}, cause: "permission denied"},
		{name: "linking a file into reach", args: []string{"link_file", w.file, w.file + "2"}},
		{name: "truncating a file", args: []string{"truncate_file", w.file}, cause: "permission denied"},
		{name: "changing the mode of a file", args: []string{"chmod_file", w.file}, cause: "operation not permitted"},
		{name: "changing the times of a file", args: []string{"touch_file", w.file}, cause: "operation not permitted"},
		{name: "watching a file", args: []string{"inotify_file", w.file}, cause: "operation not permitted"},
		{name: "executing a dropped file", args: []string{"exec_dropped", victim()}, cause: "permission denied"},
		{name: "executing from memory", args: []string{"exec_memfd", victim()}, cause: "function not implemented"},
		{name: "memory that is writable and executable", args: []string{"wx_memory"}, cause: "permission denied"},
		{name: "a TCP socket", args: []string{"tcp_socket"}, cause: "operation not permitted"},
		{name: "a UDP socket", args: []string{"udp_socket"}, cause: "operation not permitted"},
		{name: "a unix socket", args: []string{"unix_socket"}, cause: "operation not permitted"},
		{name: "a netlink socket", args: []string{"netlink_socket"}, cause: "operation not permitted"},
		{name: "a pair of datagram sockets", args: []string{"socketpair_datagram"}, cause: "operation not permitted"},
		{name: "a TCP connection", args: []string{"tcp_connect", w.addr}, cause: "operation not permitted"},
		{name: "listening for TCP", args: []string{"tcp_listen"}, cause: "operation not permitted"},
		{name: "a session of its own", args: []string{"setsid"}, cause: "operation not permitted"},
		{name: "a process group of its own", args: []string{"setpgid"}, cause: "operation not permitted"},
		{name: "tracing the agent", args: []string{"ptrace_parent"}, cause: "operation not permitted"},
		{name: "reading the agent's memory", args: []string{"read_parent_memory"}, cause: "operation not permitted"},
		{name: "signalling the agent", args: []string{"signal_parent"}, cause: "operation not permitted"},
		{name: "reading the agent's limits", args: []string{"limit_parent"}, cause: "operation not permitted"},
		{name: "a descriptor of the agent's process", args: []string{"pidfd_parent"}, cause: "function not implemented"},
		{name: "io_uring", args: []string{"io_uring"}, cause: "function not implemented"},
		{name: "a user namespace by unshare", args: []string{"unshare_user"}, cause: "operation not permitted"},
		{name: "a user namespace by clone", args: []string{"clone_user"}, cause: "operation not permitted"},
		{name: "keys of the kernel", args: []string{"keyctl"}, cause: "operation not permitted"},
		{name: "a BPF map", args: []string{"bpf"}, rootOnly: true, cause: "operation not permitted"},
		{name: "performance events", args: []string{"perf_event"}, rootOnly: true, cause: "operation not permitted"},
		{name: "userfaultfd", args: []string{"userfaultfd"}, rootOnly: true, cause: "operation not permitted"},
		{name: "System V shared memory", args: []string{"sysv_shm"}, cause: "operation not permitted"},
		{name: "a personality", args: []string{"personality"}, cause: "operation not permitted"},
		{name: "a mount", args: []string{"mount", w.dir}, rootOnly: true, cause: "operation not permitted"},
		{name: "another root", args: []string{"chroot", "/"}, rootOnly: true, cause: "operation not permitted"},
		{name: "a capability", args: []string{"have_capability"}, rootOnly: true, cause: "did not work"},
		{name: "a 32-bit system call", args: []string{"int80"}, signal: "SIGSYS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.rootOnly || os.Geteuid() == 0 {
				w.restore(t)
				if code, stderr := outside(t, tt.args...); code != 0 {
					t.Fatalf("outside it does not work either, so nothing is proven: exit %d, %s", code, stderr)
				}
			}
			w.restore(t)
			res := mustRun(t, r, attempt(tt.args...))
			if res.Signal != tt.signal || tt.signal == "" && res.ExitCode != 3 {
				t.Fatalf("exit %d, signal %q, want it stopped\nstderr: %s", res.ExitCode, res.Signal, res.Stderr)
			}
			if !strings.Contains(string(res.Stderr), tt.cause) {
				t.Errorf("stopped by %q, want %q", res.Stderr, tt.cause)
			}
			if b, err := os.ReadFile(w.file); err != nil || string(b) != "kept" {
				t.Errorf("the file outside now holds %q, %v", b, err)
			}
		})
	}
}

func TestNothingOutlivesItsRun(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	for _, name := range []string{"daemon", "orphan"} {
		t.Run("a process left behind by "+name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "w")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			control := filepath.Join(dir, "control")
			if code, stderr := outside(t, name, control); code != 0 {
				t.Fatalf("outside it does not start: %s", stderr)
			}
			if alive := aliveWith(t, control); len(alive) == 0 {
				t.Fatal("outside it does not live on, so nothing is proven")
			}
			endBeating(t, control)

			inside := filepath.Join(dir, "inside")
			s := attempt(name, inside)
			s.ReadWrite = []string{dir}
			s.ReadOnly = []string{"/bin/sh"}
			res := mustRun(t, r, s)
			if alive := aliveWith(t, inside); len(alive) != 0 {
				t.Errorf("still alive: %v\nstderr: %s", alive, res.Stderr)
			}
			if name == "orphan" && res.ExitCode != 0 {
				t.Errorf("the orphan was not even made: %s", res.Stderr)
			}
		})
	}
}

// endBeating ends the process that wrote its id to file. What it writes is cut short now and then.
func endBeating(t *testing.T, file string) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for len(aliveWith(t, file)) > 0 && time.Now().Before(end) {
		killFrom(file)
	}
}
