// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// suite is the directory of a bundle with many scenarios.
const suite = "../../testdata/eval/support"

// inLines writes the scenarios of a YAML file as lines of JSON.
func inLines(t *testing.T, text []byte) string {
	t.Helper()
	var set struct {
		Principal any              `yaml:"principal"`
		Scenarios []map[string]any `yaml:"scenarios"`
	}
	if err := yaml.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	line := func(value any) {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(text, '\n'))
	}
	for _, scenario := range set.Scenarios {
		steps, _ := scenario["steps"].([]any)
		delete(scenario, "steps")
		if scenario["principal"] == nil && set.Principal != nil {
			scenario["principal"] = set.Principal
		}
		line(scenario)
		for _, step := range steps {
			line(step)
		}
	}
	return out.String()
}

// played plays a bundle's scenarios, and returns what is told of them but places and times.
func played(t *testing.T, dir string) []map[string]any {
	t.Helper()
	loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	report := &bundles.Report{}
	report.AddPlays(bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now))
	var text bytes.Buffer
	if err := report.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var told struct {
		Cases []map[string]any `json:"cases"`
	}
	if err := json.Unmarshal(text.Bytes(), &told); err != nil || len(told.Cases) < 10 {
		t.Fatalf("%d cases: %v", len(told.Cases), err)
	}
	for _, c := range told.Cases {
		for _, key := range []string{"file", "line", "duration_seconds", "seconds", "duration"} {
			delete(c, key)
		}
	}
	return told.Cases
}

func TestScenariosInLinesPlayAsTheyDoInYAML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(suite)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "scenarios", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.TrimSuffix(file, ".yaml") + ".ndjson"
		if err := errors.Join(os.Remove(file), os.WriteFile(lines, []byte(inLines(t, text)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(played(t, suite), played(t, dir)); diff != "" {
		t.Errorf("the same scenarios come out otherwise (-YAML +NDJSON):\n%s", diff)
	}
}

// FuzzLoadScenarioLines loads a bundle with a hostile file of scenarios, and plays what it
// holds.
func FuzzLoadScenarioLines(f *testing.F) {
	f.Add("{\"name\": \"a\"}\n{\"user\": \"two teas\"}\n{\"call\": {\"tool\": \"shop.order\", \"args\": {\"item\": \"tea\", \"count\": 2}}}\n")
	f.Add("{\"name\": \"a\", \"principal\": {\"user\": \"ann\"}}\n{\"begin\": {}}\n{\"advance\": \"3s\"}\n{\"become\": {\"user\": \"\\ud83d\\ude00\"}}\n")
	f.Add("{\"user\": \"early\"}\n[]\n\n{\"name\": \"\\ufeff\\u2028\\u0085\"}\r\n{\"end_workflow\": {\"output\": {\"a\": null}}}")
	f.Fuzz(func(t *testing.T, text string) {
		dir := write(t, []txtar.File{{Name: "scenarios/fuzz.ndjson", Data: []byte(text)}})
		loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
		var problems bundles.Errors
		if (loaded == nil) == (err == nil) || err != nil && !errors.As(err, &problems) {
			t.Errorf("%q: bundle %v, error %v", text, loaded, err)
		}
		if loaded != nil {
			bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_APPROVES, time.Now)
		}
	})
}
