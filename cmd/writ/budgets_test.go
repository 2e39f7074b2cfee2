// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// spend runs an agent of the page's bundle for two calls, and leaves its ledger in the
// data directory.
func spend(t *testing.T, bundleDir, data string, now time.Time) {
	t.Helper()
	bundle, err := bundles.LoadDir(t.Context(), bundleDir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state := agent.NewState(100)
	book, _, err := ledger.Open(ledger.Options{Dir: filepath.Join(data, "ledger"), Origin: "desk", OnRecord: state.Fold})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := agent.OpenKeys(filepath.Join(data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(t.Context(), agent.Options{
		Bundle: bundle, Ledger: book, State: state, Keys: keys, Clock: func() time.Time { return now }, Random: rand.Reader,
		Floor: writv1.Durability_DURABILITY_PROCESS, Start: &writv1.StartRecord{Origin: book.Origin()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for tool, call := range map[string][2]string{
		"model.ask": {`{"question":"why?","max_tokens":2500}`, `{"text":"because","usage":{"input_tokens":40,"output_tokens":90}}`},
		"fees.pay":  {`{"fees":[{"payee":"ann","cents":40000}]}`, `{}`},
	} {
		admission := a.Admit(t.Context(), &agent.Request{
			Surface:   writv1.Surface_SURFACE_AUTHORIZE,
			Principal: &writv1.Principal{User: "ida", Tenant: "desk", Roles: []string{"editor"}},
			Envelope:  &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: tool}},
			Arguments: tools.Arguments{JSON: []byte(call[0])},
		})
		if refusal := admission.Refusal(); refusal != nil {
			t.Fatal(refusal)
		}
		if _, refusal := admission.Response([]byte(call[1])); refusal != nil {
			t.Fatal(refusal)
		}
		if err := admission.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Close(t.Context()), book.Close(nil)); err != nil {
		t.Fatal(err)
	}
}

// standardOutput returns what a command prints.
func standardOutput(t testing.TB, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestBudgetsPrintsWhatThePageShows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePage(t, "budgets.md", filepath.Join(dir, "bundle"))
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	spend(t, filepath.Join(dir, "bundle"), filepath.Join(dir, "data"), now)
	config := filepath.Join(dir, "agent.yaml")
	text := fmt.Sprintf("data_dir: %s\nbundle_dir: %s\nlisteners: {envoy: \"unix:%s\"}\n", filepath.Join(dir, "data"), filepath.Join(dir, "bundle"), filepath.Join(dir, "e"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/budgets.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(page), "```text\n")
	shown, _, _ = strings.Cut(shown, "```")
	// The id of a session is unguessable.
	id := regexp.MustCompile("[0-9a-f]{32}")
	got := standardOutput(t, "budgets", "--config", config, "--at", "2026-05-04T12:00:10Z")
	if diff := cmp.Diff(id.ReplaceAllString(shown, "ID"), id.ReplaceAllString(got, "ID")); diff != "" {
		t.Errorf("(-page +printed):\n%s", diff)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(standardOutput(t, "budgets", "--config", config, "-o", "json", "--at", "2026-05-04T12:00:10Z")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || all[0]["budget"] != "fees" || all[0]["left"] != "100000000000" {
		t.Errorf("JSON: %v", all)
	}
	// A day later the day's and the rolling budget are whole.
	if late := standardOutput(t, "budgets", "--config", config, "--at", "2026-05-05T12:30:00Z"); strings.Count(late, "\n") != 3 {
		t.Errorf("a day later:\n%s", late)
	}
}
