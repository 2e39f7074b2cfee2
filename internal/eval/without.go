// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/writ-dev/writ/agent/bundles"
)

// ablation is a part of the mechanisms that is left away, to see what the rest is worth.
type ablation struct {
	name string
	// folders are left out of the bundle, options out of its protos; provenanceChecks
	// says that checks which ask for provenance go too.
	folders          []string
	options          []*regexp.Regexp
	provenanceChecks bool
}

var (
	demands = regexp.MustCompile(`\(writ\.v1\.field\)\.provenance = \{(?:[^{}]|\{[^{}]*\})*\}`)
	sinks   = regexp.MustCompile(` sink: \{[^{}]*\}`)
)

// ablations go from little to everything.
var ablations = []ablation{
	{name: "grants and schemas alone", folders: []string{"checks", "limits"}, options: []*regexp.Regexp{demands, sinks}},
	{name: "and checks over the session's history, limits", options: []*regexp.Regexp{demands, sinks}, provenanceChecks: true},
	{name: "grants, schemas, provenance and what may leave", folders: []string{"checks", "limits"}},
	{name: "all but what may leave", options: []*regexp.Regexp{sinks}},
	{name: "all but provenance", options: []*regexp.Regexp{demands}, provenanceChecks: true},
	{name: "everything"},
}

// load loads the bundle in a directory without what is left away.
func (a *ablation) load(ctx context.Context, dir string) (*bundles.Loaded, error) {
	temporary, err := os.MkdirTemp("", "eval")
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", dir, err)
	}
	defer os.RemoveAll(temporary)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		changed, ok := a.without(filepath.ToSlash(name), string(text))
		if !ok {
			return nil
		}
		into := filepath.Join(temporary, name)
		return errors.Join(os.MkdirAll(filepath.Dir(into), 0o700), os.WriteFile(into, []byte(changed), 0o600))
	})
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", dir, err)
	}
	loaded, err := bundles.Load(ctx, temporary, bundles.Options{})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	return loaded, nil
}

// without returns a file without what is left away, and whether anything of it is left.
func (a *ablation) without(name, text string) (string, bool) {
	folder, _, _ := strings.Cut(name, "/")
	for _, left := range a.folders {
		if folder == left {
			return "", false
		}
	}
	if folder == "protos" {
		for _, option := range a.options {
			replacement := ""
			if option == demands {
				// A list of options has at least one.
				replacement = "deprecated = false"
			}
			text = option.ReplaceAllString(text, replacement)
		}
	}
	if folder == "checks" && a.provenanceChecks {
		return withoutProvenance(text)
	}
	return text, true
}

// withoutProvenance returns a file of checks without those that ask where values came from.
func withoutProvenance(text string) (string, bool) {
	head, rest, found := strings.Cut(text, "\n  - name: ")
	if !found {
		return text, true
	}
	kept := head
	for check := range strings.SplitSeq(rest, "\n  - name: ") {
		if !strings.Contains(check, "provenance(") && !strings.Contains(check, "read_untrusted(") && !strings.Contains(check, "attested(") {
			kept += "\n  - name: " + strings.TrimRight(check, "\n")
		}
	}
	return kept + "\n", kept != head
}
