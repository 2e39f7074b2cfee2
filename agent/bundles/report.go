// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// WriteText writes the report for people: each failing test with what differs
// and the decision explained, then a line that counts.
func (r *Report) WriteText(w io.Writer) error {
	var out strings.Builder
	for _, c := range r.Failed() {
		fmt.Fprintf(&out, "FAIL %s:%d: %s\n", c.File, c.Line, c.Name)
		for _, difference := range c.Differences {
			fmt.Fprintf(&out, "    %s\n", difference)
		}
		explanation, err := explain(c.Result)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "    the decision was:\n%s\n", indent(explanation, "      "))
	}
	failed := len(r.Failed())
	fmt.Fprintf(&out, "%d tests, %d passed, %d failed\n", len(r.Cases), len(r.Cases)-failed, failed)
	_, err := io.WriteString(w, out.String())
	return err
}

func explain(result *policy.Result) (string, error) {
	if result == nil {
		return "", nil
	}
	var out strings.Builder
	err := policy.Explain(&out, result)
	return strings.TrimRight(out.String(), "\n"), err
}

func indent(text, by string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = by + line
		}
	}
	return strings.Join(lines, "\n")
}

// caseJSON is a case in the report for programs.
type caseJSON struct {
	File        string   `json:"file"`
	Line        int      `json:"line"`
	Name        string   `json:"name"`
	Passed      bool     `json:"passed"`
	Verdict     string   `json:"verdict,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Differences []string `json:"differences,omitempty"`
	// Kind, Harmed and Calls are a scenario's.
	Kind   string     `json:"kind,omitempty"`
	Harmed bool       `json:"harmed,omitempty"`
	Calls  []callJSON `json:"calls,omitempty"`
}

// callJSON is a call of a scenario in the report for programs.
type callJSON struct {
	Step    int         `json:"step"`
	Tool    string      `json:"tool"`
	Verdict string      `json:"verdict"`
	Reason  string      `json:"reason"`
	Carried bool        `json:"carried_out"`
	Failing []checkJSON `json:"failing,omitempty"`
}

// checkJSON is a check that did not pass.
type checkJSON struct {
	Check   string `json:"check"`
	Reason  string `json:"reason"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

func callsJSON(p *Played) []callJSON {
	var out []callJSON
	for _, c := range p.Calls {
		one := callJSON{
			Step: c.Step, Tool: c.Call.GetTool(), Carried: c.Carried,
			Verdict: policy.VerdictName(c.Result.Decision.GetVerdict()), Reason: reasons.Name(c.Result.Decision.GetReason()),
		}
		for _, check := range c.Result.Decision.GetChecks() {
			if check.GetReason() != writv1.Reason_REASON_UNSPECIFIED {
				one.Failing = append(one.Failing, checkJSON{
					Check: check.GetStage() + "/" + check.GetName(), Reason: reasons.Name(check.GetReason()), Field: check.GetField(), Message: check.GetMessage(),
				})
			}
		}
		out = append(out, one)
	}
	return out
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	report := struct {
		Tests  int        `json:"tests"`
		Failed int        `json:"failed"`
		Cases  []caseJSON `json:"cases"`
	}{Tests: len(r.Cases), Failed: len(r.Failed()), Cases: []caseJSON{}}
	for _, c := range r.Cases {
		report.Cases = append(report.Cases, c.json())
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

func (c *Case) json() caseJSON {
	out := caseJSON{File: c.File, Line: c.Line, Name: c.Name, Passed: len(c.Differences) == 0, Differences: c.Differences}
	if c.Result != nil {
		out.Verdict = policy.VerdictName(c.Result.Decision.GetVerdict())
		out.Reason = reasons.Name(c.Result.Decision.GetReason())
	}
	if c.Played != nil {
		out.Kind = strings.ToLower(strings.TrimPrefix(c.Played.Scenario.GetKind().String(), "SCENARIO_KIND_"))
		out.Harmed, out.Calls = c.Played.Harmed, callsJSON(c.Played)
	}
	return out
}
