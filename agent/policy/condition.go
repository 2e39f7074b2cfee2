// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// rule is a named check of the bundle, with the checks it can leave.
type rule struct {
	name      string
	onRequest bool
	onFailure writv1.OnFailure
	digest    [32]byte

	passed, failed, errored, notApplicable, notEvaluated *writv1.Check
}

func newRule(r *writv1.CheckRule) *rule {
	reason := writv1.Reason_REASON_CONDITION_CHECK_FAILED
	if r.GetOnFailure() == writv1.OnFailure_ON_FAILURE_NEEDS_APPROVAL {
		reason = writv1.Reason_REASON_APPROVAL_REQUIRED
	}
	out := &rule{
		name:          r.GetName(),
		onRequest:     r.GetMode() == writv1.CheckMode_CHECK_MODE_ON_REQUEST,
		onFailure:     r.GetOnFailure(),
		digest:        digestOf(r),
		passed:        passing("condition", r.GetName()),
		failed:        failing("condition", r.GetName(), reason, "", r.GetMessage()),
		errored:       failing("condition", r.GetName(), writv1.Reason_REASON_CONDITION_CHECK_ERROR, "", "the check could not be evaluated"),
		notApplicable: passing("condition", r.GetName()),
		notEvaluated:  passing("condition", r.GetName()),
	}
	out.errored.Outcome = writv1.CheckOutcome_CHECK_OUTCOME_ERROR
	out.notApplicable.Outcome = writv1.CheckOutcome_CHECK_OUTCOME_NOT_APPLICABLE
	out.notEvaluated.Outcome = writv1.CheckOutcome_CHECK_OUTCOME_NOT_EVALUATED
	return out
}

// applied is a rule as it bears on one tool; condition is nil where it does not.
type applied struct {
	*rule
	condition *program
}

// conditions evaluates the bundle's checks, each of which leaves its outcome,
// holds the values against the provenance that their fields demand, and the
// envelope's claims against what was verified.
func (e *evaluation) conditions() {
	for i := range e.entry.rules {
		e.condition(&e.entry.rules[i])
	}
	e.demands()
	e.claims()
}

func (e *evaluation) condition(r *applied) {
	if r.condition == nil || r.onRequest && !e.asked(r.name) {
		e.pass(r.notApplicable)
		return
	}
	check := r.failed
	switch e.holds(r.condition) {
	case yes:
		e.pass(r.passed)
		return
	case erred:
		check = r.errored
	}
	if r.onFailure == writv1.OnFailure_ON_FAILURE_NEEDS_APPROVAL {
		e.ask(check)
		return
	}
	e.deny(check)
}

// asked says whether the envelope names the check in policy_checks.
func (e *evaluation) asked(name string) bool {
	return slices.Contains(e.call.Envelope.GetToolCall().GetPolicyChecks(), name)
}

// claimMismatch is the name of the check on the envelope's claims.
const claimMismatch = "claim_mismatch"

var (
	claimsHold      = passing("condition", claimMismatch)
	claimedRole     = mismatch("user_role", "the role claimed is not one of the principal's")
	claimedTenant   = mismatch("retrieval.tenant", "the tenant claimed is not the principal's")
	claimedChecks   = mismatch("tool_call.policy_checks", "a check claimed is not one of the bundle's")
	claimedWorkflow = mismatch("workflow", "the workflow claimed is not the one that the session is in")
	claimedIntent   = mismatch("intent", "the intent claimed is not the one that the workflow was begun for")
	claimedNod      = failing("approval", "claimed_approval", writv1.Reason_REASON_CONDITION_CLAIM_MISMATCH,
		"tool_call.approved", "an approval is claimed that is not held")
	claimedTruly = passing("approval", "claimed_approval")
)

func mismatch(field, message string) *writv1.Check {
	return failing("condition", claimMismatch, writv1.Reason_REASON_CONDITION_CLAIM_MISMATCH, field, message)
}

// claims denies what the envelope claims and nobody verified (SEMANTICS 7). What was
// verified instead is not told. Whether an approval that is claimed is held is told
// where approvals are weighed.
func (e *evaluation) claims() {
	before := len(e.checks)
	said, who := e.call.Envelope, e.call.Principal
	if role := said.GetUserRole(); role != "" && !slices.Contains(who.GetRoles(), role) {
		e.deny(claimedRole)
	}
	if tenant := said.GetRetrieval().GetTenant(); tenant != "" && tenant != who.GetTenant() {
		e.deny(claimedTenant)
	}
	for _, name := range said.GetToolCall().GetPolicyChecks() {
		if !e.bundle.named[name] {
			e.deny(claimedChecks)
			break
		}
	}
	workflow, intent := e.misclaimed()
	if workflow {
		e.deny(claimedWorkflow)
	}
	if intent {
		e.deny(claimedIntent)
	}
	if len(e.checks) == before {
		e.pass(claimsHold)
	}
}
