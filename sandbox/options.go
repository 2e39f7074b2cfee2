// SPDX-License-Identifier: Apache-2.0

package sandbox

// Options say how a Runner runs things, whatever they are. The zero value is usable.
type Options struct {
	// Launcher is the program built from sandbox/launcher. Empty means the one named LauncherName beside
	// the running program if there is one, and else the running program itself, which must then call
	// MaybeLaunch first thing.
	Launcher string
	// Scratch is the directory in which private directories are made; empty means the system's temporary
	// directory. The user that programs run as must be able to pass through it, or a program that goes by
	// the name of its directory does not find it. It SHOULD lie on a file system of bounded size: a run is polled, not held, to its disk
	// limit.
	Scratch string
	// User is whom programs run as. Nil means user and group 65534 where the agent is root and may change
	// its user, and the agent's own otherwise. Another user than the agent's own needs CAP_SETUID,
	// CAP_SETGID, CAP_CHOWN, CAP_KILL and CAP_DAC_OVERRIDE.
	User *User
	// MaxProcesses is how many processes and threads the kernel lets all runs have together, beside those
	// that their user has already; zero is 256, and a run whose own limit is higher has that. The kernel
	// counts by user, not by run, hence one number for all; it does not hold root to any.
	MaxProcesses int
}

// User is whom a program runs as.
type User struct{ UID, GID int }

// LauncherName is the file name of the launcher where it is installed beside the agent.
const LauncherName = "writ-sandbox"
