// SPDX-License-Identifier: Apache-2.0

package floors_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// Every dependency that go.mod names by itself has its line in docs/dependencies.md, and
// no other has.
func TestEachDirectDependencyHasItsLine(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			told = append(told, name[1])
		}
	}
	for _, require := range mod.Require {
		if !require.Indirect && !slices.Contains(told, require.Mod.Path) {
			t.Errorf("docs/dependencies.md does not say what %s is for", require.Mod.Path)
		}
	}
	for _, name := range told {
		if !slices.ContainsFunc(mod.Require, func(r *modfile.Require) bool { return !r.Indirect && r.Mod.Path == name }) {
			t.Errorf("docs/dependencies.md tells of %s, which go.mod does not name", name)
		}
	}
}
