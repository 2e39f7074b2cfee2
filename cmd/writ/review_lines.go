// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reviewLine is a call under review as one line of NDJSON. Who labels it fills in label,
// and leaves decision_id and record_digest as they are.
type reviewLine struct {
	DecisionID   string          `json:"decision_id"`
	RecordDigest string          `json:"record_digest"`
	Tenant       string          `json:"tenant,omitempty"`
	Time         string          `json:"time,omitempty"`
	User         string          `json:"user,omitempty"`
	Workload     string          `json:"workload,omitempty"`
	Tool         string          `json:"tool,omitempty"`
	Arguments    json.RawMessage `json:"arguments,omitempty"`
	KeptOut      []string        `json:"kept_out,omitempty"`
	Values       []reviewValue   `json:"values,omitempty"`
	Risk         *reviewRisk     `json:"risk,omitempty"`
	Verdict      string          `json:"verdict,omitempty"`
	Reason       string          `json:"reason,omitempty"`
	Checks       []reviewCheck   `json:"checks,omitempty"`
	Labels       []reviewLabel   `json:"labels,omitempty"`
	Label        *reviewLabel    `json:"label"`
}

// reviewValue is where a value among the arguments came from.
type reviewValue struct {
	Path       string `json:"path"`
	Provenance string `json:"provenance"`
}

// reviewCheck is a check that failed.
type reviewCheck struct {
	Stage   string `json:"stage"`
	Check   string `json:"check"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

type reviewRisk struct {
	Score uint32         `json:"score"`
	Band  string         `json:"band,omitempty"`
	Rules map[string]int `json:"rules,omitempty"`
}

type reviewLabel struct {
	Verdict  string `json:"verdict"`
	Note     string `json:"note,omitempty"`
	Reviewer string `json:"reviewer,omitempty"`
	Time     string `json:"time,omitempty"`
}

func lineOf(r *query.Review) reviewLine {
	body := r.Body
	out := reviewLine{
		DecisionID: r.ID, RecordDigest: hex.EncodeToString(r.Digest), Tenant: r.Record.GetTenant(),
		Time: r.Time().Format(time.RFC3339Nano), User: body.GetPrincipal().GetUser(), Workload: body.GetPrincipal().GetWorkload(),
		Tool: body.GetTool(), Arguments: body.GetArguments(),
		Verdict: policy.VerdictName(body.GetDecision().GetVerdict()), Reason: reasons.Name(body.GetDecision().GetReason()),
	}
	for _, commitment := range r.Record.GetCommitments() {
		out.KeptOut = append(out.KeptOut, commitment.GetPath())
	}
	for _, value := range body.GetFacts().GetValues() {
		out.Values = append(out.Values, reviewValue{Path: value.GetPath(), Provenance: query.Provenance(value)})
	}
	for _, check := range body.GetDecision().GetChecks() {
		if check.GetReason() == writv1.Reason_REASON_UNSPECIFIED {
			continue
		}
		out.Checks = append(out.Checks, reviewCheck{
			Stage: check.GetStage(), Check: check.GetName(), Outcome: policy.OutcomeName(check.GetOutcome()),
			Reason: reasons.Name(check.GetReason()), Message: check.GetMessage(),
		})
	}
	risk := body.GetDecision().GetRisk()
	out.Risk = &reviewRisk{Score: risk.GetScore(), Band: risk.GetBand(), Rules: make(map[string]int)}
	for _, c := range risk.GetContributions() {
		out.Risk.Rules[c.GetRule()] = int(c.GetScore())
	}
	for _, label := range r.Labels {
		out.Labels = append(out.Labels, labelOf(label))
	}
	return out
}

// writeReviewLines writes calls under review as NDJSON.
func writeReviewLines(w io.Writer, all []*query.Review) error {
	for _, r := range all {
		line, err := json.Marshal(lineOf(r))
		if err != nil {
			return fmt.Errorf("write the call %s: %w", r.ID, err)
		}
		if _, err := fmt.Fprintf(w, "%s\n", query.PrintableJSON(line)); err != nil {
			return err
		}
	}
	return nil
}

func newReviewsExport(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the calls that wait for a review as NDJSON, for whoever labels them",
		Long: `Export writes a line of JSON for each call: what was asked for, with which arguments and
where they came from, how risky it was found, what was decided and which checks failed.
What is sensitive is not recorded, and so is not there: "kept_out" names it. Whoever labels
a call sets "label" to {"verdict": "ALLOW", "DENY" or "NEEDS_APPROVAL", "note": "..."},
and "writ reviews import" takes the file back.`,
		Example: "  writ reviews export --ledger /var/lib/writ/ledger --since 7d > queue.ndjson",
		Args:    cobra.NoArgs,
	}
	all := cmd.Flags().Bool("all", false, "also those that have labels")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found, err := desk.reviews(cmd)
		if err != nil {
			return err
		}
		if !*all {
			found = unlabelled(found)
		}
		return writeReviewLines(cmd.OutOrStdout(), found)
	}
	return cmd
}

// Bounds of a file that is imported.
const (
	mostLines     = query.MostReviews
	mostLineBytes = 1 << 20
)

// labelled is a line that says something of a call.
type labelled struct {
	call    *query.Review
	verdict writv1.Verdict
	note    string
}

func newReviewsImport(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Record the labels of an exported file",
		Long: `Import reads a file that "writ reviews export" wrote and in which labels were filled in, and
records each label, signed with the importing reviewer's key. Lines whose label is null are
passed over, and so are labels that the reviewer has recorded already: it is safe to import
a file again. Every line is checked before the first label is recorded. "-" is standard
input.`,
		Example: "  writ reviews import --ledger /var/lib/writ/ledger --agent unix:/run/writ/planner.sock --key bob.key labelled.ndjson",
		Args:    cobra.ExactArgs(1),
	}
	desk.addLabels(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := desk.labeller()
		if err != nil {
			return err
		}
		defer l.Close() //nolint:errcheck // nothing is lost with it
		all, err := desk.reviews(cmd)
		if err != nil {
			return err
		}
		in, name := cmd.InOrStdin(), "standard input"
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read the labels: %w", err)
			}
			defer file.Close() //nolint:errcheck // read only
			in, name = file, args[0]
		}
		labels, silent, err := readLabels(in, name, all, l.key.User)
		if err != nil {
			return err
		}
		return desk.record(cmd, l, labels, silent)
	}
	return cmd
}

// record records labels that are not recorded yet, and says how many.
func (d *reviewDesk) record(cmd *cobra.Command, l *labeller, labels []labelled, silent int) error {
	recorded, known := 0, 0
	for _, one := range labels {
		if said(one, l.key.User) {
			known++
			continue
		}
		if _, err := l.label(cmd.Context(), one.call, one.verdict, one.note); err != nil {
			return hinted(fmt.Errorf("after %d of %d labels, at the call %s: %w", recorded, len(labels), one.call.ID, d.advise(err)),
				"import the file again: what is recorded is passed over")
		}
		if recorded++; recorded%1000 == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: note: %d of %d labels are recorded\n", recorded, len(labels))
		}
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d labels recorded, %d were recorded before, %d lines have no label\n", recorded, known, silent)
	return err
}

// said says whether a reviewer's label stands already.
func said(one labelled, reviewer string) bool {
	for _, label := range one.call.Labels {
		if label.GetReviewer() == reviewer && label.GetVerdict() == one.verdict && label.GetNote() == one.note {
			return true
		}
	}
	return false
}

// labelWords are the verdicts of labels.
var labelWords = map[string]writv1.Verdict{
	"ALLOW": writv1.Verdict_VERDICT_ALLOW, "DENY": writv1.Verdict_VERDICT_DENY, "NEEDS_APPROVAL": writv1.Verdict_VERDICT_NEEDS_APPROVAL,
}

// readLabels reads the labels of a file, and how many of its lines have none. The error
// tells every line that is wrong, up to twenty of them.
func readLabels(in io.Reader, name string, all []*query.Review, reviewer string) ([]labelled, int, error) {
	calls := make(map[string]*query.Review, len(all))
	for _, r := range all {
		calls[r.ID] = r
	}
	var found []labelled
	var wrong []error
	silent, seen := 0, make(map[string]int)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, mostLineBytes)
	for n := 1; lines.Scan(); n++ {
		if n > mostLines {
			return nil, 0, fmt.Errorf("%s has more than %d lines", name, mostLines)
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		one, id, err := readLabel(lines.Bytes(), calls, reviewer)
		switch {
		case err == nil && one == nil:
			silent++
		case err == nil && seen[id] > 0:
			err = fmt.Errorf("the call %s has a label on line %d", id, seen[id])
		case err == nil:
			seen[id] = n
			found = append(found, *one)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %w", name, n, err))
		}
		const mostTold = 20
		if len(wrong) == mostTold {
			break
		}
	}
	if err := lines.Err(); err != nil {
		wrong = append(wrong, fmt.Errorf("read %s: %w", name, err))
	}
	if len(wrong) > 0 {
		return nil, 0, hinted(errors.Join(wrong...), "no label was recorded")
	}
	return found, silent, nil
}

// readLabel reads one line; nil where it has no label.
func readLabel(text []byte, calls map[string]*query.Review, reviewer string) (*labelled, string, error) {
	var line reviewLine
	if err := json.Unmarshal(text, &line); err != nil {
		return nil, "", fmt.Errorf("not a line of JSON as it was exported: %w", err)
	}
	if line.Label == nil {
		return nil, line.DecisionID, nil
	}
	call, verdict := calls[line.DecisionID], labelWords[line.Label.Verdict]
	switch {
	case call == nil:
		return nil, "", fmt.Errorf("no call with decision_id %q was put up for review", line.DecisionID)
	case line.RecordDigest != hex.EncodeToString(call.Digest):
		return nil, "", fmt.Errorf("record_digest is not that of the record of %s: the label would be of something else", line.DecisionID)
	case verdict == writv1.Verdict_VERDICT_UNSPECIFIED:
		return nil, "", fmt.Errorf("label.verdict %q is none of ALLOW, DENY and NEEDS_APPROVAL", line.Label.Verdict)
	case len([]rune(line.Label.Note)) > 1024:
		return nil, "", errors.New("label.note has more than 1024 characters")
	case !call.Reviewable(reviewer):
		return nil, "", fmt.Errorf("%s made the call %s, and nobody reviews their own calls", reviewer, call.ID)
	}
	return &labelled{call: call, verdict: verdict, note: line.Label.Note}, line.DecisionID, nil
}
