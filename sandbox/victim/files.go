// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func readFile(a []string) error {
	b, err := os.ReadFile(a[0])
	if err == nil && len(b) == 0 {
		return errStopped
	}
	return err
}

func readDir(a []string) error {
	_, err := os.ReadDir(a[0])
	return err
}

func writeFile(a []string) error { return os.WriteFile(a[0], []byte("victim was here\n"), 0o600) }

func touchFile(a []string) error { return os.Chtimes(a[0], time.Unix(1, 0), time.Unix(1, 0)) }

func setxattrFile(a []string) error { return unix.Setxattr(a[0], "user.victim", []byte("x"), 0) }

func inotifyFile(a []string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(fd, a[0], unix.IN_ALL_EVENTS)
	return err
}

// symlinkRead reads a file by a link from where it may write.
func symlinkRead(a []string) error {
	defer os.Remove("link")
	if err := os.Symlink(a[0], "link"); err != nil {
		return err
	}
	return readFile([]string{"link"})
}

func parentEnviron([]string) error {
	return readFile([]string{fmt.Sprintf("/proc/%d/environ", os.Getppid())})
}

// execDropped copies a program to the working directory and executes the copy.
func execDropped(a []string) error {
	b, err := os.ReadFile(a[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile("dropped", b, 0o700); err != nil {
		return err
	}
	defer os.Remove("dropped")
	return startAndWait("./dropped")
}

func execMemfd(a []string) error {
	b, err := os.ReadFile(a[0])
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("dropped", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	return startAndWait(fmt.Sprintf("/proc/self/fd/%d", fd))
}

func startAndWait(path string) error {
	pid, err := syscall.ForkExec(path, []string{path, "exit", "0"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	if err != nil {
		return err
	}
	_, err = syscall.Wait4(pid, nil, 0, nil)
	return err
}

func wxMemory([]string) error {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

// fileSize writes a file of so many MiB.
func fileSize(a []string) error {
	f, err := os.Create("large")
	if err != nil {
		return err
	}
	defer os.Remove("large")
	mib := make([]byte, 1<<20)
	for range number(a[0]) {
		if _, err := f.Write(mib); err != nil {
			return err
		}
	}
	return nil
}

// manyFiles writes so many files of so many KiB, and stays for a while.
func manyFiles(a []string) error {
	if err := os.Mkdir("many", 0o700); err != nil {
		return err
	}
	defer os.RemoveAll("many")
	data := make([]byte, number(a[1])<<10)
	for i := range number(a[0]) {
		if err := os.WriteFile(fmt.Sprintf("many/%d", i), data, 0o600); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond)
	return nil
}

// deepDirs makes a chain of so many directories with a file in each, and leaves it.
func deepDirs(a []string) error {
	name := strings.Repeat("d", 20)
	for range number(a[0]) {
		if err := os.Mkdir(name, 0o700); err != nil {
			return err
		}
		if err := os.Chdir(name); err != nil {
			return err
		}
		if err := os.WriteFile("f", []byte("x"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// lockedDirs leaves directories that their own user cannot look into, with something in them.
func lockedDirs([]string) error {
	for _, name := range []string{"a", "a/b", "a/b/c"} {
		if err := os.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile("a/b/c/f", []byte("x"), 0o400); err != nil {
		return err
	}
	unix.Umask(0o777)
	return os.Mkdir("a/locked", 0o777)
}

func openFiles(a []string) error {
	for range number(a[0]) {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	return nil
}

// flood writes so many bytes to descriptor 1 or 2, in lines if asked, and then says so by its exit code.
func flood(a []string) error {
	f := os.Stdout
	if a[0] == "2" {
		f = os.Stderr
	}
	chunk := []byte(strings.Repeat("x", 4096))
	if len(a) > 2 {
		chunk = []byte(strings.Repeat(strings.Repeat("x", 63)+"\n", 64))
	}
	for left := number(a[1]); left > 0; {
		n := min(left, len(chunk))
		if _, err := f.Write(chunk[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func printDir([]string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	st, err := os.Stat(".")
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s %o\n", dir, st.Mode().Perm())
	return err
}

func echoStdin([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func printArgs(a []string) error {
	_, err := fmt.Printf("%q\n", a)
	return err
}
