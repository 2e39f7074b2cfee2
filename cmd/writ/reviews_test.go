// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reviewing is an office whose calls are reviewed by kim.
type reviewing struct {
	*office
	ledger string
	// high and higher are calls that are put up for review, and their ids.
	high, higher string
}

func openReviewing(t *testing.T) *reviewing {
	t.Helper()
	o := openPage(t, "reviews.md", "spiffe://example.org/planner", "")
	r := &reviewing{office: o, ledger: filepath.Join(o.dir, "data", "ledger")}
	allowed := o.pay(`{"payee":"Nordwerk","cents":20000}`)
	if allowed.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW || allowed.GetDecision().GetRisk() != nil {
		t.Fatalf("an ordinary payout: %v", allowed)
	}
	// Of 30 + 40 + 20 - 15 and of 30 + 40 + 20.
	r.high = o.pay(`{"payee":"Stadtwerke","cents":200000}`).GetDecisionId()
	r.higher = o.pay(`{"payee":"Shady\u202e Ltd","cents":200000}`).GetDecisionId()
	return r
}

// command is a command of the reviewer's.
func (r *reviewing) command(user, name string, args ...string) []string {
	args = append([]string{"reviews", name, "--ledger", r.ledger}, args...)
	if name == "label" || name == "import" {
		args = append(args, "--agent", r.socket, "--key", filepath.Join(r.dir, user))
	}
	return args
}

func (r *reviewing) as(user, name string, args ...string) string {
	r.t.Helper()
	return standardOutput(r.t, r.command(user, name, args...)...)
}

func (r *reviewing) fails(user, name string, args ...string) string {
	r.t.Helper()
	root := newRoot()
	root.SetArgs(r.command(user, name, args...))
	root.SetOut(&strings.Builder{})
	root.SetErr(&strings.Builder{})
	err := root.ExecuteContext(r.t.Context())
	if err == nil {
		r.t.Fatalf("%s of %s succeeds", name, user)
	}
	return err.Error()
}

func TestARiskyCallIsReviewedAndBecomesATest(t *testing.T) {
	t.Parallel()
	r := openReviewing(t)
	list := r.as("kim", "list")
	if high, higher := strings.Index(list, r.high), strings.Index(list, r.higher); high < 0 || higher < 0 || higher > high {
		t.Errorf("the riskier call does not stand first:\n%s", list)
	}
	show := r.as("kim", "show", r.higher[:8])
	for _, want := range []string{`Shady\u202e`, "90 of 100", "+40 large", "+20 untrusted_payee", "extreme", "a human is to review"} {
		if !strings.Contains(show, want) {
			t.Errorf("show does not say %q:\n%s", want, show)
		}
	}
	explained := standardOutput(t, "explain", "--ledger", r.ledger, "-o", "json", r.higher)
	if !strings.Contains(explained, `"risk": "90: medium 30, large +40, untrusted_payee +20; in extreme, 1000 of 1000 reviewed"`) || !strings.Contains(explained, `"review": true`) {
		t.Errorf("explained:\n%s", explained)
	}
	if told := standardOutput(t, "explain", "--ledger", r.ledger, "--for", "planner", "-o", "json", r.higher); strings.Contains(told, `"risk":`) {
		t.Errorf("a planner is told the score:\n%s", told)
	}
	if got := r.fails("oz", "label", r.high, "deny"); !strings.Contains(got, "may review calls of the tenant") {
		t.Errorf("another tenant's approver: %s", got)
	}
	if got := r.fails("bob", "label", r.high, "deny"); !strings.Contains(got, "may review calls of the tenant") {
		t.Errorf("an approver who is no reviewer: %s", got)
	}
	if got := r.fails("kim", "label", r.high, "perhaps"); !strings.Contains(got, "no verdict") {
		t.Errorf("no verdict: %s", got)
	}
	if got := r.fails("kim", "label", strings.Repeat("0", 32), "deny"); !strings.Contains(got, "no call that was put up for review") {
		t.Errorf("no such call: %s", got)
	}
	if got := r.as("kim", "label", r.high, "allow"); !strings.Contains(got, "says it should be ALLOW") {
		t.Errorf("label: %s", got)
	}
	r.as("kim", "label", r.high[:8], "needs-approval", "--note", "unknown invoice")
	if list := r.as("kim", "list"); strings.Contains(list, r.high) || !strings.Contains(list, r.higher) {
		t.Errorf("what has a label waits still:\n%s", list)
	}
	if list := r.as("kim", "list", "--all"); !strings.Contains(list, "  NEEDS_APPROVAL\n") {
		t.Errorf("the last label does not count:\n%s", list)
	}
	bundle := filepath.Join(r.dir, "bundle")
	if got := r.as("kim", "golden", "--file", filepath.Join(bundle, "tests.yaml")); !strings.Contains(got, "1 tests written") {
		t.Errorf("golden: %s", got)
	}
	if err := os.MkdirAll(filepath.Join(bundle, "tests"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(bundle, "tests.yaml"), filepath.Join(bundle, "tests", "reviewed.yaml")); err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	var out strings.Builder
	root.SetArgs([]string{"test", bundle})
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(out.String(), "want NEEDS_APPROVAL, got ALLOW") {
		t.Errorf("the bundle does what the reviewer says is wrong, and its test passes: %v\n%s", err, out.String())
	}
	mend(t, filepath.Join(bundle, "risk", "payouts.yaml"), "at_least: 70\n", "at_least: 75\n    on_reach: ON_FAILURE_NEEDS_APPROVAL\n")
	if out := standardOutput(t, "test", bundle); !strings.Contains(out, r.high) && !strings.Contains(out, "4 passed") {
		t.Errorf("the mended bundle:\n%s", out)
	}
}

// mend replaces a text in a file.
func mend(t *testing.T, path, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q: %v", path, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, replacement, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLabelsOfAnExportedFileAreRecordedOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	r := openReviewing(t)
	lines := strings.Split(strings.TrimSpace(r.as("kim", "export")), "\n")
	if len(lines) < 2 {
		t.Fatalf("export has %d lines", len(lines))
	}
	write := func(lines ...string) string {
		path := filepath.Join(t.TempDir(), "labels.ndjson")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	with := func(line, key string, value any) string {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		fields[key] = value
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	good := with(with(lines[0], "label", map[string]string{"verdict": "DENY", "note": "by a vendor"}), "annotator", "17")
	for wrong, want := range map[string]string{
		with(good, "record_digest", strings.Repeat("0", 64)):        "labels.ndjson:2: record_digest",
		with(good, "decision_id", strings.Repeat("0", 32)):          "labels.ndjson:2: no call with decision_id",
		with(good, "label", map[string]string{"verdict": "DENIED"}): `labels.ndjson:2: label.verdict "DENIED"`,
		good:                 "has a label on line 1",
		`{"decision_id": 7}`: "labels.ndjson:2: not a line of JSON as it was exported",
	} {
		if got := r.fails("kim", "import", write(good, wrong)); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if list := r.as("kim", "list"); !strings.Contains(list, r.higher) {
		t.Errorf("a file with a wrong line left a label:\n%s", list)
	}
	file := write(append(lines[1:], good)...)
	if got := r.as("kim", "import", file); !strings.HasPrefix(got, "1 labels recorded, 0 were recorded before") {
		t.Errorf("import: %s", got)
	}
	if got := r.as("kim", "import", file); !strings.HasPrefix(got, "0 labels recorded, 1 were recorded before") {
		t.Errorf("import again: %s", got)
	}
	if list := r.as("kim", "list", "-o", "json"); strings.Contains(list, r.higher) {
		t.Errorf("what was imported waits still:\n%s", list)
	}
}

func TestAnApproverSeesTheScoreAndWhoAskedDoesNot(t *testing.T) {
	t.Parallel()
	r := openReviewing(t)
	approvals := writv1.NewApprovalServiceClient(r.conn)
	mine, err := approvals.ListApprovals(t.Context(), &writv1.ListApprovalsRequest{})
	if err != nil || len(mine.GetApprovals()) != 1 || mine.GetApprovals()[0].GetSubject().GetRisk() != nil {
		t.Fatalf("who asked sees %v: %v", mine, err)
	}
	show := r.office.as("ada", "show", mine.GetApprovals()[0].GetSubject().GetApprovalId())
	if !strings.Contains(show, "90: medium 30, large +40, untrusted_payee +20; in extreme") {
		t.Errorf("an approver sees no score:\n%s", show)
	}
}
