// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// approvalTable writes approvals, a line each after the heading.
type approvalTable struct {
	w      io.Writer
	form   output
	headed bool
}

func newApprovalTable(w io.Writer, form output) *approvalTable {
	return &approvalTable{w: w, form: form}
}

const approvalColumns = "%-32s  %-8s  %-24s  %-20s  %-6s  %-5s  %s\n"

func (t *approvalTable) write(approval *writv1.Approval) error {
	if t.form == outputJSON {
		return writeApprovalJSON(t.w, approval)
	}
	if !t.headed {
		t.headed = true
		if _, err := fmt.Fprintf(t.w, approvalColumns, "APPROVAL", "STATE", "TOOL", "ASKED BY", "RISK", "VOTES", "LEFT"); err != nil {
			return err
		}
	}
	subject := approval.GetSubject()
	who := subject.GetPrincipal().GetUser()
	if who == "" {
		who = subject.GetPrincipal().GetWorkload()
	}
	approved := 0
	for _, vote := range approval.GetVotes() {
		if vote.GetChoice() == writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE {
			approved++
		}
	}
	remaining := "-"
	if state := approval.GetState(); state == writv1.ApprovalState_APPROVAL_STATE_PENDING || state == writv1.ApprovalState_APPROVAL_STATE_APPROVED {
		remaining = left(approval, time.Now())
	}
	_, err := fmt.Fprintf(t.w, approvalColumns, subject.GetApprovalId(), plain(approval.GetState().String(), "APPROVAL_STATE_"),
		query.Printable(subject.GetTool()), query.Printable(who), plain(subject.GetRequest().GetRisk().String(), "RISK_"),
		fmt.Sprintf("%d/%d", approved, subject.GetRequest().GetQuorum()), remaining)
	return err
}

func plain(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func writeApprovals(w io.Writer, form output, all []*writv1.Approval) error {
	table := newApprovalTable(w, form)
	for _, approval := range all {
		if err := table.write(approval); err != nil {
			return err
		}
	}
	if len(all) == 0 && form == outputText {
		_, err := fmt.Fprintln(w, "no call waits for an approval")
		return err
	}
	return nil
}

// writeApprovalJSON writes an approval as one line of JSON, its arguments as JSON too.
func writeApprovalJSON(w io.Writer, approval *writv1.Approval) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(approval)
	if err != nil {
		return fmt.Errorf("write the approval: %w", err)
	}
	line, err := json.Marshal(struct {
		Approval  json.RawMessage `json:"approval"`
		Arguments json.RawMessage `json:"arguments"`
	}{text, approval.GetSubject().GetArguments()})
	if err != nil {
		return fmt.Errorf("write the approval: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", query.PrintableJSON(line))
	return err
}

// writeApproval writes exactly what an approval would let run.
func writeApproval(w io.Writer, form output, approval *writv1.Approval) error {
	if form == outputJSON {
		return writeApprovalJSON(w, approval)
	}
	var b strings.Builder
	subject := approval.GetSubject()
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-14s%s\n", label, query.Printable(text))
		}
	}
	fmt.Fprintf(&b, "APPROVAL %s  %s\n", subject.GetApprovalId(), plain(approval.GetState().String(), "APPROVAL_STATE_"))
	line("tool", subject.GetTool())
	line("effect", plain(subject.GetEffect().String(), "TOOL_EFFECT_"))
	line("risk", plain(subject.GetRequest().GetRisk().String(), "RISK_"))
	if subject.GetRisk() != nil {
		line("risk score", policy.RiskText(subject.GetRisk()))
	}
	line("user", subject.GetPrincipal().GetUser())
	line("workload", subject.GetPrincipal().GetWorkload())
	line("tenant", subject.GetPrincipal().GetTenant())
	line("roles", strings.Join(subject.GetPrincipal().GetRoles(), ", "))
	line("session", hex.EncodeToString(subject.GetSession()))
	line("workflow", subject.GetRun().GetContract())
	line("asked", subject.GetTime().AsTime().Format(time.RFC3339))
	line("ends", subject.GetRequest().GetExpireTime().AsTime().Format(time.RFC3339))
	line("approvers", fmt.Sprintf("%d of %s", subject.GetRequest().GetQuorum(), strings.Join(subject.GetRequest().GetRoles(), ", ")))
	sheetArguments(&b, subject)
	sheetChecks(&b, subject)
	sheetSimilar(&b, approval.GetSimilar())
	for _, vote := range approval.GetVotes() {
		line("vote", fmt.Sprintf("%s: %s, %s", vote.GetApprover(), plain(vote.GetChoice().String(), "APPROVAL_CHOICE_"), vote.GetTime().AsTime().Format(time.RFC3339)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sheetArguments(b *strings.Builder, subject *writv1.ApprovalSubject) {
	arguments := json.RawMessage(subject.GetArguments())
	text, err := json.MarshalIndent(arguments, "    ", "  ")
	if err != nil {
		text = subject.GetArguments()
	}
	fmt.Fprintf(b, "  arguments\n    %s\n", query.PrintableJSON(text))
	if len(subject.GetValues()) > 0 {
		fmt.Fprintln(b, "  where the values came from")
	}
	for _, value := range subject.GetValues() {
		fmt.Fprintf(b, "    %s: %s\n", query.Printable(value.GetPath()), query.Provenance(value))
	}
}

func sheetChecks(b *strings.Builder, subject *writv1.ApprovalSubject) {
	fmt.Fprintln(b, "  why a human is asked")
	for _, check := range subject.GetChecks() {
		at := ""
		if check.GetField() != "" {
			at = " " + query.Printable(check.GetField())
		}
		fmt.Fprintf(b, "    %s/%s%s: %s\n", check.GetStage(), query.Printable(check.GetName()), at, query.Printable(check.GetMessage()))
	}
}

func sheetSimilar(b *strings.Builder, similar *writv1.SimilarApproval) {
	if similar == nil {
		return
	}
	fmt.Fprintf(b, "  since the last such call that was approved, %s of %s\n", similar.GetApprovalId(), similar.GetTime().AsTime().Format(time.RFC3339))
	for _, path := range similar.GetChanged() {
		fmt.Fprintf(b, "    changed: %s\n", query.Printable(path))
	}
	if len(similar.GetChanged()) == 0 {
		fmt.Fprintln(b, "    nothing has changed that is shown")
	}
}
