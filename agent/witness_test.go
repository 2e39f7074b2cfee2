// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"strings"
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestARecordSaysHowTheExpressionsCameOutThatReadASensitiveArgument(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: map[string]string{
		"protos/workshop.proto": strings.Replace(workshopFiles["protos/workshop.proto"],
			"[(buf.validate.field).string.max_len = 1000000];\n}\nmessage MakeResponse",
			"[(buf.validate.field).string.max_len = 1000000, (writ.v1.field).sensitivity = SENSITIVITY_REDACT];\n}\nmessage MakeResponse", 1),
		"checks/all.yaml": `checks:
  - {name: no_box, tools: [workshop.make], expression: 'args.thing != "box"', on_failure: ON_FAILURE_DENY, message: m}
  - {name: somebody, tools: [workshop.make], expression: 'principal.user != ""', on_failure: ON_FAILURE_DENY, message: m}
`,
	}})
	w.allow(request("workshop.make", "cup"))
	if refusal := w.agent.Admit(t.Context(), request("workshop.make", "box")).Refusal(); refusal == nil {
		t.Fatal("the box is let through")
	}
	want := []writv1.WitnessOutcome{writv1.WitnessOutcome_WITNESS_OUTCOME_HOLDS, writv1.WitnessOutcome_WITNESS_OUTCOME_DOES_NOT_HOLD}
	var came []writv1.WitnessOutcome
	for _, e := range w.entries() {
		if e.decision == nil {
			continue
		}
		if strings.Contains(string(e.decision.GetArguments()), "thing") {
			t.Errorf("the record holds the argument: %s", e.decision.GetArguments())
		}
		for _, witness := range e.decision.GetFacts().GetWitnesses() {
			came = append(came, witness.GetOutcome())
		}
	}
	if len(came) != 2 || came[0] != want[0] || came[1] != want[1] {
		t.Errorf("the witnesses are %v, want %v", came, want)
	}
}
