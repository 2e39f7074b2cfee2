// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a YAML block of a Markdown page, under a list item or not.
var block = regexp.MustCompile("(?s)\n *```yaml\n *# ([a-z]+)\\.yaml\n(.*?)\n *```")

// dedent takes the indent of the list item away.
func dedent(text []byte) []byte {
	return []byte(strings.ReplaceAll("\n"+string(text), "\n   ", "\n"))
}

func TestTheConfigurationsInTheREADMEAreValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := block.FindAllSubmatch(text, -1)
	if len(found) != 2 {
		t.Fatalf("the README has %d configurations, want the agent's and the collector's", len(found))
	}
	for _, part := range found {
		kind := string(part[1])
		path := filepath.Join(t.TempDir(), kind+".yaml")
		if err := os.WriteFile(path, dedent(part[2]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKind(kind, path); err != nil {
			t.Errorf("the %s's configuration: %v", kind, err)
		}
	}
}

func TestTheHeadLogInThePageIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/collector.md")
	if err != nil {
		t.Fatal(err)
	}
	found := block.FindAllSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("the page has %d parts of configurations, want the log's", len(found))
	}
	path := filepath.Join(t.TempDir(), "collector.yaml")
	if err := os.WriteFile(path, append([]byte("data_dir: d\nlistener: unix:/l\n"), found[0][2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := readCollectorConfig(path)
	if err != nil || config.GetHeadLog().GetWitnessPolicyFile() != filepath.Join(filepath.Dir(path), "witnesses") {
		t.Errorf("%v: %v", config, err)
	}
}
