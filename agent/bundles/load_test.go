// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/writ-dev/writ/agent/bundles"
)

// write makes a bundle's directory: the base, with files changed, added, or
// taken away where the text is DELETE.
func write(t testing.TB, changes []txtar.File) string {
	t.Helper()
	base, err := txtar.ParseFile("testdata/base.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, file := range append(base.Files, changes...) {
		files[file.Name] = string(file.Data)
		if strings.TrimSpace(string(file.Data)) == "DELETE" {
			delete(files, file.Name)
		}
	}
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEveryProblemIsToldWithItsPlace(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/problems/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want, changes := "", []txtar.File{}
			for _, file := range archive.Files {
				if file.Name == "want" {
					want = strings.TrimSpace(string(file.Data))
					continue
				}
				changes = append(changes, file)
			}
			_, err = bundles.LoadDir(t.Context(), write(t, changes), bundles.Options{})
			var problems bundles.Errors
			if !errors.As(err, &problems) {
				t.Fatalf("LoadDir gave %v, want problems", err)
			}
			if diff := cmp.Diff(want, problems.Error()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWildcardThatSelectsNothingAndAClaimAreWarnings(t *testing.T) {
	t.Parallel()
	dir := write(t, []txtar.File{{Name: "grants/more.yaml", Data: []byte(`grants:
  - name: loose
    effect: GRANT_EFFECT_ALLOW
    tools: ["shop.order", "stock.*"]
    condition: args.count < 3 && claimed.intent == "order"
`)}})
	loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, warning := range loaded.Warnings {
		got = append(got, warning.String())
	}
	want := []string{
		"grants/more.yaml:4:27: no tool matches stock.*",
		"grants/more.yaml:5:34: the condition reads what the planner claims; it is not verified",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestTheDigestIsThatOfTheFiles(t *testing.T) {
	t.Parallel()
	digest := func(changes ...txtar.File) [32]byte {
		bundle, err := bundles.LoadDir(t.Context(), write(t, changes), bundles.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return bundle.Digest()
	}
	same := digest()
	if digest() != same {
		t.Error("two copies of one bundle have two digests")
	}
	if digest(txtar.File{Name: "README", Data: []byte("unread")}) != same {
		t.Error("a file that is not read changes the digest")
	}
	if digest(txtar.File{Name: "bundle.yaml", Data: []byte("name: base \n")}) == same {
		t.Error("a changed file does not change the digest")
	}
}

func TestWhatIsNotAFileInsideIsRefused(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	grants := "grants:\n  - {name: evil, effect: GRANT_EFFECT_ALLOW, tools: [\"*\"]}\n"
	if err := os.WriteFile(outside, []byte(grants), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(path string) error{
		"a link that leads out":  func(path string) error { return os.Symlink(outside, path) },
		"a named pipe":           func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"a link to nowhere":      func(path string) error { return os.Symlink("nowhere.yaml", path) },
		"a link to itself":       func(path string) error { return os.Symlink("evil.yaml", path) },
		"a file over the limit":  func(path string) error { return os.WriteFile(path, make([]byte, 2048), 0o644) },
		"a file that is unread":  func(path string) error { return os.WriteFile(path, []byte("\xff\xfe"), 0o644) },
		"a link out of a folder": func(path string) error { return os.Symlink(filepath.Dir(outside), path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, nil)
			if err := place(filepath.Join(dir, "grants", "evil.yaml")); err != nil {
				t.Fatal(err)
			}
			_, err := bundles.LoadDir(t.Context(), dir, bundles.Options{Limits: bundles.Limits{FileBytes: 2047}})
			var problems bundles.Errors
			if !errors.As(err, &problems) || len(problems) != 1 || problems[0].File != "grants/evil.yaml" {
				t.Errorf("LoadDir gave %v, want one problem with grants/evil.yaml", err)
			}
		})
	}
}

func TestLimitsHoldToTheByte(t *testing.T) {
	t.Parallel()
	text := []byte("name: base # " + strings.Repeat("x", 1000) + "\n")
	dir := write(t, []txtar.File{{Name: "bundle.yaml", Data: text}})
	for over, want := range map[int64]bool{-1: false, 0: true, 1: true} {
		_, err := bundles.LoadDir(t.Context(), dir, bundles.Options{Limits: bundles.Limits{FileBytes: int64(len(text)) + over}})
		if (err == nil) != want {
			t.Errorf("with a limit of the file's size %+d LoadDir gave %v", over, err)
		}
	}
	for files, want := range map[int]bool{3: false, 4: true, 5: true} {
		_, err := bundles.LoadDir(t.Context(), dir, bundles.Options{Limits: bundles.Limits{Files: files}})
		if (err == nil) != want {
			t.Errorf("with a limit of %d files LoadDir gave %v", files, err)
		}
	}
}
