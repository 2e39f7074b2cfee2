// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// fileBlock is a code block of a page that is a file of the page's bundle.
var fileBlock = regexp.MustCompile("(?s)\n```[a-z]+\n(?:#|//) file: ([^\n]+)\n(.*?\n)```")

// shell is a block of commands in a page.
var shell = regexp.MustCompile("(?s)\n```sh\n(.*?)```")

// Each page has as many scenarios as this.
func TestTheBundlesOfPagesPlayTheirScenarios(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]int{"provenance.md": 4, "contracts.md": 6, "approvals.md": 3, "budgets.md": 3, "reviews.md": 3} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			loaded := loadPage(t, page)
			played := bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now)
			if len(played) != want {
				t.Errorf("%d scenarios, want %d", len(played), want)
			}
			for _, p := range played {
				for _, difference := range p.Differences {
					t.Errorf("%s: %s", p.Scenario.GetName(), difference)
				}
			}
		})
	}
}

// loadPage loads the bundle that a page is.
func loadPage(t *testing.T, page string) *bundles.Loaded {
	t.Helper()
	dir := t.TempDir()
	writePage(t, page, dir)
	loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// writePage writes the bundle that a page is into a directory.
func writePage(t testing.TB, page, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range fileBlock.FindAllSubmatch(text, -1) {
		path := filepath.Join(dir, filepath.FromSlash(string(file[1])))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, file[2], 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}
