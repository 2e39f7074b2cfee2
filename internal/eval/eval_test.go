// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestEveryScenarioOfTheCorpusComesOutAsItSays(t *testing.T) {
	t.Parallel()
	suites, err := filepath.Glob("../../testdata/eval/*")
	if err != nil || len(suites) == 0 {
		t.Fatal("no suites", err)
	}
	for _, dir := range suites {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
			if err != nil {
				t.Fatal(err)
			}
			names := make(map[string]bool)
			mechanisms := make(map[string]string)
			for _, played := range bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now) {
				name, mechanism := played.Scenario.GetName(), played.Scenario.GetMechanism()
				for _, difference := range played.Differences {
					t.Errorf("%s:%d: %s: %s", played.File, played.Line, name, difference)
				}
				if played.Harmed {
					t.Errorf("%s:%d: %s: the harm was done", played.File, played.Line, name)
				}
				if names[name] || mechanism != "" && mechanisms[mechanism] != "" {
					t.Errorf("%s:%d: %s: %s stands twice", played.File, played.Line, name, mechanism)
				}
				names[name], mechanisms[mechanism] = true, name
			}
		})
	}
}
