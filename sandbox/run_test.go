// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/writ-dev/writ/sandbox"
)

func TestOrdinaryProgramsWork(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	tests := []struct {
		name string
		spec sandbox.Spec
		want string
	}{
		{"true", sandbox.Spec{Path: "/bin/true"}, ""},
		{"a shell", sandbox.Spec{Path: "/bin/sh", Args: []string{"-c", "echo $((6*7))"}}, "42\n"},
		{
			"a shell with a pipeline and files of its own",
			sandbox.Spec{
				Path: "/bin/sh", Args: []string{"-c", "printf 'b\\na\\n' > f; mkdir d; mv f d/f; sort d/f | tr a-z A-Z; rm -r d"},
				Env: []string{"PATH=/usr/bin:/bin"}, ReadOnly: []string{"/usr/bin", "/bin"},
			},
			"A\nB\n",
		},
		{
			"python with threads, a pipe and a child",
			sandbox.Spec{
				Path: "/usr/bin/python3", ReadOnly: []string{"/bin/echo"},
				Args: []string{"-c", "import subprocess, threading, json, tempfile\n" +
					"t = threading.Thread(target=lambda: print(json.dumps({'a': 1}), flush=True)); t.start(); t.join()\n" +
					"tempfile.TemporaryFile().write(b'x')\n" +
					"subprocess.run(['/bin/echo', 'child'])"},
			},
			"{\"a\": 1}\nchild\n",
		},
		{"git", sandbox.Spec{Path: "/usr/bin/git", Args: []string{"--version"}}, "git version "},
		{"the runtime of Go", attempt("print", "x"), "[\"x\"]\n"},
		{
			"arguments pass no shell",
			attempt("print", "$(id)", "`id`", "a b", "*", ";", "", "\n"),
			fmt.Sprintf("%q\n", []string{"$(id)", "`id`", "a b", "*", ";", "", "\n"}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(tt.spec.Path); err != nil {
				t.Skipf("SKIPPED, NOTHING PROVEN: %v", err)
			}
			res := mustRun(t, r, tt.spec)
			if res.ExitCode != 0 || !strings.HasPrefix(string(res.Stdout), tt.want) || tt.want == "" && len(res.Stdout) > 0 {
				t.Errorf("exit %d %s, stdout %q, want %q\nstderr: %s", res.ExitCode, res.Signal, res.Stdout, tt.want, res.Stderr)
			}
		})
	}
}

func TestTheEnvironmentIsTheSpecs(t *testing.T) {
	t.Setenv("SANDBOX_TEST_SECRET", "leaked")
	out, err := exec.Command(victim(), "print_environ").Output()
	if err != nil || !strings.Contains(string(out), "leaked") {
		t.Fatalf("outside the secret is not inherited, so nothing is proven: %v", err)
	}
	r := newRunner(t)
	for _, env := range [][]string{nil, {"A=b", "EMPTY=", "GOMAXPROCS=2"}} {
		s := attempt("print_environ")
		s.Env = env
		res := mustRun(t, r, s)
		got := strings.Fields(string(res.Stdout))
		if diff := cmp.Diff(env, got, cmp.Transformer("sorted", slices.Sorted[string]), cmp.FilterValues(
			func(a, b []string) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())); diff != "" {
			t.Errorf("environment (-want +got):\n%s", diff)
		}
	}
}

func TestDescriptorsOfTheAgentAreNotInherited(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	// One that, unlike Go's own, is not close-on-exec.
	leaky := openInheritable(t, os.Args[0])
	c := exec.Command("/bin/sh", "-c", fmt.Sprintf("true <&%d", leaky))
	if err := c.Run(); err != nil && leaky < 10 {
		t.Fatalf("outside it is not inherited, so nothing is proven: %v", err)
	}
	if out, err := exec.Command(victim(), "print_descriptors").Output(); err != nil || len(out) == 0 {
		t.Fatalf("outside it is not inherited, so nothing is proven: %v", err)
	}
	res := mustRun(t, r, attempt("print_descriptors"))
	if res.ExitCode != 0 || len(res.Stdout) != 0 {
		t.Errorf("exit %d, the program has descriptors %q", res.ExitCode, res.Stdout)
	}
}

func TestStdinIsWhatTheSpecSays(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	for _, n := range []int{0, 1, 65536, 65537, 900_000} {
		s := attempt("echo_stdin")
		s.Stdin = []byte(strings.Repeat("i", n))
		if res := mustRun(t, r, s); string(res.Stdout) != string(s.Stdin) {
			t.Errorf("of %d bytes %d came back", n, len(res.Stdout))
		}
	}
	t.Run("a program need not read it", func(t *testing.T) {
		t.Parallel()
		s := attempt("exit", "0")
		s.Stdin = make([]byte, 4<<20)
		mustRun(t, r, s)
	})
}

func TestTheDirectoryIsPrivateOrTheSpecs(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	res := mustRun(t, r, attempt("print_dir"))
	dir, mode, _ := strings.Cut(strings.TrimSpace(string(res.Stdout)), " ")
	if mode != "700" || !strings.HasPrefix(filepath.Base(dir), "writ-") {
		t.Errorf("it ran in %s with mode %s", dir, mode)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	given := newWorld(t)
	s := attempt("write_file", "new")
	s.Dir = given.dir
	if res := mustRun(t, r, s); res.ExitCode != 3 {
		t.Errorf("a directory that is only entered was written to: exit %d", res.ExitCode)
	}
	s.ReadWrite = []string{given.dir}
	if res := mustRun(t, r, s); res.ExitCode != 0 {
		t.Errorf("a writable directory was not written to: %s", res.Stderr)
	}
	if _, err := os.Stat(filepath.Join(given.dir, "new")); err != nil {
		t.Errorf("the spec's directory was cleared: %v", err)
	}
}

func TestNamedPathsGiveWhatTheirListSays(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	w := newWorld(t)
	program := filepath.Join(w.dir, "program")
	b, err := os.ReadFile(victim())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	sh := func(command string) sandbox.Spec {
		return sandbox.Spec{Path: "/bin/sh", Args: []string{"-c", command}, Env: []string{"W=" + w.dir}}
	}
	tests := []struct {
		name      string
		spec      sandbox.Spec
		ro, rw    []string
		succeeded bool
	}{
		{"unnamed files are not read", sh(`read x < $W/file; test -n "$x"`), nil, nil, false},
		{"readable files are read", sh(`read x < $W/file; test -n "$x"`), []string{w.dir}, nil, true},
		{"a readable file alone is read", sh(`read x < $W/file; test -n "$x"`), []string{w.file}, nil, true},
		{"readable files are not written", sh(`echo x > $W/file`), []string{w.dir}, nil, false},
		{"readable programs are executed", sh(`$W/program exit 0`), []string{w.dir}, nil, true},
		{"writable files are written", sh(`echo x > $W/file`), nil, []string{w.dir}, true},
		{"a writable file alone is written", sh(`echo x > $W/file`), nil, []string{w.file}, true},
		{"writable programs are not executed", sh(`$W/program exit 0`), nil, []string{w.dir}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.spec
			s.ReadOnly, s.ReadWrite = tt.ro, tt.rw
			if res := mustRun(t, r, s); (res.ExitCode == 0) != tt.succeeded {
				t.Errorf("exit %d, stderr %s", res.ExitCode, res.Stderr)
			}
		})
	}
}

func TestMemoryToCompileIntoIsAskedFor(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	if !r.Report().ExecGain {
		t.Skip("SKIPPED, NOTHING PROVEN: this kernel cannot refuse it")
	}
	s := attempt("wx_memory")
	s.JIT = true
	if res := mustRun(t, r, s); res.ExitCode != 0 {
		t.Errorf("refused though asked for: %s", res.Stderr)
	}
}

func TestTheEndOfAProgramIsTold(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	res := mustRun(t, r, attempt("exit", "42"))
	if res.ExitCode != 42 || res.Signal != "" || res.Limit != sandbox.LimitNone {
		t.Errorf("exit %d, signal %q, limit %v", res.ExitCode, res.Signal, res.Limit)
	}
	if res.Wall <= 0 || res.CPU <= 0 || res.MaxRSS < 1<<20 {
		t.Errorf("used %v, %v, %d bytes", res.Wall, res.CPU, res.MaxRSS)
	}
	res = mustRun(t, r, sandbox.Spec{Path: "/bin/sh", Args: []string{"-c", "kill -SEGV $$"}})
	if res.ExitCode != -1 || res.Signal != "SIGSEGV" {
		t.Errorf("exit %d, signal %q, want a SIGSEGV", res.ExitCode, res.Signal)
	}
}

func TestProgressIsLinesAsTheyArrive(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	long := strings.Repeat("x", 3*sandbox.MaxProgressLine)
	tests := []struct {
		name, script string
		want         []string
	}{
		{"whole lines", `printf 'one\ntwo\n' >&2`, []string{"one", "two"}},
		{"empty lines", `printf '\n\nx\n' >&2`, []string{"", "", "x"}},
		{"a line in two parts", `printf on >&2; printf 'e\n' >&2`, []string{"one"}},
		{"a last line without an end", `printf 'one\ntw' >&2`, []string{"one", "tw"}},
		{"no lines from standard output", `echo one; echo two >&2`, []string{"two"}},
		{
			"a long line is cut and the next is whole", `printf '` + long + `\nnext\n' >&2`,
			[]string{long[:sandbox.MaxProgressLine], "next"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			s := sandbox.Spec{Path: "/bin/sh", Args: []string{"-c", tt.script}}
			s.Progress = func(line []byte) { got = append(got, string(line)) }
			mustRun(t, r, s)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// TestProgressComesBeforeTheEnd holds that lines are not kept back: the program waits for its end to be
// brought about by the first.
func TestProgressComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	var once sync.Once
	var first time.Time
	s := sandbox.Spec{Path: "/bin/sh", Args: []string{"-c", "echo started >&2; sleep 0.3"}, ReadOnly: []string{"/bin/sleep"}}
	s.Progress = func([]byte) { once.Do(func() { first = time.Now() }) }
	mustRun(t, r, s)
	if early := time.Since(first); early < 200*time.Millisecond {
		t.Errorf("the line came %v before the end", early)
	}
}
