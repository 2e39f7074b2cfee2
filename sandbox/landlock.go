// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a file or directory named in a Spec allows. Sockets, pipes and device nodes can be made nowhere;
// nothing can be both written and executed.
const (
	rightsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsExec  = unix.LANDLOCK_ACCESS_FS_EXECUTE
	rightsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	// rightsFile are those that make sense beneath a rule for a single file; the kernel refuses others.
	rightsFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// systemPaths is what nearly every program needs, where it exists: shared libraries and what finds them,
// the dynamic loaders (the only ones of it that may be executed), the time zone, and harmless devices.
var systemPaths = []struct {
	path   string
	rights uint64
}{
	{"/lib", rightsRead},
	{"/lib64", rightsRead},
	{"/usr/lib", rightsRead},
	{"/usr/lib64", rightsRead},
	{"/usr/share/zoneinfo", rightsRead},
	{"/etc/ld.so.cache", rightsRead},
	{"/etc/localtime", rightsRead},
	{"/lib64/ld-linux-x86-64.so.2", rightsRead | rightsExec},
	{"/lib/ld-linux-aarch64.so.1", rightsRead | rightsExec},
	{"/lib/ld-musl-x86_64.so.1", rightsRead | rightsExec},
	{"/lib/ld-musl-aarch64.so.1", rightsRead | rightsExec},
	{"/dev/full", rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
	{"/dev/null", rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
	{"/dev/random", rightsRead},
	{"/dev/urandom", rightsRead},
	{"/dev/zero", rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
}

// landlockRight is a thing Landlock can govern, and the version of its interface that began to.
type landlockRight struct {
	abi  int
	name string
	bit  uint64
}

var landlockFS = []landlockRight{
	{1, "execute", unix.LANDLOCK_ACCESS_FS_EXECUTE},
	{1, "write_file", unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
	{1, "read_file", unix.LANDLOCK_ACCESS_FS_READ_FILE},
	{1, "read_dir", unix.LANDLOCK_ACCESS_FS_READ_DIR},
	{1, "remove_dir", unix.LANDLOCK_ACCESS_FS_REMOVE_DIR},
	{1, "remove_file", unix.LANDLOCK_ACCESS_FS_REMOVE_FILE},
	{1, "make_char", unix.LANDLOCK_ACCESS_FS_MAKE_CHAR},
	{1, "make_dir", unix.LANDLOCK_ACCESS_FS_MAKE_DIR},
	{1, "make_reg", unix.LANDLOCK_ACCESS_FS_MAKE_REG},
	{1, "make_sock", unix.LANDLOCK_ACCESS_FS_MAKE_SOCK},
	{1, "make_fifo", unix.LANDLOCK_ACCESS_FS_MAKE_FIFO},
	{1, "make_block", unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK},
	{1, "make_sym", unix.LANDLOCK_ACCESS_FS_MAKE_SYM},
	{2, "refer", unix.LANDLOCK_ACCESS_FS_REFER},
	{3, "truncate", unix.LANDLOCK_ACCESS_FS_TRUNCATE},
	{5, "ioctl_dev", unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	{9, "resolve_unix", unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
}

var landlockNet = []landlockRight{
	{4, "bind_tcp", unix.LANDLOCK_ACCESS_NET_BIND_TCP},
	{4, "connect_tcp", unix.LANDLOCK_ACCESS_NET_CONNECT_TCP},
	{10, "bind_udp", unix.LANDLOCK_ACCESS_NET_BIND_UDP},
	{10, "connect_send_udp", unix.LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP},
}

var landlockScope = []landlockRight{
	{6, "scope_abstract_unix_socket", unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET},
	{6, "scope_signal", unix.LANDLOCK_SCOPE_SIGNAL},
}

// handled are the bits of the rights that a version governs.
func handled(rights []landlockRight, abi int) uint64 {
	var bits uint64
	for _, r := range rights {
		if r.abi <= abi {
			bits |= r.bit
		}
	}
	return bits
}

// landlockABI is the version of the kernel's interface, 0 where there is none.
func landlockABI() int {
	v, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// ruleset is a Landlock ruleset under construction. It governs every right the kernel knows, so what no
// rule allows is refused.
type ruleset struct {
	fd int
	fs uint64
}

func newRuleset(abi int) (*ruleset, error) {
	attr := unix.LandlockRulesetAttr{
		Handled_access_fs:  handled(landlockFS, abi),
		Handled_access_net: handled(landlockNet, abi),
		Scoped:             handled(landlockScope, abi),
	}
	fd, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("%w: creating a Landlock ruleset: %w", ErrStart, errno)
	}
	return &ruleset{fd: int(fd), fs: attr.Handled_access_fs}, nil
}

// rulesetFor allows what a spec names, beside the system's paths. scratch is the private directory or "".
func rulesetFor(abi int, s Spec, scratch string) (_ *ruleset, err error) {
	r, err := newRuleset(abi)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, sys := range systemPaths {
		if err := r.allow(sys.path, sys.rights); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	named := map[uint64][]string{
		rightsRead | rightsExec:  slices.Concat([]string{s.Path}, s.ReadOnly),
		rightsRead | rightsWrite: s.ReadWrite,
	}
	if scratch != "" {
		named[rightsRead|rightsWrite] = slices.Concat(s.ReadWrite, []string{scratch})
	}
	for rights, paths := range named {
		for _, p := range paths {
			if err := r.allow(p, rights); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// allow adds a rule for what path is now. What takes its place later is not covered.
func (r *ruleset) allow(path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStart, path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStart, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights & r.fs, Parent_fd: int32(fd)}
	_, _, errno := syscall.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("%w: allowing %s: %w", ErrStart, path, errno)
	}
	return nil
}

func (r *ruleset) close() { _ = unix.Close(r.fd) }
