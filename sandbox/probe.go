// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// minLandlock is what T1 needs: version 4 governs TCP, and version 6 keeps signals inside. Below 6 a
// program could kill the agent, being of the same user; where programs have a user of their own that is
// not so, and 4 is enough.
const (
	minLandlock        = 6
	minLandlockOwnUser = 4
)

// Probe says what this system gives, for programs run as New would run them by default. It tries rather
// than reads settings where it can, in a child where trying would bind the agent.
func Probe() Report {
	u, own := toolUser(nil)
	return probe(u, own)
}

func probe(u User, own bool) Report {
	r := Report{
		Kernel:         kernelRelease(),
		Arch:           runtime.GOARCH,
		LandlockABI:    landlockABI(),
		Seccomp:        canFilter(),
		NoNewPrivs:     prctlIs(unix.PR_GET_NO_NEW_PRIVS, 1),
		ExecGain:       prctlIs(unix.PR_GET_MDWE, 0) || prctlIs(unix.PR_GET_MDWE, 1),
		UserNamespaces: tryUserNamespace(),
		UID:            u.UID,
		GID:            u.GID,
		OwnUser:        own,
	}
	r.nameRights()
	r.judge()
	r.nameLimits()
	return r
}

func (r *Report) nameRights() {
	for _, rights := range [][]landlockRight{landlockFS, landlockNet, landlockScope} {
		for _, right := range rights {
			if right.abi <= r.LandlockABI {
				r.LandlockHandled = append(r.LandlockHandled, right.name)
			} else {
				r.LandlockMissing = append(r.LandlockMissing, right.name)
			}
		}
	}
}

func (r *Report) judge() {
	need := minLandlock
	if r.OwnUser {
		need = minLandlockOwnUser
	}
	r.Tier = T1
	if r.LandlockABI < need {
		r.Tier = TierNone
		r.note("Landlock ABI is %d, T1 needs %d (6 since Linux 6.12; 4 since 6.7 if programs have a user of their own)",
			r.LandlockABI, need)
	} else if r.LandlockABI < minLandlock {
		r.note("Landlock ABI %d does not confine signals: programs of one user can end each other, not the agent", r.LandlockABI)
	}
	if !r.Seccomp {
		r.Tier = TierNone
		r.note("seccomp filters that kill are missing, T1 needs them")
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		r.Tier = TierNone
		r.note("/proc is not mounted, T1 needs it to start programs and to poll what they use")
	}
	if !r.ExecGain {
		r.note("memory that is writable and executable cannot be refused (Linux 6.3)")
	}
	if os.Geteuid() == 0 && !r.OwnUser {
		r.note("programs run as root, without capabilities: the kernel does not hold root to a number of processes")
	}
	if r.Tier == T1 {
		r.note("T1 does not hide names, sizes and times of files outside; T2 and T3 are not built")
	}
}

func (r *Report) note(format string, args ...any) {
	r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
}

func (r *Report) nameLimits() {
	if r.Tier < T1 {
		for l := LimitWall; l <= LimitOutput; l++ {
			r.Limits = append(r.Limits, LimitReport{l, EnforcedNot, EnforcedNot})
		}
		return
	}
	r.Limits = []LimitReport{
		{LimitWall, EnforcedAgent, EnforcedAgent},
		{LimitCPU, EnforcedKernel, EnforcedPolled},
		{LimitMemory, EnforcedKernel, EnforcedPolled},
		{LimitProcesses, EnforcedNot, EnforcedPolled},
		{LimitOpenFiles, EnforcedKernel, EnforcedNot},
		{LimitFileSize, EnforcedKernel, EnforcedNot},
		{LimitDisk, EnforcedNot, EnforcedPolled},
		{LimitOutput, EnforcedAgent, EnforcedAgent},
	}
	if r.UID != 0 {
		r.note("the kernel holds processes of user %d to Options.MaxProcesses for all runs together", r.UID)
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func canFilter() bool {
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

func prctlIs(option, want int) bool {
	v, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
	return err == nil && v == want
}

// tryUserNamespace makes one in a child that then executes nothing: the child's complaint that there is no
// program means that the namespace was made.
func tryUserNamespace() string {
	_, err := syscall.ForkExec("/proc/self/no-such-program", []string{"probe"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER},
	})
	if err == syscall.ENOENT {
		return "available"
	}
	if err == nil {
		return "unknown"
	}
	return err.Error()
}

// nobody is whom programs run as when the agent is root and was not told otherwise.
var nobody = User{65534, 65534}

// toolUser says whom programs run as, and whether that is another than the agent. An agent that is root and
// may change its user does not let programs be root.
func toolUser(asked *User) (User, bool) {
	self := User{os.Geteuid(), os.Getegid()}
	switch {
	case asked != nil:
		return *asked, asked.UID != self.UID
	case self.UID == 0 && canChangeUser():
		return nobody, true
	}
	return self, false
}

// canChangeUser reports whether the agent can start, kill and clean up after programs of another user.
func canChangeUser() bool {
	const need = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&hdr, &d[0]) == nil && d[0].Effective&need == need
}
