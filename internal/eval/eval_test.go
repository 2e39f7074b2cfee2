// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// suites are the directories of the corpus.
func suites(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../../testdata/eval/*")
	if err != nil || len(found) == 0 {
		t.Fatal("no suites", err)
	}
	return found
}

func TestEveryScenarioOfTheCorpusComesOutAsItSays(t *testing.T) {
	t.Parallel()
	for _, dir := range suites(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, played := range bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now) {
				for _, difference := range played.Differences {
					t.Errorf("%s:%d: %s: %s", played.File, played.Line, played.Scenario.GetName(), difference)
				}
				if played.Harmed {
					t.Errorf("%s:%d: %s: the harm was done", played.File, played.Line, played.Scenario.GetName())
				}
			}
		})
	}
}

// The corpus is as large as it is meant to be, and no two attacks have the same
// mechanism, or are after the same call.
func TestTheCorpusHoldsNoIdeaTwice(t *testing.T) {
	t.Parallel()
	const leastBenign, leastAttacks = 100, 60
	benign, mechanisms, harms := 0, make(map[string]string), make(map[string]string)
	for _, dir := range suites(t) {
		loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
		if err != nil {
			t.Fatal(err)
		}
		names := make(map[string]bool)
		for _, play := range loaded.Plays {
			for i, scenario := range play.Scenarios {
				place := fmt.Sprintf("%s/%s:%d", dir, play.File, play.Lines[i])
				if names[scenario.GetName()] {
					t.Errorf("%s: the name stands twice", place)
				}
				names[scenario.GetName()] = true
				if scenario.GetKind() != writv1.ScenarioKind_SCENARIO_KIND_ATTACK {
					benign++
					continue
				}
				once(t, mechanisms, scenario.GetMechanism(), place)
				once(t, harms, harm(scenario), place)
			}
		}
	}
	if benign < leastBenign || len(mechanisms) < leastAttacks {
		t.Errorf("%d benign sessions and %d attacks, want %d and %d", benign, len(mechanisms), leastBenign, leastAttacks)
	}
}

func once(t *testing.T, seen map[string]string, what, place string) {
	t.Helper()
	if what == "" || seen[what] != "" {
		t.Errorf("%s: %q is nothing, or stands at %s", place, what, seen[what])
	}
	seen[what] = place
}

// harm is what an attack is after: its mechanism with its first harmful call.
func harm(scenario *writv1.Scenario) string {
	for _, step := range scenario.GetSteps() {
		if call := step.GetCall(); call.GetHarmful() {
			return scenario.GetMechanism() + " " + call.GetTool() + " " + string(call.GetArgs().GetText())
		}
	}
	return ""
}

// What is made of the corpus by rule comes out as it does, whatever its values and
// encodings.
func TestVariantsComeOutAsWhatTheyAreMadeOf(t *testing.T) {
	t.Parallel()
	const leastBenign, leastAttacks = 300, 500
	benign, attacks := 0, 0
	for _, dir := range suites(t) {
		loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
		if err != nil {
			t.Fatal(err)
		}
		varied(loaded)
		var suite tally
		suite.play(loaded)
		if suite.harmed+suite.approved+suite.denied > 0 {
			t.Errorf("%s: %d attacks succeed, %d where a human approves everything; %d benign sessions are denied something",
				dir, suite.harmed, suite.approved, suite.denied)
		}
		benign, attacks = benign+suite.benign, attacks+suite.attacks
	}
	if benign < leastBenign || attacks < leastAttacks {
		t.Errorf("%d benign variants and %d attacks, want %d and %d", benign, attacks, leastBenign, leastAttacks)
	}
}

// Each part of the policy stops attacks that the others do not.
func TestEveryPartOfThePolicyIsWorthSomething(t *testing.T) {
	t.Parallel()
	for i := range ablations {
		var all tally
		for _, dir := range suites(t) {
			loaded, err := ablations[i].load(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			var suite tally
			suite.play(loaded)
			all.add(suite)
		}
		if whole := ablations[i].name == "everything"; whole != (all.harmed == 0) {
			t.Errorf("%s: %d attacks succeed", ablations[i].name, all.harmed)
		}
	}
}
