// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package enter

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPlan bounds what is read; the kernel itself refuses arguments and environment above 6 MiB.
const maxPlan = 8 << 20

// Main reads the plan, puts up the walls and becomes the program; it never returns. It MUST be called on
// the main goroutine before others are started: Landlock, seccomp and no_new_privs bind the calling thread
// and what it executes, and other threads of the launcher die at exec.
func Main() {
	runtime.LockOSThread()
	p, errno := readPlan()
	if errno != 0 {
		fail(StepPlan, errno)
	}
	program, errno := prepare(p)
	if errno != 0 {
		fail(StepPlan, errno)
	}
	for _, s := range steps {
		if errno := s.take(p); errno != 0 {
			fail(s.step, errno)
		}
	}
	if p.Mode == Check {
		check()
	}
	raw(unix.SYS_WRITE, StatusFD, uintptr(unsafe.Pointer(&program.ready)), 1)
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(program.path)),
		uintptr(unsafe.Pointer(&program.argv[0])), uintptr(unsafe.Pointer(&program.envv[0])))
	fail(StepExec, errno)
}

// steps is the order of the walls. Capabilities go first, so that nothing after is done with more right
// than the program will have. Landlock needs no_new_privs. The limits that could starve this process's own
// runtime, the closing of descriptors and the filter come when nothing else is left to do.
var steps = [...]struct {
	step Step
	take func(*Plan) syscall.Errno
}{
	{StepCapabilities, dropCapabilities},
	{StepParent, dieWithParent},
	{StepDir, enterDir},
	{StepNoNewPrivs, refuseNewPrivileges},
	{StepLandlock, restrictFiles},
	{StepExecGain, refuseExecGain},
	{StepDescriptors, closeOnExec},
	{StepLimits, setLimits},
	{StepSeccomp, filterSyscalls},
}

// fail names the step on the status descriptor and ends. It may run under every wall, so it uses write
// and exit_group only.
func fail(s Step, errno syscall.Errno) {
	b := failure(s, errno)
	raw(unix.SYS_WRITE, StatusFD, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	for {
		raw(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}

func raw(call, a, b, c uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(call, a, b, c)
	return errno
}

// errnoOf keeps the number of an error of the syscall package.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return syscall.EINVAL
}

func readPlan() (*Plan, syscall.Errno) {
	var st unix.Stat_t
	if err := unix.Fstat(PlanFD, &st); err != nil {
		return nil, errnoOf(err)
	}
	if st.Size > maxPlan {
		return nil, unix.E2BIG
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		m, err := unix.Pread(PlanFD, b[n:], int64(n))
		if err != nil || m == 0 {
			return nil, unix.EIO
		}
		n += m
	}
	p, err := Decode(b)
	if err != nil {
		return nil, unix.EBADMSG
	}
	return p, 0
}

// program is what execve needs, made before memory is limited.
type program struct {
	path       *byte
	argv, envv []*byte
	ready      byte
}

func prepare(p *Plan) (*program, syscall.Errno) {
	path, err := unix.BytePtrFromString(p.Path)
	if err != nil {
		return nil, errnoOf(err)
	}
	argv, err := syscall.SlicePtrFromStrings(p.Args)
	if err != nil {
		return nil, errnoOf(err)
	}
	envv, err := syscall.SlicePtrFromStrings(p.Env)
	if err != nil {
		return nil, errnoOf(err)
	}
	return &program{path: path, argv: argv, envv: envv, ready: ready}, 0
}

// dropCapabilities leaves none. With no_new_privs a later exec cannot bring back what is not permitted
// now, not even for uid 0, so the bounding set need not be touched (which would need CAP_SETPCAP).
func dropCapabilities(*Plan) syscall.Errno {
	// EINVAL: a kernel or container without ambient capabilities has none to clear.
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && err != unix.EINVAL {
		return errnoOf(err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return errnoOf(unix.Capset(&hdr, &none[0]))
}

// dieWithParent asks for SIGKILL when the parent's thread ends. The second look closes the window in
// which the parent died before the question was put.
func dieWithParent(p *Plan) syscall.Errno {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return errnoOf(err)
	}
	if unix.Getppid() != p.Parent {
		return unix.ESRCH
	}
	return 0
}

func enterDir(*Plan) syscall.Errno {
	unix.Umask(0o077)
	preferForOOM()
	return errnoOf(unix.Fchdir(DirFD))
}

// preferForOOM makes the program, not the agent, the kernel's first choice when memory runs out. Where
// /proc is absent the choice stays the kernel's.
func preferForOOM() {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte("1000"))
	_ = unix.Close(fd)
}

func refuseNewPrivileges(*Plan) syscall.Errno {
	return errnoOf(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

func restrictFiles(*Plan) syscall.Errno {
	return raw(unix.SYS_LANDLOCK_RESTRICT_SELF, RulesetFD, 0, 0)
}

func refuseExecGain(p *Plan) syscall.Errno {
	if !p.RefuseExecGain {
		return 0
	}
	return errnoOf(unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
}

// closeOnExec leaves the program nothing but its standard streams, whatever the agent had open.
func closeOnExec(*Plan) syscall.Errno {
	return errnoOf(unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC))
}

// setLimits uses prlimit directly: the syscall package remembers a limit on open files and would put it
// back at exec.
func setLimits(p *Plan) syscall.Errno {
	for _, l := range p.Limits {
		rl := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		_, _, errno := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(l.Resource),
			uintptr(unsafe.Pointer(&rl)), 0, 0, 0)
		if errno != 0 {
			return errno
		}
	}
	return 0
}

func filterSyscalls(p *Plan) syscall.Errno {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(p.Filter) == 0 || len(p.Filter)%size != 0 {
		return unix.EINVAL
	}
	prog := unix.SockFprog{
		Len:    uint16(len(p.Filter) / size),
		Filter: (*unix.SockFilter)(unsafe.Pointer(&p.Filter[0])),
	}
	return raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
}
