// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what the processes of a group hold.
type usage struct {
	// threads counts the dead that nobody has waited for too: they hold an id.
	threads int
	// memory is private and shared anonymous memory. Pages that a parent shares with its child until one
	// writes are counted in both.
	memory int64
	// cpu includes that of children waited for.
	cpu time.Duration
}

// clockTick is the unit of times in /proc, the same on every architecture Go runs on.
const clockTick = time.Second / 100

// measure adds up the usage of each group. Processes that end meanwhile are not counted; without /proc
// nothing is.
func measure(groups map[int]*usage) {
	eachProcess(func(pid string, st procStat) {
		u := groups[st.group]
		if u == nil {
			return
		}
		u.threads += st.threads
		u.cpu += st.cpu
		u.memory += anonymous(pid)
	})
}

// groupLives reports whether a group has a process that is not dead. The dead wait for their parent, which
// after the end of theirs is the system's first process and may take its time.
func groupLives(group int) bool {
	lives := false
	eachProcess(func(_ string, st procStat) {
		lives = lives || st.group == group && !st.dead
	})
	return lives
}

// threadsOf counts the threads of a user's processes.
func threadsOf(uid int) int {
	n := 0
	eachProcess(func(pid string, st procStat) {
		var owner unix.Stat_t
		if unix.Stat("/proc/"+pid, &owner) == nil && int(owner.Uid) == uid {
			n += st.threads
		}
	})
	return n
}

func eachProcess(f func(pid string, st procStat)) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	var buf [1024]byte
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if name[0] < '1' || name[0] > '9' {
				continue
			}
			if st, ok := parseStat(readSmall("/proc/"+name+"/stat", buf[:])); ok {
				f(name, st)
			}
		}
		if err != nil {
			return
		}
	}
}

// readSmall reads what fits in buf; files of /proc give all they have at once.
func readSmall(path string, buf []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

type procStat struct {
	group   int
	threads int
	dead    bool // and not waited for yet
	cpu     time.Duration
}

// Fields of /proc/PID/stat after the name, which ends at the last parenthesis; proc_pid_stat(5) counts
// from 1 and the state is its third.
const (
	statState   = 0
	statGroup   = 5 - 3
	statUtime   = 14 - 3
	statCstime  = 17 - 3
	statThreads = 20 - 3
)

// parseStat reads a line of /proc/PID/stat. The name in it is the program's choice, parentheses included.
func parseStat(line []byte) (st procStat, ok bool) {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return st, false
	}
	fields := bytes.Fields(line[i+1:])
	if len(fields) <= statThreads {
		return st, false
	}
	ok = true
	number := func(f int) int {
		v, err := strconv.Atoi(string(fields[f]))
		ok = ok && err == nil
		return v
	}
	st.group = number(statGroup)
	st.threads = number(statThreads)
	// A leader that is dead while its threads are not looks dead too.
	st.dead = (fields[statState][0] == 'Z' || fields[statState][0] == 'X') && st.threads <= 1
	for f := statUtime; f <= statCstime; f++ {
		st.cpu += time.Duration(number(f)) * clockTick
	}
	return st, ok
}

// anonymous is the memory of a process that is no file's.
func anonymous(pid string) int64 {
	var buf [4096]byte
	return parseAnonymous(readSmall("/proc/"+pid+"/status", buf[:]))
}

// parseAnonymous adds up the lines of /proc/PID/status that count memory without a file, in kB there. The
// name of the process stands before them with its line ends escaped.
func parseAnonymous(status []byte) int64 {
	var sum int64
	for _, key := range []string{"\nRssAnon:", "\nRssShmem:", "\nVmSwap:"} {
		_, rest, ok := bytes.Cut(status, []byte(key))
		if !ok {
			continue
		}
		value, _, _ := bytes.Cut(rest, []byte(" kB"))
		kb, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err == nil {
			sum += kb << 10
		}
	}
	return sum
}
