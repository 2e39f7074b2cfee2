// SPDX-License-Identifier: Apache-2.0

// Package sandbox runs a program that nobody trusts and leaves nothing behind. It isolates a process; it
// knows no tool, no policy and no protocol.
//
//	runner, err := sandbox.New(sandbox.Options{})
//	if err != nil {
//		return err // this system cannot hold a program, and says why
//	}
//	res, err := runner.Run(ctx, sandbox.Spec{
//		Path:     "/usr/bin/git",
//		Args:     []string{"-C", repo, "log", "--oneline"},
//		ReadOnly: []string{repo},
//		Limits:   sandbox.Limits{Wall: 2 * time.Second, Output: 64 << 10},
//	})
//
// # What it promises
//
// The program runs only if every wall stands; New proves that they do with a process that tries to get
// through. There is no silent downgrade: what the system lacks is ErrUnavailable, with words. When Run
// returns, no process of the tree, no private directory and no descriptor is left; if that fails, it says
// ErrLeftover. A limit that ends a run is its own error. If the agent is killed, the program is too; its
// children, if it had any, keep their walls and their processor time and are not waited for, and the private
// directory stays: whoever starts the agent should give it an Options.Scratch that begins empty.
//
// # What tier T1 contains
//
// T1 is what needs no privilege. A run has a process group, an environment made from nothing, no descriptor
// but its standard ones, no capability, no_new_privs, and:
//
//	what                              held by                                       how well
//	content of files outside          Landlock: what Spec names and the libraries   hard
//	names, sizes, times of files      nothing: Landlock has no such right           NOT HELD
//	mode, owner, times, xattr set     seccomp                                       hard, inside too
//	executing what it has written     Landlock, for execve                          hard
//	  by way of the dynamic loader    nothing: the loader maps any readable file    NOT HELD (walls stay)
//	network, unix sockets             seccomp: no socket(); Landlock behind it      hard
//	other processes, /proc            seccomp, Landlock                             hard
//	signals to others                 Landlock from ABI 6, else another user        hard
//	leaving the tree                  seccomp: no setsid, no setpgid                hard
//	namespaces, mounts, keys, bpf,    seccomp: an allow-list, see syscalls.go       hard
//	  io_uring, perf, 32-bit calls
//	writable and executable memory    PR_SET_MDWE, unless Spec.JIT                  hard from Linux 6.3
//	wall clock, output                the agent                                     hard
//	processor time                    RLIMIT_CPU a process; the tree polled         hard a process
//	memory                            RLIMIT_DATA a process; the tree polled        private memory hard
//	processes                         polled; RLIMIT_NPROC for all runs together    overshoots
//	size of one file, descriptors     RLIMIT_FSIZE, RLIMIT_NOFILE                   hard
//	size of the private directory     polled                                        overshoots
//
// Polled means every 10 ms, or up to every 100 ms where looking takes long; a program can overshoot
// meanwhile. Private namespaces with a bounded file system (T2) and control groups (T3) would make
// those hard; they are not built. The kernel itself is trusted, and its side channels are not closed.
//
// # Who programs run as
//
// An agent that is root runs programs as user and group 65534, so that paths in a Spec must be open to that
// user; Options.User names another. An agent that is not root runs them as itself: then everything that user
// owns can be reached as far as a Spec's paths allow, and the count of its processes is shared with all else
// that it runs, in other containers too.
//
// # The launcher
//
// Go cannot run code between fork and exec, so a launcher stands between: it puts the walls around itself and
// becomes the program. It is either the small program of sandbox/launcher, built beside the agent as
// LauncherName, or the agent itself, which then pays for its own start each time. BenchmarkTrue measures
// /bin/true on two cores of an EPYC under Linux 6.18, in medians: 0.56 ms by fork and exec alone, 2.5 ms with
// the small launcher, 4.0 ms with the test binary as its own launcher. Of the difference 0.8 ms are the start
// of a Go program, and 0.25 ms the private directory and the Landlock rules.
//
// Needs Linux on amd64 or arm64 and /proc; elsewhere it compiles, and New returns ErrUnavailable. Only amd64
// has been tried.
package sandbox
