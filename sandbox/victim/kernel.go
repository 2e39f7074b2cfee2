// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func call(nr, a, b, c, d, e uintptr) error {
	_, _, errno := syscall.Syscall6(nr, a, b, c, d, e, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// ptraceParent seizes its parent, which, unlike attaching, does not stop it.
func ptraceParent([]string) error {
	runtime.LockOSThread()
	return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(os.Getppid()), 0, 0, 0)
}

func readParentMemory([]string) error {
	// An address that this program and its parent both have is not needed: any answer but EPERM or ESRCH
	// means that the kernel looked.
	var b [8]byte
	local := unix.Iovec{Base: &b[0], Len: 8}
	remote := unix.RemoteIovec{Base: 0x1000, Len: 8}
	_, err := unix.ProcessVMReadv(os.Getppid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err == unix.EFAULT {
		return nil
	}
	return err
}

func signalParent([]string) error { return syscall.Kill(os.Getppid(), 0) }

func limitParent([]string) error {
	var rl unix.Rlimit
	return unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, nil, &rl)
}

func pidfdParent([]string) error {
	_, err := unix.PidfdOpen(os.Getppid(), 0)
	return err
}

func ioUring([]string) error {
	var params [120]byte
	return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0, 0, 0)
}

// unshareUser needs a process with one thread, which a Go program is not, so that outside it fails with
// EINVAL where the kernel got as far as to look.
func unshareUser([]string) error {
	err := unix.Unshare(unix.CLONE_NEWUSER)
	if err == unix.EINVAL {
		return nil
	}
	return err
}

func cloneUser([]string) error {
	_, err := syscall.ForkExec("/nothing", []string{"x"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER},
	})
	if err == syscall.ENOENT { // the child was made and found nothing to execute
		return nil
	}
	return err
}

func keyctl([]string) error {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_PROCESS_KEYRING, true)
	return err
}

func bpfMap([]string) error {
	attr := struct{ kind, key, value, entries, flags uint32 }{kind: 2, key: 4, value: 4, entries: 1}
	return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0, 0)
}

func perfEvent([]string) error {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
	}
	_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	return err
}

func userfault([]string) error { return call(unix.SYS_USERFAULTFD, 0, 0, 0, 0, 0) }

func sysvShm([]string) error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return err
}

func personality([]string) error { return call(unix.SYS_PERSONALITY, 0, 0, 0, 0, 0) }

// mountTmpfs changes nothing: a mount that does not exist cannot be remounted, and says so with EINVAL.
func mountTmpfs(a []string) error {
	err := unix.Mount("none", a[0], "tmpfs", unix.MS_REMOUNT, "")
	if err == unix.EINVAL {
		return nil
	}
	return err
}

func changeRoot(a []string) error { return unix.Chroot(a[0]) }

// int80 makes a 32-bit system call by its number and first argument.
func int80(nr, arg uint32) uint32

// legacyCall asks for its own id in the 32-bit way, in which a filter that looks at 64-bit numbers sees
// another call.
func legacyCall([]string) error {
	const getpid = 20
	if int(int80(getpid, 0)) != os.Getpid() {
		return errStopped
	}
	return nil
}

func haveCapability([]string) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&hdr, &d[0]); err != nil {
		return err
	}
	if d == [2]unix.CapUserData{} {
		return errStopped
	}
	return nil
}

// memory writes to so many MiB.
func memory(a []string) error {
	var kept [][]byte
	for range number(a[0]) {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		touch(b)
		kept = append(kept, b)
	}
	runtime.KeepAlive(kept)
	return nil
}

// sharedMemory writes to so many MiB that no limit on private data counts, and keeps them a while.
func sharedMemory(a []string) error {
	b, err := unix.Mmap(-1, 0, number(a[0])<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return err
	}
	touch(b)
	time.Sleep(500 * time.Millisecond)
	return nil
}

func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

func ignoreSigterm([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	fmt.Fprintln(os.Stderr, "ready")
	return wait(nil)
}

func spin([]string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
	}
	return nil
}

func printEnviron([]string) error {
	for _, e := range os.Environ() {
		fmt.Println(e)
	}
	return nil
}

// printDescriptors names those that are open beside the standard ones and the runtime's own, which are
// made after the start and so are close-on-exec.
func printDescriptors([]string) error {
	for fd := 3; fd < 4096; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			fmt.Println(fd)
		}
	}
	return nil
}

func crash([]string) error { return syscall.Kill(os.Getpid(), syscall.SIGSEGV) }
