// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/command"
)

// write writes a program and returns its SHA-256.
func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func TestAPathLeadsToOneProgramOrToNone(t *testing.T) {
	t.Parallel()
	outside, bundle := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "program"), "x")
	write(t, filepath.Join(bundle, "program"), "x")
	write(t, filepath.Join(bundle, "changeable"), "x")
	open := filepath.Join(outside, "open")
	for _, err := range []error{
		os.WriteFile(filepath.Join(bundle, "text"), []byte("x"), 0o644),
		os.Chmod(filepath.Join(bundle, "changeable"), 0o777),
		os.Mkdir(filepath.Join(bundle, "dir"), 0o755),
		os.Symlink("program", filepath.Join(bundle, "inside")),
		os.Symlink(filepath.Join(outside, "program"), filepath.Join(bundle, "outside")),
		os.Symlink(outside, filepath.Join(bundle, "away")),
		os.Mkdir(open, 0o755),
		os.Chmod(open, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(open, "program"), "x")
	for name, tc := range map[string]struct{ path, want string }{
		"a program of the bundle":               {"program", filepath.Join(bundle, "program")},
		"a link within the bundle":              {"inside", filepath.Join(bundle, "program")},
		"an absolute path":                      {filepath.Join(outside, "program"), filepath.Join(outside, "program")},
		"an absolute path to a link":            {filepath.Join(bundle, "outside"), filepath.Join(outside, "program")},
		"a link out of the bundle":              {"outside", ""},
		"a directory link out of the bundle":    {"away/program", ""},
		"a way out of the bundle":               {"../" + filepath.Base(outside) + "/program", ""},
		"a way out and in again":                {"../" + filepath.Base(bundle) + "/program", ""},
		"nothing":                               {"absent", ""},
		"a directory":                           {"dir", ""},
		"a file that is not executable":         {"text", ""},
		"a device":                              {"/dev/null", ""},
		"a program that everybody may change":   {"changeable", ""},
		"a directory that everybody may change": {filepath.Join(open, "program"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runner := &fake{tier: sandbox.T1}
			_, err := command.New(runner, bundle).Execute(t.Context(), newCall(t, &writv1.CommandExecutor{Path: tc.path}, `{}`))
			got := ""
			for _, spec := range runner.specs {
				got = spec.Path
			}
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q ran %q (%v), want %q", tc.path, got, err, tc.want)
			}
		})
	}
}

func TestAPinnedProgramRunsWhileItIsTheSame(t *testing.T) {
	t.Parallel()
	const content, other = "#!one\n", "#!two\n"
	for name, tc := range map[string]struct {
		before, while func(t *testing.T, path string)
		runs          int
		want          error
	}{
		"unchanged": {runs: 1},
		"changed in place before": {
			before: func(t *testing.T, path string) { write(t, path, other) },
			want:   tools.ErrProgramChanged,
		},
		"changed in place before, with the times put back": {
			before: func(t *testing.T, path string) {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				write(t, path, other)
				if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
					t.Fatal(err)
				}
			},
			want: tools.ErrProgramChanged,
		},
		"replaced before": {
			before: func(t *testing.T, path string) {
				write(t, path+".new", other)
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			},
			want: tools.ErrProgramChanged,
		},
		"replaced by the same": {
			before: func(t *testing.T, path string) {
				write(t, path+".new", content)
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			},
			runs: 1,
		},
		"changed while it runs": {
			while: func(t *testing.T, path string) { write(t, path, other) },
			runs:  1, want: tools.ErrProgramChanged,
		},
		"removed while it runs": {
			while: func(t *testing.T, path string) {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			},
			runs: 1, want: tools.ErrProgramChanged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "program")
			call := newCall(t, &writv1.CommandExecutor{Path: path, Sha256: write(t, path, content)}, `{}`)
			runner := &fake{tier: sandbox.T1}
			executor := command.New(runner, "/")
			if _, err := executor.Execute(t.Context(), call); err != nil {
				t.Fatal(err) // the digest is remembered from here on
			}
			runner.specs = nil
			if tc.before != nil {
				tc.before(t, path)
			}
			if tc.while != nil {
				runner.while = func() { tc.while(t, path) }
			}
			result, err := executor.Execute(t.Context(), call)
			if !errors.Is(err, tc.want) || len(runner.specs) != tc.runs {
				t.Errorf("Execute: %v after %d runs, want %v after %d", err, len(runner.specs), tc.want, tc.runs)
			}
			if err != nil && result != nil && result.JSON != nil {
				t.Errorf("a changed program's result %q is given out", result.JSON)
			}
		})
	}
}

func TestCheckFindsAProgramThatTheSandboxsUserCannotReach(t *testing.T) {
	t.Parallel()
	stranger := sandbox.Report{Tier: sandbox.T1, OwnUser: true, UID: os.Getuid() + 4711, GID: os.Getgid() + 4711}
	for name, tc := range map[string]struct {
		report    sandbox.Report
		dir, file os.FileMode
		want      string
	}{
		"open to all":                {stranger, 0o755, 0o755, ""},
		"a directory closed to it":   {stranger, 0o700, 0o755, "may not pass"},
		"a program closed to it":     {stranger, 0o755, 0o744, "may not pass"},
		"the agent's own user":       {sandbox.Report{Tier: sandbox.T1}, 0o700, 0o700, ""},
		"the owner as another user":  {sandbox.Report{Tier: sandbox.T1, OwnUser: true, UID: os.Getuid()}, 0o700, 0o700, ""},
		"the group as another group": {sandbox.Report{Tier: sandbox.T1, OwnUser: true, UID: stranger.UID, GID: os.Getgid()}, 0o750, 0o750, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Not t.TempDir, above which the testing package closes directories to others.
			base, err := os.MkdirTemp("", "w")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(base) })
			dir := filepath.Join(base, "dir")
			path := filepath.Join(dir, "program")
			if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
			write(t, path, "x")
			if err := errors.Join(os.Chmod(path, tc.file), os.Chmod(dir, tc.dir)); err != nil {
				t.Fatal(err)
			}
			err = command.New(&fake{tier: sandbox.T1, report: tc.report}, "/").Check(newTool(&writv1.CommandExecutor{Path: path}))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Check: %v, want %q in it", err, tc.want)
			}
		})
	}
}
