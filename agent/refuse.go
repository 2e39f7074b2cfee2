// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

// refuse makes the denying decision of whatever went wrong around Decide: a
// request that could not be read, a key seen before, a fault. Every refusal
// walks this road, and is recorded like any decision.
func (a *Agent) refuse(ad *Admission, refusal *reasons.Error) {
	if refusal.Err != nil {
		a.options.Log.Warn("a call was refused",
			"decision_id", ad.ID(), "reason", reasons.Name(refusal.Reason), "cause", refusal.Err)
	}
	decision := &writv1.Decision{
		Verdict: writv1.Verdict_VERDICT_DENY,
		Reason:  refusal.Reason,
		Checks: []*writv1.Check{{
			Stage:   stageOf(refusal.Reason),
			Name:    "refused",
			Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL,
			Reason:  refusal.Reason,
			Field:   refusal.Field,
			Message: refusal.Message,
		}},
	}
	result := &policy.Result{Decision: decision}
	switch {
	case ad.result != nil:
		// What Decide found stands, but for the verdict.
		result.Tool, result.Message, result.Canonical = ad.result.Tool, ad.result.Message, ad.result.Canonical
		decision.Checks = slices.Concat(ad.result.Decision.GetChecks(), decision.Checks)
	case ad.bundle != nil:
		decision.Checks = slices.Concat(decision.Checks, ad.bundle.Unevaluated())
		result.Tool = ad.bundle.Tool(ad.call.Envelope.GetToolCall().GetName())
	}
	ad.result = result
	ad.refusal = refusal
	ad.origin = writv1.DecisionOrigin_DECISION_ORIGIN_REFUSAL
	ad.approvalID, ad.asks = approvals.ID{}, nil
}

// withdraw turns a decision that could not be made durable into a DENY. An ALLOW
// has its effects undone; where its record may have been written all the same,
// the outcome NOT_STARTED follows it, so that a fold of the ledger agrees.
func (a *Agent) withdraw(ctx context.Context, ad *Admission, refusal *reasons.Error) {
	if ad.Allowed() && ad.position.Recorded {
		outcome := &writv1.OutcomeRecord{
			State:     writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
			Reason:    refusal.Reason,
			Message:   refusal.Message,
			GivenBack: ad.returnable(),
		}
		if err := a.recordOutcome(ctx, newEnding(ad.claim, outcome, nil, nil)); err != nil {
			a.options.Log.ErrorContext(ctx, "the withdrawal of a call was not recorded", "decision_id", ad.ID(), "error", err)
		}
	} else if ad.Allowed() {
		a.state.mu.Lock()
		a.state.abandon(ad.claim)
		a.state.sessions.Abandon(ad.decided())
		a.state.workflows.Abandon(ad.id)
		if id, ok := consumedBy(ad.result.Decision); ok {
			a.state.approvals.Unconsume(id)
		}
		ad.counted = false
		a.state.mu.Unlock()
	}
	a.forgetOpen(ad)
	a.refuse(ad, refusal)
	if refusal.Reason == writv1.Reason_REASON_LEDGER_RECORD_TOO_LARGE {
		a.recordBare(ctx, ad)
	}
}

// refusalOf returns why a decision is not an ALLOW, from its first failing check.
func refusalOf(decision *writv1.Decision) *reasons.Error {
	if decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW {
		return nil
	}
	for _, check := range decision.GetChecks() {
		if check.GetReason() == decision.GetReason() && check.GetOutcome() != writv1.CheckOutcome_CHECK_OUTCOME_PASS {
			return &reasons.Error{Reason: decision.GetReason(), Field: check.GetField(), Message: check.GetMessage()}
		}
	}
	return reasons.New(decision.GetReason(), "", "the call is not allowed")
}

// stageOf returns the stage that a refusal's check stands in: that of the
// reason's name where it is a stage of Decide, and else the admission.
func stageOf(reason writv1.Reason) string {
	stage, _, _ := strings.Cut(strings.ToLower(reasons.Name(reason)), "_")
	switch stage {
	case "principal", "decode", "tool", "schema":
		return stage
	default:
		return "admission"
	}
}
