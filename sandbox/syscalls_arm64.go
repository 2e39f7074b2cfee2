// SPDX-License-Identifier: Apache-2.0

//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// nativeArch is the one calling convention a program may use.
const nativeArch = unix.AUDIT_ARCH_AARCH64

// legacy are calls that this architecture has and newer ones do without.
var legacy = []rule{
	{unix.SYS_GETRLIMIT, nil},
	{unix.SYS_SETRLIMIT, nil},
}
