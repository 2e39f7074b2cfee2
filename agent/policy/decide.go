// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// stage is one step of a decision. It leaves checks in the evaluation.
type stage struct {
	name  string
	judge func(*evaluation)
	then  continuation
}

// continuation is what follows a stage that denied.
type continuation int

const (
	// goOn lets the later stages run, so that every failing check is named.
	goOn continuation = iota
	// stop ends the decision: there is nothing typed to weigh.
	stop
)

// stages are the steps of every decision, in their fixed order (SEMANTICS 3).
// None of them turns a DENY around: an evaluation only ever gains failures.
var stages = [...]stage{
	{"principal", (*evaluation).principal, stop},
	{"decode", (*evaluation).decode, stop},
	{"tool", (*evaluation).knownTool, stop},
	{"schema", (*evaluation).schema, stop},
	{"grant", (*evaluation).grants, goOn},
	{"contract", (*evaluation).contract, goOn},
	{"condition", (*evaluation).conditions, goOn},
	{"data", (*evaluation).data, goOn},
	{"budget", (*evaluation).budgets, goOn},
	{"risk", (*evaluation).risk, goOn},
	{"approval", (*evaluation).approval, goOn},
}

// evaluation is one decision being made.
type evaluation struct {
	bundle *Bundle
	call   *Call
	facts  *writv1.Facts
	now    time.Time

	// reading is what the arguments say: its entry is the tool with what bears on
	// it, nil when it is not known.
	*reading
	// labels is what the facts say of the values, by path.
	labels map[string]*writv1.ValueProvenance
	scope  activation

	checks  []*writv1.Check
	effects []*writv1.Effect
	// denied is the first check that denies, pending the first that asks for an
	// approval.
	denied, pending *writv1.Check
	// askedBy are the names of the checks that ask, request what they ask for.
	askedBy []string
	request *writv1.ApprovalRequest
	// consumed is the approval that answers them.
	consumed *writv1.Effect
	// assessment is how risky the call is; nil where nothing scores it.
	assessment *writv1.RiskAssessment
	// witnesses are how expressions came out that read a sensitive argument.
	witnesses []*writv1.Witness
	// closed says that a value was needed which is closed, and of which there is no
	// witness.
	closed bool
	// basis are the digests of the grants that allow the call.
	basis [][32]byte

	// matched is room for the grants that match most calls.
	matched [16]match
}

// Decide weighs one call. It always returns a decision; whatever it cannot
// judge is denied. Facts without a balance count nothing as taken, so the caller
// MUST bring the balances that [Bundle.Balances] names.
func Decide(b *Bundle, c *Call, f *writv1.Facts) *Result {
	e := &evaluation{bundle: b, call: c, facts: f, now: f.GetTime().AsTime(), reading: &reading{}}
	e.checks = make([]*writv1.Check, 0, 8+len(b.rules))
	for i := range stages {
		stages[i].judge(e)
		if e.denied != nil && stages[i].then == stop {
			e.checks = append(e.checks, b.unevaluated...)
			break
		}
	}
	return e.result()
}

// canonicalRoom is for arguments that do not stand in the JSON text, such as a path's.
const canonicalRoom = 128

// result closes the evaluation. Effects and obligations stand only where the
// call may be carried out.
func (e *evaluation) result() *Result {
	decision := &writv1.Decision{Checks: e.checks, Risk: e.assessment}
	switch {
	case e.denied != nil:
		decision.Verdict = writv1.Verdict_VERDICT_DENY
		decision.Reason = e.denied.GetReason()
	case e.pending != nil:
		decision.Verdict = writv1.Verdict_VERDICT_NEEDS_APPROVAL
		decision.Reason = writv1.Reason_REASON_APPROVAL_REQUIRED
	default:
		decision.Verdict = writv1.Verdict_VERDICT_ALLOW
		decision.Reason = writv1.Reason_REASON_GRANTED
		decision.Obligations = e.entry.obligations
	}
	result := &Result{Decision: decision, Witnesses: e.witnesses, Closed: e.closed}
	if e.denied == nil {
		result.Effects = append(e.effects, e.keeps()...)
		result.Approval = e.request
	}
	if e.denied == claimedNod {
		// It may be held: who decides looks for it.
		result.Approval = e.request
	}
	if e.denied == nil && e.consumed != nil {
		result.Effects = append(result.Effects, e.consumed)
	}
	if e.denied == nil && e.pending == nil {
		decision.Effects = result.Effects
	}
	if e.entry != nil {
		result.Tool = e.entry.tool
	}
	if e.typed != nil {
		result.Message, result.Canonical = e.typed, e.canonical
		if len(result.Approval.GetAtMost()) > 0 {
			result.Unbounded = e.unbounded()
		}
	}
	return result
}

// pass notes a check that does not stand in the way.
func (e *evaluation) pass(check *writv1.Check) {
	e.checks = append(e.checks, check)
}

// deny notes a check that denies the call.
func (e *evaluation) deny(check *writv1.Check) {
	e.checks = append(e.checks, check)
	if e.denied == nil {
		e.denied = check
	}
}

// ask notes a check that asks for an approval.
func (e *evaluation) ask(check *writv1.Check) {
	e.checks = append(e.checks, check)
	e.askedBy = append(e.askedBy, check.GetName())
	if e.pending == nil {
		e.pending = check
	}
}

// passing returns a check that passed. Such checks are made once and shared.
func passing(stage, name string) *writv1.Check {
	return &writv1.Check{Stage: stage, Name: name, Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS}
}

// failing returns a check that failed.
func failing(stage, name string, reason writv1.Reason, field, message string) *writv1.Check {
	return &writv1.Check{
		Stage:   stage,
		Name:    name,
		Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL,
		Reason:  reason,
		Field:   clip(field),
		Message: clip(message),
	}
}

// clip keeps a text within the 1024 characters that Check allows.
func clip(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	cut := most
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut--
	}
	return text[:cut]
}
