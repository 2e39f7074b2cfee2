// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
	"go.uber.org/goleak"
)

// programs is where the victim and the launcher are, in a directory that every user may enter.
var programs string

// programsEnv hands the built programs to the same tests run as another user.
const programsEnv = "SANDBOX_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	sandbox.MaybeLaunch()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	programs = os.Getenv(programsEnv)
	if programs == "" {
		dir, err := build()
		defer os.RemoveAll(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		programs = dir
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		return dir, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	for name, source := range map[string]string{"victim": "./victim", sandbox.LauncherName: "./launcher"} {
		c := exec.Command("go", "build", "-o", filepath.Join(dir, name), source)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("building %s: %w\n%s", source, err, out)
		}
	}
	return dir, nil
}

func victim() string { return filepath.Join(programs, "victim") }

// newRunner makes a runner with the small launcher and a directory of its own for scratch, which must be
// empty in the end.
func newRunner(t testing.TB, change ...func(*sandbox.Options)) *sandbox.Runner {
	t.Helper()
	if r := sandbox.Probe(); r.Tier < sandbox.T1 {
		t.Skipf("SKIPPED, NOTHING PROVEN: this system gives no sandbox:\n%v", r)
	}
	scratch, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	// Programs may be another user, and some find their directory by its path.
	if err := os.Chmod(scratch, 0o711); err != nil {
		t.Fatal(err)
	}
	o := sandbox.Options{Launcher: filepath.Join(programs, sandbox.LauncherName), Scratch: scratch}
	for _, f := range change {
		f(&o)
	}
	t.Cleanup(func() {
		if err := os.Remove(scratch); err != nil {
			t.Errorf("the runs left something: %v", err)
		}
	})
	r, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// attempt is a spec of the victim.
func attempt(args ...string) sandbox.Spec {
	return sandbox.Spec{Path: victim(), Args: args}
}

// outside runs the victim without a sandbox, in a directory of its own.
func outside(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, victim(), args...)
	c.Dir = t.TempDir()
	var buf bytes.Buffer
	c.Stderr = &buf
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), buf.String()
}

// run runs a spec that must end by itself.
func mustRun(t testing.TB, r *sandbox.Runner, s sandbox.Spec) sandbox.Result {
	t.Helper()
	res, err := r.Run(t.Context(), s)
	if err != nil {
		t.Fatalf("Run(%s %q) = %v\nstderr: %s", s.Path, s.Args, err, res.Stderr)
	}
	return res
}

// aliveWith returns the processes whose command line holds a text.
func aliveWith(t testing.TB, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var alive []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), text) {
			alive = append(alive, fmt.Sprintf("%s %q", f, b))
		}
	}
	return alive
}

// killFrom kills the process whose id stands in file.
func killFrom(file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(string(b)); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
