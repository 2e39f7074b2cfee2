// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import "golang.org/x/sys/unix"

// What a program may ask of the kernel. This file, and legacy in syscalls_amd64.go for calls that only old
// architectures have, is the whole of it: what is not named here fails with EPERM; what is newer than the
// newest known call fails with ENOSYS; another architecture's calling convention (int 0x80) kills.
//
// To add a call, answer in the review: what does it reach that is not the process itself or a file that
// Landlock decides on? Absent on purpose:
//
//	socket, connect, bind, listen, accept    the network and unix sockets: Landlock stops TCP connect and
//	                                         bind, but not UDP, fast open, MPTCP, netlink, vsock, pathname unix
//	setsid, setpgid                          the process group is how a tree is killed whole
//	chmod, chown, utimensat, setxattr, ...   Landlock has no right for them, so they reach every file of the user
//	inotify_*, fanotify_*                    the same
//	ptrace, process_vm_*, pidfd_*, kcmp      other processes
//	unshare, setns, mount, pivot_root, ...   namespaces and mounts: more kernel than a tool needs
//	keyctl, add_key, bpf, perf_event_open,   wide kernel surfaces with a history
//	userfaultfd, io_uring_*
//	shm*, sem*, msg*, mq_*                   memory and queues that outlive the process and escape RLIMIT_DATA
//	memfd_create                             memory outside RLIMIT_DATA, and a file without a path
//	sched_set*, setpriority, mlock*          the machine's share of others
//	set*id, capset, personality              who and what the process is
//	mincore, sync, syncfs, quotactl, ...     other users' page cache and disks

// rule allows one system call, under conditions on its arguments. A call named twice is allowed when
// either rule holds.
type rule struct {
	nr   uintptr
	when []condition
}

var allowed = []rule{
	{unix.SYS_BRK, nil},
	{unix.SYS_CAPGET, nil},
	{unix.SYS_CHDIR, nil},
	{unix.SYS_CLOCK_GETRES, nil},
	{unix.SYS_CLOCK_GETTIME, nil},
	{unix.SYS_CLOCK_NANOSLEEP, nil},
	{unix.SYS_CLONE, []condition{noneOf(0, newNamespaces|unix.CLONE_PARENT)}},
	{unix.SYS_CLOSE, nil},
	{unix.SYS_CLOSE_RANGE, nil},
	{unix.SYS_COPY_FILE_RANGE, nil},
	{unix.SYS_DUP, nil},
	{unix.SYS_DUP3, nil},
	{unix.SYS_EPOLL_CREATE1, nil},
	{unix.SYS_EPOLL_CTL, nil},
	{unix.SYS_EPOLL_PWAIT, nil},
	{unix.SYS_EPOLL_PWAIT2, nil},
	{unix.SYS_EVENTFD2, nil},
	{unix.SYS_EXECVE, nil},
	{unix.SYS_EXECVEAT, nil},
	{unix.SYS_EXIT, nil},
	{unix.SYS_EXIT_GROUP, nil},
	{unix.SYS_FACCESSAT, nil},
	{unix.SYS_FACCESSAT2, nil},
	{unix.SYS_FADVISE64, nil},
	{unix.SYS_FALLOCATE, nil},
	{unix.SYS_FCHDIR, nil},
	// Not F_SETOWN and F_SETSIG (signals to others), F_NOTIFY (watching), F_SETPIPE_SZ (memory).
	{unix.SYS_FCNTL, []condition{oneOf(1, unix.F_DUPFD, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
		unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW,
		unix.F_DUPFD_CLOEXEC, unix.F_GETPIPE_SZ, unix.F_GET_SEALS)}},
	{unix.SYS_FDATASYNC, nil},
	{unix.SYS_FGETXATTR, nil},
	{unix.SYS_FLISTXATTR, nil},
	{unix.SYS_FLOCK, nil},
	{unix.SYS_FSTAT, nil},
	{unix.SYS_FSTATFS, nil},
	{unix.SYS_FSYNC, nil},
	{unix.SYS_FTRUNCATE, nil},
	{unix.SYS_FUTEX, nil},
	{unix.SYS_GETCPU, nil},
	{unix.SYS_GETCWD, nil},
	{unix.SYS_GETDENTS64, nil},
	{unix.SYS_GETEGID, nil},
	{unix.SYS_GETEUID, nil},
	{unix.SYS_GETGID, nil},
	{unix.SYS_GETGROUPS, nil},
	{unix.SYS_GETITIMER, nil},
	{unix.SYS_GETPEERNAME, nil},
	{unix.SYS_GETPGID, nil},
	{unix.SYS_GETPID, nil},
	{unix.SYS_GETPPID, nil},
	{unix.SYS_GETPRIORITY, nil},
	{unix.SYS_GETRANDOM, nil},
	{unix.SYS_GETRESGID, nil},
	{unix.SYS_GETRESUID, nil},
	{unix.SYS_GETRUSAGE, nil},
	{unix.SYS_GETSID, nil},
	{unix.SYS_GETSOCKNAME, nil},
	{unix.SYS_GETSOCKOPT, nil},
	{unix.SYS_GETTID, nil},
	{unix.SYS_GETTIMEOFDAY, nil},
	{unix.SYS_GETUID, nil},
	{unix.SYS_GETXATTR, nil},
	// The questions and settings of a descriptor itself; no terminal input (TIOCSTI), no devices.
	{unix.SYS_IOCTL, []condition{oneOf(1, unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ,
		fionbio, fioclex, fionclex)}},
	// Whom signals reach is Landlock's scope, see minLandlock.
	{unix.SYS_KILL, nil},
	{unix.SYS_LGETXATTR, nil},
	{unix.SYS_LINKAT, nil},
	{unix.SYS_LISTXATTR, nil},
	{unix.SYS_LLISTXATTR, nil},
	{unix.SYS_LSEEK, nil},
	{unix.SYS_MADVISE, nil},
	{unix.SYS_MEMBARRIER, nil},
	{unix.SYS_MKDIRAT, nil},
	{unix.SYS_MMAP, nil},
	{unix.SYS_MPROTECT, nil},
	{unix.SYS_MREMAP, nil},
	{unix.SYS_MSYNC, nil},
	{unix.SYS_MUNMAP, nil},
	{unix.SYS_NANOSLEEP, nil},
	{unix.SYS_NEWFSTATAT, nil},
	{unix.SYS_OPENAT, nil},
	{unix.SYS_PIPE2, nil},
	{unix.SYS_PPOLL, nil},
	{unix.SYS_PRCTL, []condition{oneOf(0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_NO_NEW_PRIVS,
		unix.PR_GET_NO_NEW_PRIVS, unix.PR_SET_VMA, unix.PR_CAPBSET_READ)}},
	{unix.SYS_PREAD64, nil},
	{unix.SYS_PREADV, nil},
	{unix.SYS_PREADV2, nil},
	// Of the caller only: with another's id it reads and sets the limits of any process of the user. It
	// cannot raise a hard limit, having no capability.
	{unix.SYS_PRLIMIT64, []condition{oneOf(0, 0)}},
	{unix.SYS_PSELECT6, nil},
	{unix.SYS_PWRITE64, nil},
	{unix.SYS_PWRITEV, nil},
	{unix.SYS_PWRITEV2, nil},
	{unix.SYS_READ, nil},
	{unix.SYS_READAHEAD, nil},
	{unix.SYS_READLINKAT, nil},
	{unix.SYS_READV, nil},
	{unix.SYS_RECVFROM, nil},
	{unix.SYS_RECVMSG, nil},
	{unix.SYS_RENAMEAT, nil},
	{unix.SYS_RENAMEAT2, nil},
	{unix.SYS_RESTART_SYSCALL, nil},
	{unix.SYS_RSEQ, nil},
	{unix.SYS_RT_SIGACTION, nil},
	{unix.SYS_RT_SIGPENDING, nil},
	{unix.SYS_RT_SIGPROCMASK, nil},
	{unix.SYS_RT_SIGQUEUEINFO, nil},
	{unix.SYS_RT_SIGRETURN, nil},
	{unix.SYS_RT_SIGSUSPEND, nil},
	{unix.SYS_RT_SIGTIMEDWAIT, nil},
	{unix.SYS_RT_TGSIGQUEUEINFO, nil},
	{unix.SYS_SCHED_GETAFFINITY, nil},
	{unix.SYS_SCHED_GETPARAM, nil},
	{unix.SYS_SCHED_GETSCHEDULER, nil},
	{unix.SYS_SCHED_GET_PRIORITY_MAX, nil},
	{unix.SYS_SCHED_GET_PRIORITY_MIN, nil},
	{unix.SYS_SCHED_YIELD, nil},
	{unix.SYS_SENDFILE, nil},
	// On the ends of a socketpair only, for no other socket can exist: connected, so an address is refused.
	{unix.SYS_SENDMSG, nil},
	{unix.SYS_SENDTO, nil},
	{unix.SYS_SETITIMER, nil},
	{unix.SYS_SET_ROBUST_LIST, nil},
	{unix.SYS_SET_TID_ADDRESS, nil},
	{unix.SYS_SHUTDOWN, nil},
	{unix.SYS_SIGALTSTACK, nil},
	// Streams only: a datagram pair can send to any pathname socket.
	{unix.SYS_SOCKETPAIR, []condition{
		oneOf(0, unix.AF_UNIX),
		oneOf(1, unix.SOCK_STREAM, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.SOCK_STREAM|unix.SOCK_NONBLOCK,
			unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK),
	}},
	{unix.SYS_SPLICE, nil},
	{unix.SYS_STATFS, nil},
	{unix.SYS_STATX, nil},
	{unix.SYS_SYMLINKAT, nil},
	{unix.SYS_SYSINFO, nil},
	{unix.SYS_TEE, nil},
	{unix.SYS_TGKILL, nil},
	{unix.SYS_TIMERFD_CREATE, nil},
	{unix.SYS_TIMERFD_GETTIME, nil},
	{unix.SYS_TIMERFD_SETTIME, nil},
	{unix.SYS_TIMER_CREATE, nil},
	{unix.SYS_TIMER_DELETE, nil},
	{unix.SYS_TIMER_GETOVERRUN, nil},
	{unix.SYS_TIMER_GETTIME, nil},
	{unix.SYS_TIMER_SETTIME, nil},
	{unix.SYS_TIMES, nil},
	{unix.SYS_TKILL, nil},
	{unix.SYS_TRUNCATE, nil},
	{unix.SYS_UMASK, nil},
	{unix.SYS_UNAME, nil},
	{unix.SYS_UNLINKAT, nil},
	{unix.SYS_WAIT4, nil},
	{unix.SYS_WAITID, nil},
	{unix.SYS_WRITE, nil},
	{unix.SYS_WRITEV, nil},
}

// absent are calls that libraries try first and live without: they are told that the kernel does not have
// them, because on EPERM they would give up. The arguments of clone3 and openat2 stand in memory, where a
// filter cannot look.
var absent = []uintptr{
	unix.SYS_CLONE3,
	unix.SYS_FCHMODAT2,
	unix.SYS_FUTEX_WAITV,
	unix.SYS_IO_URING_ENTER,
	unix.SYS_IO_URING_REGISTER,
	unix.SYS_IO_URING_SETUP,
	unix.SYS_MEMFD_CREATE,
	unix.SYS_OPENAT2,
	unix.SYS_PIDFD_OPEN,
}

// newestKnown is the highest system call that this table has an opinion on. Both architectures number new
// calls alike.
const newestKnown = unix.SYS_FCHMODAT2

// newNamespaces are the flags of clone that make namespaces.
const newNamespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
	unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// From asm-generic/ioctls.h: non-blocking, and close on exec.
const (
	fionbio  = 0x5421
	fionclex = 0x5450
	fioclex  = 0x5451
)
