// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/proto/canonical"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain DECISION",
		Short: "Explain a recorded decision to a planner, an operator or an auditor",
		Long: `Explain tells why a call was decided as it was, from its record alone.

For an operator (the default): the verdict, the check that decided and what would pass
it, every check by its stage, where each value came from and which records brought it, and
what became of the call. For a planner: what it was told, and nothing of the policy. For
an auditor: what the decision is bound to, the facts that it was made over, and, with
--bundle, whether the decision that these give is the one that was recorded.`,
		Example: `  writ explain --ledger /var/lib/writ/ledger c23cc85038d28edc0aab1b2c2c3fe35c
  writ explain --ledger /var/lib/writ/ledger --for auditor --bundle /etc/writ/bundle c23cc85038d28edc0aab1b2c2c3fe35c`,
		Args: cobra.ExactArgs(1),
	}
	from := &recordSource{}
	from.add(cmd.Flags())
	reader := audience(forOperator)
	cmd.Flags().Var(&reader, "for", "who reads it")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{string(forPlanner), string(forOperator), string(forAuditor)}, cobra.ShellCompDirectiveNoFileComp))
	bundle := cmd.Flags().StringP("bundle", "b", "", "directory of the bundle to decide under again, for an auditor")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *bundle != "" && reader != forAuditor {
			return hinted(errors.New("--bundle is for an auditor"), "add --for auditor")
		}
		records, free, err := from.open()
		if err != nil {
			return err
		}
		defer free.Close() //nolint:errcheck // read only
		e := &explainer{w: cmd.OutOrStdout(), records: records, bundle: *bundle}
		if err := e.find(cmd.Context(), args[0]); err != nil {
			return from.advise(err)
		}
		return from.advise(e.explain(cmd.Context(), reader, *form))
	}
	return cmd
}

// audience is who an explanation is for.
type audience string

const (
	forPlanner  audience = "planner"
	forOperator audience = "operator"
	forAuditor  audience = "auditor"
)

// String, Set and Type make audience a flag's value.
func (a *audience) String() string { return string(*a) }

// Set takes planner, operator or auditor.
func (a *audience) Set(s string) error {
	switch audience(s) {
	case forPlanner, forOperator, forAuditor:
		*a = audience(s)
		return nil
	default:
		return fmt.Errorf("an explanation is for a planner, an operator or an auditor, not for %q", s)
	}
}

// Type names the value in help texts.
func (a *audience) Type() string { return "planner|operator|auditor" }

// explainer explains one decision.
type explainer struct {
	w       io.Writer
	records query.Reader
	bundle  string

	// stored is the decision's record and what followed it, record and body the first.
	stored []*writv1.StoredRecord
	record *writv1.Record
	body   *writv1.DecisionRecord
}

// find reads the records of the decision.
func (e *explainer) find(ctx context.Context, id string) error {
	var err error
	if e.stored, err = e.records.Get(ctx, id); err != nil {
		return err
	}
	for _, stored := range e.stored {
		record := &writv1.Record{}
		if err := canonical.Unmarshal(stored.GetRecord(), record); err != nil {
			return fmt.Errorf("read the record: %w", err)
		}
		if record.GetKind() != writv1.RecordKind_RECORD_KIND_DECISION {
			continue
		}
		e.record, e.body = record, &writv1.DecisionRecord{}
		if err := canonical.Unmarshal(record.GetBody(), e.body); err != nil {
			return fmt.Errorf("read the decision: %w", err)
		}
		return nil
	}
	return hinted(fmt.Errorf("nothing is recorded of the decision %s but what became of it", id), "its record may have been pruned; ask the collector")
}

func (e *explainer) explain(ctx context.Context, reader audience, form output) error {
	explanation := e.planner()
	var err error
	switch reader {
	case forOperator:
		err = e.operator(ctx, explanation)
	case forAuditor:
		err = e.auditor(ctx, explanation)
	}
	if err != nil {
		return err
	}
	if form == outputJSON {
		return explanation.writeJSON(e.w)
	}
	return explanation.writeText(e.w)
}

// planner says what the planner was told: the reason, where, and what would pass.
func (e *explainer) planner() *explanation {
	decision := e.body.GetDecision()
	out := &explanation{
		Decision: fmt.Sprintf("%x", e.record.GetDecisionId()), Verdict: policy.VerdictName(decision.GetVerdict()),
		Reason: reasons.Name(decision.GetReason()), Tool: e.body.GetTool(), ApprovalID: e.body.GetApprovalId(),
	}
	if deciding := decidingCheck(decision); deciding != nil {
		out.Field, out.ToPass = deciding.GetField(), deciding.GetMessage()
	}
	return out
}

// decidingCheck returns the check that a decision's reason is of; nil for an ALLOW.
func decidingCheck(decision *writv1.Decision) *writv1.Check {
	for _, check := range decision.GetChecks() {
		if check.GetReason() == decision.GetReason() && check.GetOutcome() != writv1.CheckOutcome_CHECK_OUTCOME_PASS {
			return check
		}
	}
	return nil
}

// operator adds every check, where values came from, and the rest of the record.
func (e *explainer) operator(ctx context.Context, out *explanation) error {
	for _, check := range e.body.GetDecision().GetChecks() {
		out.Checks = append(out.Checks, explainedCheck{
			Stage: check.GetStage(), Check: check.GetName(), Outcome: policy.OutcomeName(check.GetOutcome()),
			Reason: reasonName(check.GetReason()), Field: check.GetField(), Message: check.GetMessage(),
		})
	}
	brought, err := e.brought(ctx)
	if err != nil {
		return err
	}
	for _, value := range e.body.GetFacts().GetValues() {
		one := explainedValue{Path: value.GetPath(), Provenance: query.Provenance(value)}
		for _, source := range value.GetSources() {
			one.Brought = append(one.Brought, brought[source]...)
		}
		out.Values = append(out.Values, one)
	}
	if risk := e.body.GetDecision().GetRisk(); risk != nil {
		out.Risk, out.Review = policy.RiskText(risk), e.body.GetReview()
	}
	var text strings.Builder
	if err := query.WriteRecord(&text, e.stored); err != nil {
		return err
	}
	out.record = text.String()
	return nil
}

func reasonName(reason writv1.Reason) string {
	if reason == writv1.Reason_REASON_UNSPECIFIED {
		return ""
	}
	return reasons.Name(reason)
}

// mostBrought bounds the records that are named for one source, the newest.
const mostBrought = 8

// brought returns the observations of the decision's session before it, by source.
func (e *explainer) brought(ctx context.Context) (map[string][]string, error) {
	found := make(map[string][]string)
	if len(e.body.GetFacts().GetValues()) == 0 {
		return found, nil
	}
	request := &writv1.ListRecordsRequest{PageSize: 1000, Filter: &writv1.RecordFilter{
		Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_OBSERVATION}, Tenant: e.record.GetTenant(), Origin: e.stored[0].GetOrigin(),
	}}
	for {
		page, err := e.records.List(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, stored := range page.GetRecords() {
			e.observed(stored, found)
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return found, nil
		}
	}
}

// observed notes an observation of the decision's session that came before it.
func (e *explainer) observed(stored *writv1.StoredRecord, found map[string][]string) {
	record, body := &writv1.Record{}, &writv1.ObservationRecord{}
	if canonical.Unmarshal(stored.GetRecord(), record) != nil || canonical.Unmarshal(record.GetBody(), body) != nil {
		return
	}
	source := body.GetSource()
	if string(body.GetSession()) != string(e.body.GetSession()) || record.GetIndex() >= e.record.GetIndex() || len(found[source]) >= mostBrought {
		return
	}
	text := fmt.Sprintf("record %d at %s", record.GetIndex(), body.GetTime().AsTime().Format(time.RFC3339))
	if id := record.GetDecisionId(); len(id) > 0 {
		text += fmt.Sprintf(", by the call %x", id)
	}
	found[source] = append(found[source], text)
}
