// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Command victim tries to get out of a sandbox, one attempt by name a run. The sandbox's tests run each
// attempt twice: outside, where it must succeed or it proves nothing, and inside, where it must not.
//
// It exits with 0 if the attempt succeeded and with 3, and the cause on standard error, if it was stopped.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// attempt is one try; nil means that it succeeded.
type attempt func(args []string) error

var attempts = map[string]attempt{
	"read_file":           readFile,
	"read_dir":            readDir,
	"write_file":          writeFile,
	"unlink_file":         func(a []string) error { return os.Remove(a[0]) },
	"rename_file":         func(a []string) error { return os.Rename(a[0], a[1]) },
	"link_file":           func(a []string) error { return os.Link(a[0], a[1]) },
	"truncate_file":       func(a []string) error { return os.Truncate(a[0], 0) },
	"chmod_file":          func(a []string) error { return os.Chmod(a[0], 0o644) },
	"touch_file":          touchFile,
	"setxattr_file":       setxattrFile,
	"inotify_file":        inotifyFile,
	"symlink_read":        symlinkRead,
	"parent_environ":      parentEnviron,
	"exec_dropped":        execDropped,
	"exec_memfd":          execMemfd,
	"wx_memory":           wxMemory,
	"tcp_socket":          tcpSocket,
	"udp_socket":          udpSocket,
	"unix_socket":         unixSocket,
	"netlink_socket":      netlinkSocket,
	"socketpair_datagram": socketpairDatagram,
	"tcp_connect":         tcpConnect,
	"tcp_listen":          tcpListen,
	"setsid":              newSession,
	"setpgid":             newGroup,
	"daemon":              daemon,
	"orphan":              orphan,
	"beat":                beat,
	"ptrace_parent":       ptraceParent,
	"read_parent_memory":  readParentMemory,
	"signal_parent":       signalParent,
	"limit_parent":        limitParent,
	"pidfd_parent":        pidfdParent,
	"io_uring":            ioUring,
	"unshare_user":        unshareUser,
	"clone_user":          cloneUser,
	"keyctl":              keyctl,
	"bpf":                 bpfMap,
	"perf_event":          perfEvent,
	"userfaultfd":         userfault,
	"sysv_shm":            sysvShm,
	"personality":         personality,
	"mount":               mountTmpfs,
	"chroot":              changeRoot,
	"int80":               legacyCall,
	"have_capability":     haveCapability,
	"memory":              memory,
	"shared_memory":       sharedMemory,
	"processes":           processes,
	"wait":                wait,
	"file_size":           fileSize,
	"many_files":          manyFiles,
	"deep_dirs":           deepDirs,
	"locked_dirs":         lockedDirs,
	"open_files":          openFiles,
	"flood":               flood,
	"ignore_sigterm":      ignoreSigterm,
	"spin":                spin,
	"print_environ":       printEnviron,
	"print_descriptors":   printDescriptors,
	"print_dir":           printDir,
	"echo_stdin":          echoStdin,
	"print":               printArgs,
	"exit":                func(a []string) error { os.Exit(number(a[0])); return nil },
	"crash":               crash,
	"no_new_privs":        noNewPrivs,
	"run_as":              runAs,
}

func main() {
	if len(os.Args) < 2 || attempts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "victim: no such attempt")
		os.Exit(2)
	}
	if err := attempts[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "stopped:", err)
		os.Exit(3)
	}
}

var errStopped = errors.New("it did not work")

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "victim: not a number:", s)
		os.Exit(2)
	}
	return n
}
