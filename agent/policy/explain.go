// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Explain writes a result for people: verdict and reason, every check by its
// stage, and what an ALLOW does and demands. It writes no argument's value.
func Explain(w io.Writer, result *Result) error {
	var out strings.Builder
	decision := result.Decision
	fmt.Fprintf(&out, "%s  %s\n", VerdictName(decision.GetVerdict()), reasons.Name(decision.GetReason()))
	if result.Tool != nil {
		fmt.Fprintf(&out, "tool %s\n", result.Tool.Name)
	}
	out.WriteByte('\n')
	explainChecks(&out, decision.GetChecks())
	explainRisk(&out, decision.GetRisk())
	for _, obligation := range decision.GetObligations() {
		redact := obligation.GetRedactResponse()
		fmt.Fprintf(&out, "obligation  redact %s of the response (%s)\n", redact.GetPath(), trim(redact.GetSensitivity().String(), "SENSITIVITY_"))
	}
	for _, effect := range decision.GetEffects() {
		if reserve := effect.GetReserve(); reserve != nil {
			explainReserve(&out, reserve)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func explainRisk(out *strings.Builder, r *writv1.RiskAssessment) {
	if r == nil {
		return
	}
	fmt.Fprintf(out, "risk score  %s\n", RiskText(r))
}

// RiskText returns an assessment in words, such as "75: high 60, large_refund +15; in
// severe, 200 of 1000 reviewed".
func RiskText(r *writv1.RiskAssessment) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d: %s %d", r.GetScore(), strings.ToLower(trim(r.GetDeclared().String(), "RISK_")), declaredScores[r.GetDeclared()])
	for _, c := range r.GetContributions() {
		fmt.Fprintf(&out, ", %s %+d", c.GetRule(), c.GetScore())
	}
	if r.GetBand() != "" {
		fmt.Fprintf(&out, "; in %s, %d of 1000 reviewed", r.GetBand(), r.GetReviewPerMille())
	}
	return out.String()
}

func explainReserve(out *strings.Builder, reserve *writv1.Reserve) {
	window := "in the window from " + reserve.GetWindowStart().AsTime().Format(time.RFC3339)
	switch {
	case reserve.GetRolling() != nil:
		window = "in the last " + reserve.GetRolling().AsDuration().String()
	case reserve.GetExpireTime() != nil:
		window = "once and for all"
	}
	fmt.Fprintf(out, "effect      take %d of %s from %s for [%s], %s\n",
		reserve.GetAmount(), trim(reserve.GetDimension().String(), "DIMENSION_"), reserve.GetBudget(),
		strings.Join(reserve.GetKey(), " "), window)
}

// explainChecks writes a line a check, each stage named once.
func explainChecks(out *strings.Builder, checks []*writv1.Check) {
	stage := ""
	for _, check := range checks {
		name := ""
		if check.GetStage() != stage {
			stage = check.GetStage()
			name = stage
		}
		fmt.Fprintf(out, "%-11s %-4s %s", name, mark(check.GetOutcome()), check.GetName())
		if check.GetReason() != writv1.Reason_REASON_UNSPECIFIED {
			fmt.Fprintf(out, "  %s", reasons.Name(check.GetReason()))
		}
		if check.GetField() != "" {
			fmt.Fprintf(out, "  %s", check.GetField())
		}
		if check.GetMessage() != "" {
			fmt.Fprintf(out, ": %s", check.GetMessage())
		}
		out.WriteByte('\n')
	}
}

// mark is how an outcome stands in an explanation.
func mark(outcome writv1.CheckOutcome) string {
	switch outcome {
	case writv1.CheckOutcome_CHECK_OUTCOME_PASS:
		return "ok"
	case writv1.CheckOutcome_CHECK_OUTCOME_FAIL:
		return "FAIL"
	case writv1.CheckOutcome_CHECK_OUTCOME_ERROR:
		return "ERR"
	case writv1.CheckOutcome_CHECK_OUTCOME_NOT_APPLICABLE:
		return "n/a"
	default:
		return "-"
	}
}

// VerdictName returns the name of a verdict without its prefix.
func VerdictName(verdict writv1.Verdict) string { return trim(verdict.String(), "VERDICT_") }

// OutcomeName returns the name of a check's outcome without its prefix.
func OutcomeName(outcome writv1.CheckOutcome) string { return trim(outcome.String(), "CHECK_OUTCOME_") }

func trim(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

// ExplainJSON writes a result for programs: the tool's name and the decision as
// writ.v1.Decision in JSON, indented.
func ExplainJSON(w io.Writer, result *Result) error {
	decision, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(result.Decision)
	if err != nil {
		return fmt.Errorf("writing the decision: %w", err)
	}
	explanation := struct {
		Tool     string          `json:"tool,omitempty"`
		Decision json.RawMessage `json:"decision"`
	}{Decision: decision}
	if result.Tool != nil {
		explanation.Tool = result.Tool.Name
	}
	// protojson varies its spaces on purpose; Marshal and Indent make them one.
	text, err := json.Marshal(explanation)
	if err != nil {
		return fmt.Errorf("writing the decision: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return fmt.Errorf("writing the decision: %w", err)
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}
