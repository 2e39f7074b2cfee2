// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/leases"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
)

var (
	// ErrNotAllowed is returned when a call that is not allowed is released or run.
	ErrNotAllowed = errors.New("the call is not allowed")
	// ErrReleased is returned when a call is released or run a second time.
	ErrReleased = errors.New("the call was released before")
	// ErrFinished is returned when a call is finished a second time.
	ErrFinished = errors.New("the call was finished before")
)

// Admission is one call on its way. [Agent.Admit] returns it decided and durable.
// What the accessors return does not change after that. Release, Run, Response
// and Finish may be called from any goroutine, each at most once.
type Admission struct {
	agent   *Agent
	id      admissions.ID
	time    time.Time
	request *Request
	bundle  *policy.Bundle
	call    policy.Call
	// oversize is set when the envelope is too large to be recorded.
	oversize *reasons.Error

	// Written by Admit, read-only afterwards.
	session sessions.ID
	needs   policy.Needs
	asked   []sessions.Asked
	facts   *writv1.Facts
	// slices are those of shared budgets that were read.
	slices     []leases.Slice
	result     *policy.Result
	origin     writv1.DecisionOrigin
	refusal    *reasons.Error
	tenantKey  []byte
	identity   admissions.Digest
	key        admissions.Digest
	earlier    *admissions.Held
	approvalID approvals.ID
	// asks is what a human is asked for, when the verdict is NEEDS_APPROVAL.
	asks  *writv1.ApprovalRequest
	claim admissions.Claim
	// counted says that the session has taken the decision.
	counted  bool
	digest   []byte
	lifetime time.Duration
	position ledger.Position
	token    string

	released atomic.Bool
	running  atomic.Bool
	joined   atomic.Bool
	// ended is when the call was finished; nil before.
	ended atomic.Pointer[time.Time]

	// mu guards what follows.
	mu       sync.Mutex
	finished bool
	answer   answer
}

// answer is what came back from the tool, as far as it was seen.
type answer struct {
	// whole is the canonical JSON before redaction, redacted after it.
	whole, redacted []byte
	removed         []ledger.Sensitive
	paths           []string
	// spent is what it tells of what the call took.
	spent []*writv1.Spending
}

// ID returns the decision's id as 32 hexadecimal digits.
func (ad *Admission) ID() string { return ad.id.String() }

// SessionID returns the id of the session that the call belongs to, as 32
// hexadecimal digits; empty when nobody was verified.
func (ad *Admission) SessionID() string {
	if ad.session == (sessions.ID{}) {
		return ""
	}
	return ad.session.String()
}

// Decision returns the decision. The caller MUST NOT change it.
func (ad *Admission) Decision() *writv1.Decision { return ad.result.Decision }

// Allowed says whether the call may be carried out.
func (ad *Admission) Allowed() bool {
	return ad.result.Decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW
}

// Refusal returns why the call may not be carried out, and nil for an ALLOW.
func (ad *Admission) Refusal() *reasons.Error { return ad.refusal }

// Tool returns the tool; nil when it is not known.
func (ad *Admission) Tool() *tools.Tool { return ad.result.Tool }

// Message returns the typed request; nil when the call could not be typed.
func (ad *Admission) Message() protoreflect.Message { return ad.result.Message }

// Arguments returns the typed request in canonical JSON, sensitive fields
// included: what is carried out, and nothing to be logged.
func (ad *Admission) Arguments() []byte { return ad.result.Canonical }

// ApprovalID returns the id under which a human may approve the call; empty
// unless the verdict is NEEDS_APPROVAL.
func (ad *Admission) ApprovalID() string {
	if ad.approvalID == (approvals.ID{}) {
		return ""
	}
	return ad.approvalID.String()
}

// EarlierID returns the id of the decision that holds the idempotency key; empty
// when none does.
func (ad *Admission) EarlierID() string {
	if ad.earlier == nil {
		return ""
	}
	return ad.earlier.ID.String()
}

// EarlierOutcome returns the recorded outcome of the call that holds the
// idempotency key, when this one repeats it and it has ended with a result that
// was kept.
func (ad *Admission) EarlierOutcome() (*writv1.OutcomeRecord, bool) {
	if ad.earlier == nil || ad.refusal == nil ||
		ad.refusal.Reason != writv1.Reason_REASON_ADMISSION_ALREADY_RELEASED {
		return nil, false
	}
	outcome := ad.earlier.Outcome
	return outcome, outcome != nil
}

// RecordIndex returns the position of the decision's record in the ledger.
func (ad *Admission) RecordIndex() uint64 { return ad.position.Index }

// Token returns the decision token that the request sent on carries; empty when
// the route asks for none.
func (ad *Admission) Token() string { return ad.token }

// Release says that the call is let through. It is let through at most once.
func (ad *Admission) Release() error {
	if !ad.Allowed() {
		return ErrNotAllowed
	}
	if !ad.released.CompareAndSwap(false, true) {
		return ErrReleased
	}
	return nil
}

// drop finishes an admission that nobody finishes. One that was not released by
// now is not released any more.
func (ad *Admission) drop() error {
	state := writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED
	reason := writv1.Reason_REASON_EXECUTION_CANCELLED
	if !ad.released.CompareAndSwap(false, true) {
		state = writv1.OutcomeState_OUTCOME_STATE_UNKNOWN
		reason = writv1.Reason_REASON_ADMISSION_OUTCOME_UNKNOWN
	}
	return ad.Finish(Outcome{State: state, Reason: reason, Message: "nobody reported how the call ended"})
}
