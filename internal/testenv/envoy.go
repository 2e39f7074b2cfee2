// SPDX-License-Identifier: Apache-2.0

// Package testenv starts real programs for tests: an Envoy with a configuration
// that the test made, on loopback and unix sockets only.
//
//	proxy := testenv.Start(t, bootstrap)
//	response, err := http.Get("http://" + listener)
//
// It promises that a program it started is gone when the test ends, and that a
// test whose program is missing fails with how to get it: nothing is skipped. It
// is for tests only.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 5 * time.Second
	pollInterval = 20 * time.Millisecond
)

// errNoEnvoy says how to get an Envoy.
var errNoEnvoy = errors.New("no Envoy found: run \"make deps\", put envoy on the PATH, or set ENVOY to its path")

// FindEnvoy returns the path of an Envoy: $ENVOY, else the PATH's, else that of
// "make deps" in the root of the module.
func FindEnvoy() (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("ENVOY: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	for _, place := range []string{".venv/bin/envoy", ".cache/venv/bin/envoy", ".cache/bin/envoy"} {
		if path := filepath.Join(root, place); executable(path) {
			return path, nil
		}
	}
	return "", errNoEnvoy
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// moduleRoot returns the nearest directory above that holds a go.mod.
func moduleRoot() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "go.mod")); err == nil {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", errNoEnvoy
		}
		directory = parent
	}
}

// Dir returns a new directory whose path is short enough for a unix socket, and
// removes it when the test ends.
func Dir(t testing.TB) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(directory); err != nil {
			t.Errorf("remove %s: %v", directory, err)
		}
	})
	return directory
}

// Address returns a loopback address with a port that was free a moment ago.
func Address(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Envoy is an Envoy that runs until its test ends.
type Envoy struct {
	admin   *http.Client
	command *exec.Cmd
	exited  chan struct{}
	log     string
}

// Start runs an Envoy with the configuration in YAML, whose admin interface MUST
// be at the unix socket admin, and waits until it is live. It fails the test if
// Envoy cannot be found or does not start.
func Start(t testing.TB, config []byte, admin string) *Envoy {
	t.Helper()
	directory := Dir(t)
	file := filepath.Join(directory, "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatalf("write Envoy's configuration: %v", err)
	}
	envoy := &Envoy{admin: clientOf(admin), exited: make(chan struct{}), log: filepath.Join(directory, "envoy.log")}
	// --use-dynamic-base-id lets several run at once.
	envoy.run(t, "-c", file, "--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id")
	envoy.wait(t)
	return envoy
}

// Validate has an Envoy check a configuration in YAML.
func Validate(t testing.TB, config []byte) error {
	t.Helper()
	file := filepath.Join(Dir(t), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatalf("write Envoy's configuration: %v", err)
	}
	path, err := FindEnvoy()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--mode", "validate", "-c", file, "--log-level", "warning").CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy --mode validate: %w\n%s", err, out)
	}
	return nil
}

func clientOf(socket string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: stopTimeout}
}

func (e *Envoy) run(t testing.TB, args ...string) {
	t.Helper()
	path, err := FindEnvoy()
	if err != nil {
		t.Fatal(err)
	}
	e.command = exec.Command(path, args...)
	e.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(e.log)
	if err != nil {
		t.Fatalf("make Envoy's log: %v", err)
	}
	defer log.Close()
	e.command.Stdout, e.command.Stderr = log, log
	if err := e.command.Start(); err != nil {
		t.Fatalf("start Envoy: %v", err)
	}
	go func() {
		// How it ended is of no interest: wait says whether it was ever live.
		_ = e.command.Wait()
		close(e.exited)
	}()
	t.Cleanup(func() { e.stop(t) })
}

func (e *Envoy) wait(t testing.TB) {
	t.Helper()
	deadline := time.After(startTimeout)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !e.live() {
		select {
		case <-e.exited:
			t.Fatalf("Envoy ended at its start:\n%s", e.Log())
		case <-deadline:
			t.Fatalf("Envoy was not live after %s:\n%s", startTimeout, e.Log())
		case <-tick.C:
		}
	}
}

func (e *Envoy) live() bool {
	response, err := e.admin.Get("http://admin/ready")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Log returns what Envoy logged so far.
func (e *Envoy) Log() string {
	text, err := os.ReadFile(e.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// stop ends the Envoy that was started, by its process id.
func (e *Envoy) stop(t testing.TB) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := e.command.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("stop Envoy: %v", err)
		}
		select {
		case <-e.exited:
			return
		case <-time.After(stopTimeout):
		}
	}
}
