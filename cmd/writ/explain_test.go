// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestADecisionExplainsItselfToThreeReaders(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	large := `{"payee":"Stadtwerke","cents":420000}`
	asked := o.pay(large)
	o.as("bob", "approve", "--yes", asked.GetApprovalId())
	allowed := o.pay(large)
	denied := o.pay(`{"payee":"Stadtwerke","cents":-5}`)
	explain := func(id string, args ...string) string {
		t.Helper()
		return standardOutput(t, append([]string{"explain", "--ledger", filepath.Join(o.dir, "data", "ledger"), id}, args...)...)
	}
	for name, c := range map[string]struct {
		of        *writv1.AuthorizeResponse
		args      []string
		has, lack []string
	}{
		"a planner is told what would pass, and nothing of the policy": {
			asked,
			[]string{"--for", "planner"},
			[]string{"NEEDS_APPROVAL  APPROVAL_REQUIRED", "asks for a human's approval", asked.GetApprovalId()},
			[]string{"large_payouts", "clerks-pay", "planner\n", "facts"},
		},
		"a planner is told the field that is wrong": {
			denied, []string{"--for", "planner"}, []string{"DENY  SCHEMA_RULE_VIOLATED", "cents", "to pass"}, []string{"clerks-pay"},
		},
		"an operator is told every check": {
			asked, nil, []string{"large_payouts", "clerks-pay", "grant", "approval", "spiffe://example.org/planner"}, nil,
		},
		"an auditor decides again": {
			allowed,
			[]string{"--for", "auditor", "--bundle", filepath.Join(o.dir, "bundle")},
			[]string{"replay    recomputed: the same decision to the byte", `"approved_by":["bob"]`, "bundle    sha256:", "identity"},
			nil,
		},
		"an auditor decides a refusal again": {
			asked, []string{"--for", "auditor", "--bundle", filepath.Join(o.dir, "bundle")}, []string{"recomputed"}, nil,
		},
		"arguments that could not be read are not decided again": {
			denied, []string{"--for", "auditor", "--bundle", filepath.Join(o.dir, "bundle")}, []string{"re"}, nil,
		},
	} {
		got := explain(c.of.GetDecisionId(), c.args...)
		for _, want := range c.has {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing:\n%s", name, want, got)
			}
		}
		for _, secret := range c.lack {
			if strings.Contains(got, secret) {
				t.Errorf("%s: %q is told:\n%s", name, secret, got)
			}
		}
	}
	var explained struct {
		Verdict string           `json:"verdict"`
		Checks  []map[string]any `json:"checks"`
	}
	if err := json.Unmarshal([]byte(explain(asked.GetDecisionId(), "-o", "json")), &explained); err != nil || explained.Verdict != "NEEDS_APPROVAL" || len(explained.Checks) < 5 {
		t.Errorf("JSON: %+v, %v", explained, err)
	}
	// Under another bundle nothing is said.
	writePage(t, "contracts.md", filepath.Join(o.dir, "other"))
	if got := explain(asked.GetDecisionId(), "--for", "auditor", "--bundle", filepath.Join(o.dir, "other")); !strings.Contains(got, "not_replayable(bundle") {
		t.Errorf("another bundle:\n%s", got)
	}
}

func TestAnExplanationNamesTheRecordsThatBroughtAValue(t *testing.T) {
	t.Parallel()
	o := openPage(t, "provenance.md", "spiffe://example.org/front-end", "")
	tools := writv1.NewToolServiceClient(o.conn)
	session, err := tools.BeginSession(t.Context(), &writv1.BeginSessionRequest{UserRequest: "Write to jane@example.com."})
	if err != nil || !session.GetAttested() {
		t.Fatal(session, err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-writ-session", session.GetToken())
	sent, err := tools.Authorize(ctx, &writv1.AuthorizeRequest{Envelope: &writv1.Envelope{ToolCall: &writv1.ToolCall{
		Name: "letters.send", Args: &writv1.Json{Text: []byte(`{"to":"jane@example.com","text":"hello"}`)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	got := standardOutput(t, "explain", "--ledger", filepath.Join(o.dir, "data", "ledger"), sent.GetDecisionId())
	for _, want := range []string{"ALLOW  GRANTED", "to: trusted, from user", "record 3 at "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
}
