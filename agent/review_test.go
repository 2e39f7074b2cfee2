// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"strconv"
	"testing"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const risks = `rules:
  - {name: big, tools: [workshop.make], condition: 'args.thing.startsWith("big")', score: 50}
  - {name: huge, tools: [workshop.make], condition: 'args.thing.startsWith("bigger")', score: 40}
bands:
  - {name: quiet, tools: ["*"], at_least: 5, review_per_mille: 100}
  - {name: loud, tools: ["*"], at_least: 60, review_per_mille: 500}
  - {name: wild, tools: ["*"], at_least: 95, on_reach: ON_FAILURE_DENY, review_per_mille: 1000}
`

func TestRiskierCallsAreReviewedMoreOften(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: map[string]string{"risk/all.yaml": risks}})
	const calls = 600
	for _, c := range []struct {
		thing, band  string
		verdict      writv1.Verdict
		fewest, most int
	}{
		// Bounds are six standard deviations of the binomial away from its mean.
		{"small", "quiet", writv1.Verdict_VERDICT_ALLOW, 15, 105},
		{"big", "loud", writv1.Verdict_VERDICT_ALLOW, 226, 374},
		{"bigger", "wild", writv1.Verdict_VERDICT_DENY, calls, calls},
	} {
		for i := range calls {
			admission := w.agent.Admit(t.Context(), request("workshop.make", c.thing+strconv.Itoa(i)))
			if got := admission.Decision().GetVerdict(); got != c.verdict {
				t.Fatalf("%s: the verdict is %s: %v", c.thing, got, admission.Refusal())
			}
			if admission.Allowed() {
				fail(t, admission)
			}
		}
		reviewed := 0
		for _, e := range w.entries() {
			if e.decision.GetDecision().GetRisk().GetBand() == c.band && e.decision.GetReview() {
				reviewed++
			}
		}
		if reviewed < c.fewest || reviewed > c.most {
			t.Errorf("of %d calls in %s %d are put up for review, not %d to %d", calls, c.band, reviewed, c.fewest, c.most)
		}
	}
}

// fail ends a call that was allowed without having it run.
func fail(t *testing.T, admission *agent.Admission) {
	t.Helper()
	if err := admission.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED}); err != nil {
		t.Fatal(err)
	}
}

func TestAnApprovalThatAScoreAskedForLetsTheCallThrough(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{approvers: approvers(), files: map[string]string{
		"risk/all.yaml": `rules:
  - {name: big, tools: [workshop.make], condition: 'args.thing.startsWith("big")', score: 50}
bands:
  - {name: severe, tools: ["*"], at_least: 60, on_reach: ON_FAILURE_NEEDS_APPROVAL}
`,
		"approvals/all.yaml": "approvals:\n  - {name: plain, tools: [\"*\"], roles: [boss]}\n",
	}})
	fail(t, w.allow(request("workshop.make", "small")))
	w.approve(w.pending(request("workshop.make", "big")))
	fail(t, w.allow(request("workshop.make", "big")))
}
