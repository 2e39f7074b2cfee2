// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"encoding/binary"
	"testing"

	"github.com/writ-dev/writ/sandbox"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What a filter answers, linux/seccomp.h.
const (
	allow = unix.SECCOMP_RET_ALLOW
	kill  = unix.SECCOMP_RET_KILL_PROCESS
	perm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	nosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// decide runs the filter in a machine that reads words most significant byte first, and so is given them
// in that order.
func decide(t *testing.T, vm *bpf.VM, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], nr)
	binary.BigEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func newFilter(t *testing.T) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(sandbox.Assemble())
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestFilterAnswersAsTheTableSays(t *testing.T) {
	t.Parallel()
	vm := newFilter(t)
	listed := map[int]bool{}
	for _, r := range sandbox.Allowed() {
		listed[r.Number()] = true
		if got := decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(r.Number())); !r.Conditional() && got != allow {
			t.Errorf("call %d is listed and answered %#x", r.Number(), got)
		}
	}
	for nr := range 1024 {
		got := decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(nr))
		if got == allow && !listed[nr] {
			t.Errorf("call %d is not listed and allowed", nr)
		}
		if got != allow && got != perm && got != nosys {
			t.Errorf("call %d is answered %#x", nr, got)
		}
		for _, arch := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, 0} {
			if got := decide(t, vm, arch, uint32(nr)); got != kill {
				t.Errorf("call %d of architecture %#x is answered %#x", nr, arch, got)
			}
		}
		if got := decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(nr)|0x40000000); got != nosys {
			t.Errorf("x32 call %d is answered %#x", nr, got)
		}
	}
}

func TestFilterLooksAtArguments(t *testing.T) {
	t.Parallel()
	vm := newFilter(t)
	tests := []struct {
		name string
		nr   uint32
		args []uint64
		want uint32
	}{
		{"a thread", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, allow},
		{"a fork", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"a clone with a user namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, perm},
		{"a clone with a network namespace among others", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_NEWNET}, perm},
		{"a clone that is the agent's child", unix.SYS_CLONE, []uint64{unix.CLONE_PARENT}, perm},
		{"clone with arguments in memory", unix.SYS_CLONE3, nil, nosys},
		{"a terminal's settings", unix.SYS_IOCTL, []uint64{0, unix.TCGETS}, allow},
		{"the same with high bits the kernel ignores", unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TCGETS}, allow},
		{"terminal input", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, perm},
		{"terminal input with high bits", unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}, perm},
		{"no_new_privs set again", unix.SYS_PRCTL, []uint64{unix.PR_SET_NO_NEW_PRIVS}, allow},
		{"no signal at the parent's death", unix.SYS_PRCTL, []uint64{unix.PR_SET_PDEATHSIG}, perm},
		{"a subreaper", unix.SYS_PRCTL, []uint64{unix.PR_SET_CHILD_SUBREAPER}, perm},
		{"a duplicate descriptor", unix.SYS_FCNTL, []uint64{0, unix.F_DUPFD_CLOEXEC}, allow},
		{"the first of the list", unix.SYS_FCNTL, []uint64{0, unix.F_DUPFD}, allow},
		{"the last of the list", unix.SYS_FCNTL, []uint64{0, unix.F_GET_SEALS}, allow},
		{"an owner for signals", unix.SYS_FCNTL, []uint64{0, unix.F_SETOWN}, perm},
		{"a larger pipe", unix.SYS_FCNTL, []uint64{0, unix.F_SETPIPE_SZ}, perm},
		{"its own limits", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_NOFILE}, allow},
		{"another's limits", unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE}, perm},
		{"a stream pair", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, allow},
		{"a datagram pair", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_DGRAM}, perm},
		{"a pair of another family", unix.SYS_SOCKETPAIR, []uint64{unix.AF_INET, unix.SOCK_STREAM}, perm},
		{"a socket", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, perm},
		{"a call nobody knows yet", 900, nil, nosys},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := decide(t, vm, unix.AUDIT_ARCH_X86_64, tt.nr, tt.args...); got != tt.want {
				t.Errorf("answered %#x, want %#x", got, tt.want)
			}
		})
	}
}
