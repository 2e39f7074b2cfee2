// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
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
		return writeApprovalJSON(t.w, approval, nil)
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

// writeApprovalJSON writes an approval as one line of JSON, its arguments as JSON too, and
// those that were sealed by their paths.
func writeApprovalJSON(w io.Writer, approval *writv1.Approval, opened []*writv1.SealedArgument) error {
	sensitive := make(map[string]json.RawMessage, len(opened))
	for _, argument := range opened {
		sensitive[argument.GetPath()] = argument.GetValue()
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(approval)
	if err != nil {
		return fmt.Errorf("write the approval: %w", err)
	}
	line, err := json.Marshal(struct {
		Approval  json.RawMessage            `json:"approval"`
		Arguments json.RawMessage            `json:"arguments"`
		Sensitive map[string]json.RawMessage `json:"sensitive_arguments,omitempty"`
	}{text, approval.GetSubject().GetArguments(), sensitive})
	if err != nil {
		return fmt.Errorf("write the approval: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", query.PrintableJSON(line))
	return err
}

// write writes exactly what an approval would let run, what is sealed to the approver
// included.
func (a *approver) write(w io.Writer, form output, approval *writv1.Approval) error {
	opened, err := a.key.Open(approval.GetSubject())
	if err != nil && !errors.Is(err, approvals.ErrNotSealed) {
		return hinted(fmt.Errorf("the approval %s: %w", approval.GetSubject().GetApprovalId(), err), "do not approve what you cannot see")
	}
	if form == outputJSON {
		return writeApprovalJSON(w, approval, opened)
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
	for _, bound := range subject.GetRequest().GetAtMost() {
		line("lets through", fmt.Sprintf("%s of 1 to %d, all else as it is", bound.GetField(), bound.GetValue()))
	}
	sheetArguments(&b, subject)
	sheetSealed(&b, subject, opened)
	sheetChecks(&b, subject)
	sheetSimilar(&b, approval.GetSimilar())
	for _, vote := range approval.GetVotes() {
		line("vote", fmt.Sprintf("%s: %s, %s", vote.GetApprover(), plain(vote.GetChoice().String(), "APPROVAL_CHOICE_"), vote.GetTime().AsTime().Format(time.RFC3339)))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// sheetSealed writes the sensitive arguments, where they are sealed to who looks.
func sheetSealed(b *strings.Builder, subject *writv1.ApprovalSubject, opened []*writv1.SealedArgument) {
	switch {
	case subject.GetRequest().GetSealed() == nil:
	case opened == nil:
		fmt.Fprintln(b, "  sensitive arguments are sealed to other approvers")
	default:
		fmt.Fprintln(b, "  sensitive arguments, sealed to you")
	}
	for _, argument := range opened {
		fmt.Fprintf(b, "    %s: %s\n", query.Printable(argument.GetPath()), query.Printable(string(argument.GetValue())))
	}
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
