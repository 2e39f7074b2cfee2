// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
	"golang.org/x/sys/unix"
)

// openInheritable opens a file as a careless library would: without close-on-exec.
func openInheritable(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestManyRunsLeaveNothing runs everything that ends badly, some at the same time, and counts.
func TestManyRunsLeaveNothing(t *testing.T) {
	r := newRunner(t) // its clean-up fails if a private directory stays
	short := func(s sandbox.Spec, l sandbox.Limits) sandbox.Spec {
		l.Wall = 300 * time.Millisecond
		s.Limits = l
		return s
	}
	kinds := []sandbox.Spec{
		attempt("exit", "0"),
		attempt("setsid"),
		attempt("read_file", "/etc/passwd"),
		attempt("int80"),
		attempt("deep_dirs", "50"),
		attempt("locked_dirs"),
		{Path: "/nothing/here"},
		{Path: "/usr"},
		{Path: "/bin/sh", Args: []string{"-c", "exec 3>f; (while :; do :; done) & exit 0"}},
		{Path: "/bin/sh", Args: []string{"-c", "echo x > f; mkdir d; exit 3"}, ReadOnly: []string{"/bin/mkdir"}},
		short(attempt("wait"), sandbox.Limits{}),
		short(attempt("ignore_sigterm"), sandbox.Limits{Grace: time.Millisecond}),
		short(attempt("flood", "1", "100000"), sandbox.Limits{Output: 10}),
		short(attempt("processes", "12"), sandbox.Limits{Processes: 8}),
		{Path: victim(), Args: []string{"exit", "0"}, Stdin: make([]byte, 1<<20)},
	}
	_, _ = r.Run(t.Context(), kinds[0]) // what is made once is made now
	before := openDescriptors(t)
	const runs, together = 200, 4
	work := make(chan sandbox.Spec)
	var wg sync.WaitGroup
	for range together {
		wg.Go(func() {
			for s := range work {
				if _, err := r.Run(t.Context(), s); errors.Is(err, sandbox.ErrLeftover) {
					t.Errorf("Run(%s %q) = %v", s.Path, s.Args, err)
				}
			}
		})
	}
	for i := range runs {
		work <- kinds[i%len(kinds)]
	}
	close(work)
	wg.Wait()
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before: %v\nafter: %v", before, after)
	}
	if alive := aliveWith(t, victim()); len(alive) != 0 {
		t.Errorf("still alive: %v", alive)
	}
	if children := childrenOf(t, os.Getpid()); len(children) != 0 {
		t.Errorf("children that are left, or not waited for: %v", children)
	}
}

// openDescriptors are the test's own, each with what it is open on.
func openDescriptors(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil {
			open = append(open, filepath.Base(l)+" "+target)
		}
	}
	return open
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			all = append(all, strings.Fields(string(b))...)
		}
	}
	return all
}

// TestTheAgentCanBeItsOwnLauncher runs without the small launcher: TestMain calls MaybeLaunch.
func TestTheAgentCanBeItsOwnLauncher(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(o *sandbox.Options) { o.Launcher = "" })
	if res := mustRun(t, r, attempt("print", "x")); string(res.Stdout) != "[\"x\"]\n" {
		t.Errorf("stdout %q, stderr %q", res.Stdout, res.Stderr)
	}
	if res := mustRun(t, r, attempt("tcp_socket")); res.ExitCode != 3 {
		t.Errorf("a socket was opened: exit %d", res.ExitCode)
	}
}

func TestAnUnusableLauncherIsFoundAtStart(t *testing.T) {
	t.Parallel()
	newRunner(t)
	for _, launcher := range []string{"/nothing/here", "/usr", "/bin/true", "/etc/passwd"} {
		o := sandbox.Options{Launcher: launcher, Scratch: t.TempDir()}
		if r, err := sandbox.New(o); !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("New with launcher %s = %v, %v, want %v", launcher, r, err, sandbox.ErrUnavailable)
		}
	}
	o := sandbox.Options{Launcher: filepath.Join(programs, sandbox.LauncherName), Scratch: "/nothing/here"}
	if r, err := sandbox.New(o); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("New with a missing scratch directory = %v, %v", r, err)
	}
	o = sandbox.Options{MaxProcesses: -1}
	if r, err := sandbox.New(o); !errors.Is(err, sandbox.ErrSpec) {
		t.Errorf("New with negative MaxProcesses = %v, %v", r, err)
	}
}

// TestALauncherAloneEnds holds that the launcher is of no use by hand.
func TestALauncherAloneEnds(t *testing.T) {
	t.Parallel()
	c := exec.Command(filepath.Join(programs, sandbox.LauncherName))
	c.Stderr = io.Discard
	var exit *exec.ExitError
	if err := c.Run(); !errors.As(err, &exit) || exit.ExitCode() != 125 {
		t.Errorf("it ended with %v, want exit code 125", err)
	}
}

// TestTheSameAsAnUnprivilegedAgent runs the tests again as user 65534 under no_new_privs, which is what an
// agent in a container is.
func TestTheSameAsAnUnprivilegedAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: these tests are it already")
	}
	newRunner(t)
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, 65534, 65534), os.Chmod(dir, 0o755),
		copyProgram(os.Args[0], filepath.Join(dir, "tests"))); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(victim(), "run_as", "65534", filepath.Join(dir, "tests"), "-test.count=1", "-test.timeout=5m")
	c.Dir = home
	c.Env = []string{"HOME=" + home, "TMPDIR=" + home, "PATH=/usr/bin:/bin", programsEnv + "=" + programs}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// TestToolsDieWithTheAgent kills an agent with a program under way.
func TestToolsDieWithTheAgent(t *testing.T) {
	t.Parallel()
	newRunner(t)
	const marker = "SANDBOX_TEST_AGENT"
	if dir := os.Getenv(marker); dir != "" {
		r := newRunner(t)
		s := attempt("ignore_sigterm", dir)
		s.Limits.Wall = time.Minute
		s.Progress = func([]byte) { os.Stdout.WriteString("started\n") }
		_, _ = r.Run(t.Context(), s)
		return
	}
	dir := t.TempDir()
	c := exec.Command(os.Args[0], "-test.run=^TestToolsDieWithTheAgent$")
	c.Env = append(os.Environ(), marker+"="+dir, programsEnv+"="+programs, "TMPDIR="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	name := "ignore_sigterm\x00" + dir
	if len(aliveWith(t, name)) == 0 {
		t.Fatal("the program does not run, so nothing is proven")
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	end := time.Now().Add(5 * time.Second)
	for len(aliveWith(t, name)) > 0 {
		if time.Now().After(end) {
			t.Fatalf("it lives on: %v", aliveWith(t, name))
		}
	}
}
