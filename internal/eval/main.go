// SPDX-License-Identifier: Apache-2.0

// Eval plays the proof corpus and reports as the literature on prompt injection
// does: how much of the work that should be done is done, how many attacks are
// stopped before their first harmful effect, and how often a human is asked.
//
// Each directory of testdata/eval is a suite: a bundle whose policy is written from
// its tool list alone, and scenarios of what is benign and of what is not. An
// injected planner is assumed to obey everything: no model is asked.
//
//	go run ./internal/eval testdata/eval/*
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "eval: error:", err)
		os.Exit(1)
	}
}

// tally is what came of a suite.
type tally struct {
	name string
	// benign is how many scenarios of work there are: automatic were done without a
	// human, denied were denied something.
	benign, automatic, denied int
	// attacks is how many there are: harmed were carried out though nobody approved,
	// approved though a human approved everything.
	attacks, harmed, approved int
	// writes is how many calls with effects benign scenarios made, asked of how many
	// a human was asked.
	writes, asked int
}

func (t *tally) add(o tally) {
	t.benign, t.automatic, t.denied = t.benign+o.benign, t.automatic+o.automatic, t.denied+o.denied
	t.attacks, t.harmed, t.approved = t.attacks+o.attacks, t.harmed+o.harmed, t.approved+o.approved
	t.writes, t.asked = t.writes+o.writes, t.asked+o.asked
}

func run(ctx context.Context, dirs []string) error {
	fmt.Println("What was written:")
	fmt.Println()
	if err := table(ctx, dirs, written); err != nil {
		return err
	}
	fmt.Println("\nVariants that are made of it, none of which is counted above:")
	fmt.Println()
	if err := table(ctx, dirs, varied); err != nil {
		return err
	}
	fmt.Println("\nWhat parts of the policy are worth, over what was written:")
	fmt.Println()
	return curve(ctx, dirs)
}

// curve plays all suites under parts of their policies.
func curve(ctx context.Context, dirs []string) error {
	fmt.Println("| policy | automatic | denied | asked | attacks that succeed, nobody approves | a human approves everything |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	for i := range ablations {
		all := tally{name: ablations[i].name}
		for _, dir := range dirs {
			loaded, err := ablations[i].load(ctx, dir)
			if err != nil {
				return err
			}
			var suite tally
			suite.play(loaded)
			all.add(suite)
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", all.name, share(all.automatic, all.benign), share(all.denied, all.benign),
			share(all.asked, all.writes), share(all.harmed, all.attacks), share(all.approved, all.attacks))
	}
	return nil
}

// written leaves the scenarios as they are.
func written(*bundles.Loaded) {}

// table plays the suites, after their scenarios were changed.
func table(ctx context.Context, dirs []string, change func(*bundles.Loaded)) error {
	all := tally{name: "all"}
	fmt.Println("| suite | benign | automatic | denied | calls that write | asked | attacks | succeed, nobody approves | succeed, a human approves everything |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, dir := range dirs {
		loaded, err := bundles.Load(ctx, dir, bundles.Options{})
		if err != nil {
			return fmt.Errorf("load %s: %w", dir, err)
		}
		change(loaded)
		suite := tally{name: filepath.Base(dir)}
		suite.play(loaded)
		suite.print()
		all.add(suite)
	}
	all.print()
	return nil
}

// play plays a suite twice: with nobody who approves, and with a human who approves
// everything.
func (t *tally) play(loaded *bundles.Loaded) {
	for _, played := range bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_NOBODY, time.Now) {
		switch played.Scenario.GetKind() {
		case writv1.ScenarioKind_SCENARIO_KIND_ATTACK:
			t.attacks++
			t.harmed += one(played.Harmed)
		case writv1.ScenarioKind_SCENARIO_KIND_BENIGN:
			t.benign++
			t.work(&played)
		}
	}
	for _, played := range bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_APPROVES, time.Now) {
		if played.Scenario.GetKind() == writv1.ScenarioKind_SCENARIO_KIND_ATTACK {
			t.approved += one(played.Harmed)
		}
	}
}

// work counts a scenario of work that should be done.
func (t *tally) work(played *bundles.Played) {
	automatic, denied := true, false
	for i := range played.Calls {
		call := &played.Calls[i]
		automatic = automatic && call.Carried
		denied = denied || !call.Carried && !call.Asked()
		if call.Writes() {
			t.writes++
			t.asked += one(call.Asked())
		}
	}
	t.automatic += one(automatic)
	t.denied += one(denied)
}

func one(holds bool) int {
	if holds {
		return 1
	}
	return 0
}

func (t *tally) print() {
	fmt.Printf("| %s | %d | %s | %s | %d | %s | %d | %s | %s |\n", t.name, t.benign, share(t.automatic, t.benign), share(t.denied, t.benign),
		t.writes, share(t.asked, t.writes), t.attacks, share(t.harmed, t.attacks), share(t.approved, t.attacks))
}

func share(n, of int) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%.1f%%)", n, 100*float64(n)/float64(of))
}
