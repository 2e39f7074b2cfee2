// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// replayOf runs "writ replay" with JSON out.
func replayOf(t *testing.T, args ...string) (replayReport, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"replay", "-o", "json"}, args...))
	ran := cmd.ExecuteContext(t.Context())
	var report replayReport
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v, %v:\n%s", ran, err, out.String())
	}
	return report, ran
}

func TestRecordedDecisionsAreDecidedAgain(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	asked := o.pay(large)
	o.as("bob", "approve", "--yes", asked.GetApprovalId())
	allowed := o.pay(large)
	o.pay(strings.Replace(large, "420000", "4200", 1))
	o.pay(`{"payee":"Stadtwerke","cents":420001}`)
	o.pay(`{"payee":"Stadtwerke","cents":-5}`)
	own, ledger := filepath.Join(o.dir, "bundle"), filepath.Join(o.dir, "data", "ledger")

	report, err := replayOf(t, "--ledger", ledger, "--bundle", own)
	if err != nil || report.Decisions != 5 || report.Differs+report.Changed+report.Unchanged != 0 || report.Recomputed < 1 {
		t.Errorf("under the bundle that decided: %v, %+v", err, report)
	}
	closed := 0
	for why, count := range report.NotReplayable {
		if closed += count; !strings.HasPrefix(why, "closed: iban") && !strings.HasPrefix(why, "arguments: ") {
			t.Errorf("%d are not replayable: %s", count, why)
		}
	}
	if report.Recomputed+closed != report.Decisions {
		t.Errorf("the counts do not add up: %+v", report)
	}

	// A bundle that asks nobody below a million lets through what waited.
	next := filepath.Join(t.TempDir(), "next")
	if err := os.CopyFS(next, os.DirFS(own)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(next, "approvals", "all.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte("args.cents > 100000\n"), []byte("args.cents > 1000000\n"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	report, err = replayOf(t, "--ledger", ledger, "--bundle", next)
	if !errors.Is(err, errNo) || report.Changed != 1 || report.Recomputed+report.Differs != 0 {
		t.Errorf("under another bundle: %v, %+v", err, report)
	}
	want := replayChange{Tool: "payouts.pay", Roles: "clerk", Before: "NEEDS_APPROVAL APPROVAL_REQUIRED", After: "ALLOW GRANTED", Check: "approval/approved", Count: 1}
	if len(report.Changes) != 1 || report.Changes[0].Before != want.Before || report.Changes[0].After != want.After || report.Changes[0].Tool != want.Tool {
		t.Errorf("changes: %+v, want %+v", report.Changes, want)
	}
	if len(report.Named) != 1 || report.Named[0].Decision == allowed.GetDecisionId() {
		t.Errorf("named: %+v", report.Named)
	}

	// Under a bundle of something else nothing is comparable but said.
	writePage(t, "contracts.md", filepath.Join(o.dir, "other"))
	if report, err = replayOf(t, "--ledger", ledger, "--bundle", filepath.Join(o.dir, "other")); !errors.Is(err, errNo) && !errors.Is(err, errNothingReplayed) {
		t.Errorf("under a bundle without the tool: %v, %+v", err, report)
	}
}

// BenchmarkReplay reads the record of a decision and makes it again: what a core does
// for each record of "writ replay", beside reading the ledger.
func BenchmarkReplay(b *testing.B) {
	o := openOffice(b)
	o.pay(`{"payee":"Stadtwerke","cents":420001}`)
	bundle, err := bundles.LoadDir(b.Context(), filepath.Join(o.dir, "bundle"), bundles.Options{})
	if err != nil {
		b.Fatal(err)
	}
	reader, err := query.FromLedger(filepath.Join(o.dir, "data", "ledger"))
	if err != nil {
		b.Fatal(err)
	}
	page, err := reader.List(b.Context(), &writv1.ListRecordsRequest{Filter: &writv1.RecordFilter{Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION}}})
	if err != nil || len(page.GetRecords()) != 1 {
		b.Fatal(page, err)
	}
	r := &replay{bundle: bundle}
	b.ReportAllocs()
	for b.Loop() {
		var one replayed
		if err := r.one(page.GetRecords()[0], &one); err != nil || !one.again.same {
			b.Fatalf("%+v, %v", one.again, err)
		}
	}
}
