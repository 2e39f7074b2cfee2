// SPDX-License-Identifier: Apache-2.0

//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// nativeArch is the one calling convention a program may use. The x32 convention has the same value and
// call numbers above 0x40000000, which newestKnown cuts off.
const nativeArch = unix.AUDIT_ARCH_X86_64

// legacy are calls that newer architectures do without; each has its modern twin in allowed.
var legacy = []rule{
	{unix.SYS_ACCESS, nil},
	{unix.SYS_ALARM, nil},
	{unix.SYS_ARCH_PRCTL, []condition{oneOf(0, archSetFS, archGetFS)}},
	{unix.SYS_CREAT, nil},
	{unix.SYS_DUP2, nil},
	{unix.SYS_EPOLL_CREATE, nil},
	{unix.SYS_EPOLL_WAIT, nil},
	{unix.SYS_EVENTFD, nil},
	{unix.SYS_FORK, nil},
	{unix.SYS_GETDENTS, nil},
	{unix.SYS_GETPGRP, nil},
	{unix.SYS_GETRLIMIT, nil},
	{unix.SYS_LINK, nil},
	{unix.SYS_LSTAT, nil},
	{unix.SYS_MKDIR, nil},
	{unix.SYS_OPEN, nil},
	{unix.SYS_PAUSE, nil},
	{unix.SYS_PIPE, nil},
	{unix.SYS_POLL, nil},
	{unix.SYS_READLINK, nil},
	{unix.SYS_RENAME, nil},
	{unix.SYS_RMDIR, nil},
	{unix.SYS_SELECT, nil},
	{unix.SYS_SETRLIMIT, nil},
	{unix.SYS_STAT, nil},
	{unix.SYS_SYMLINK, nil},
	{unix.SYS_TIME, nil},
	{unix.SYS_UNLINK, nil},
	{unix.SYS_VFORK, nil},
}

// What C libraries set up thread-local storage with; asm/prctl.h.
const (
	archSetFS = 0x1002
	archGetFS = 0x1003
)
