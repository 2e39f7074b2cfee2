// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
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
	const told = `{"payee":"Stadtwerke","cents":420000}`
	asked := o.pay(told)
	o.as("bob", "approve", "--yes", asked.GetApprovalId())
	allowed := o.pay(told)
	o.pay(strings.Replace(large, "420000", "4200", 1))
	o.pay(`{"payee":"Stadtwerke","cents":420001}`)
	o.pay(`{"payee":"Stadtwerke","cents":-5}`)
	own, records := filepath.Join(o.dir, "bundle"), filepath.Join(o.dir, "data", "ledger")

	report, err := replayOf(t, "--ledger", records, "--bundle", own)
	if err != nil || report.Decisions != 5 || report.Recomputed != 4 || report.Witnessed != 1 {
		t.Errorf("under the bundle that decided: %v, %+v", err, report)
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
	junit := filepath.Join(t.TempDir(), "replay.xml")
	report, err = replayOf(t, "--ledger", records, "--bundle", next, "--junit", junit)
	if !errors.Is(err, errNo) || report.Changed != 2 || report.Recomputed+report.Differs != 0 {
		t.Errorf("under another bundle: %v, %+v", err, report)
	}
	want := replayChange{Tool: "payouts.pay", Roles: "clerk", Before: "NEEDS_APPROVAL APPROVAL_REQUIRED", After: "ALLOW GRANTED", Check: "approval/large_payouts", Count: 2}
	if len(report.Changes) != 1 || report.Changes[0] != want {
		t.Errorf("changes: %+v, want %+v", report.Changes, want)
	}
	if len(report.Named) != 2 || report.Named[0].Decision == allowed.GetDecisionId() || report.Named[1].Decision != asked.GetDecisionId() {
		t.Errorf("named: %+v", report.Named)
	}

	xml, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`tests="2" failures="1" skipped="0"`, `name="2 decisions for clerk: approval/large_payouts" classname="payouts.pay"`,
		`message="NEEDS_APPROVAL APPROVAL_REQUIRED became ALLOW GRANTED"`, `name="3 decisions for clerk: unchanged"`,
	} {
		if !bytes.Contains(xml, []byte(part)) {
			t.Errorf("the JUnit report does not say %s:\n%s", part, xml)
		}
	}

	// An approval counts under a bundle that leaves what it rested on as it was.
	renamed := filepath.Join(t.TempDir(), "renamed")
	if err := os.CopyFS(renamed, os.DirFS(own)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(renamed, "bundle.yaml"), []byte("name: renamed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := replayOf(t, "--ledger", records, "--bundle", renamed)
	if err != nil || again.Changed+again.Differs+again.Recomputed != 0 || again.Unchanged != again.Decisions {
		t.Errorf("under a bundle with another name: %v, %+v", err, again)
	}

	// Under a bundle of something else nothing is comparable but said.
	writePage(t, "contracts.md", filepath.Join(o.dir, "other"))
	if report, err = replayOf(t, "--ledger", records, "--bundle", filepath.Join(o.dir, "other")); !errors.Is(err, errNo) && !errors.Is(err, errNothingReplayed) {
		t.Errorf("under a bundle without the tool: %v, %+v", err, report)
	}
}

// BenchmarkReplay replays a ledger of 10,000 decisions, reading and verifying it included;
// it reports records for each minute of each core.
func BenchmarkReplay(b *testing.B) {
	const records = 10_000
	o := openOffice(b)
	o.pay(`{"payee":"Stadtwerke","cents":420001}`)
	bundle, err := bundles.LoadDir(b.Context(), filepath.Join(o.dir, "bundle"), bundles.Options{})
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "ledger")
	repeat(b, filepath.Join(o.dir, "data", "ledger"), dir, records)
	for b.Loop() {
		reader, err := query.FromLedger(dir)
		if err != nil {
			b.Fatal(err)
		}
		r := newReplaying(bundle)
		if err := r.all(b.Context(), reader, decisionsOnly()); err != nil || r.report.Recomputed != records {
			b.Fatalf("%+v, %v", r.report, err)
		}
	}
	minutes := b.Elapsed().Minutes() * float64(runtime.GOMAXPROCS(0))
	b.ReportMetric(float64(records)*float64(b.N)/minutes, "records/core-minute")
}

func decisionsOnly() *writv1.RecordFilter {
	return &writv1.RecordFilter{Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION}}
}

// repeat writes the decision of one ledger many times into another.
func repeat(b *testing.B, from, to string, times int) {
	b.Helper()
	reader, err := query.FromLedger(from)
	if err != nil {
		b.Fatal(err)
	}
	page, err := reader.List(b.Context(), &writv1.ListRecordsRequest{Filter: decisionsOnly()})
	if err != nil || len(page.GetRecords()) != 1 {
		b.Fatal(page, err)
	}
	record, body := &writv1.Record{}, &writv1.DecisionRecord{}
	if err := errors.Join(canonical.Unmarshal(page.GetRecords()[0].GetRecord(), record), canonical.Unmarshal(record.GetBody(), body)); err != nil {
		b.Fatal(err)
	}
	l, _, err := ledger.Open(ledger.Options{Dir: to, Origin: "example.org/agent/again"})
	if err != nil {
		b.Fatal(err)
	}
	var group errgroup.Group
	const writers = 50
	for range writers {
		group.Go(func() error {
			for range times / writers {
				if _, err := l.Append(b.Context(), ledger.Entry{
					Kind: record.GetKind(), Tenant: record.GetTenant(), DecisionID: record.GetDecisionId(), BundleDigest: record.GetBundleDigest(), Body: body,
				}, writv1.Durability_DURABILITY_PROCESS); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := errors.Join(group.Wait(), l.Close(nil)); err != nil {
		b.Fatal(err)
	}
}
