// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/tools/schemas"
)

// approve looks for the approval of a call that needs one, and decides again with it.
func (a *Agent) approve(ad *Admission) *reasons.Error {
	if ad.result.Approval == nil {
		ad.asks = nil
		return nil
	}
	a.state.mu.Lock()
	refusal := a.findApproval(ad)
	a.state.mu.Unlock()
	return a.reconsider(ad, refusal)
}

// approveLocked is approve for a caller that holds the state's lock.
func (a *Agent) approveLocked(ad *Admission) *reasons.Error {
	if ad.result.Approval == nil {
		ad.asks = nil
		return nil
	}
	return a.reconsider(ad, a.findApproval(ad))
}

// findApproval puts the approval that is held for the call among the facts, or names
// a new one. The caller holds the state's lock.
func (a *Agent) findApproval(ad *Admission) *reasons.Error {
	ad.asks = proto.CloneOf(ad.result.Approval)
	key := approvalKey(ad.tenantKey, ad.approvable(), ad.session, ad.asks.GetBasis())
	ad.asks.Key = key[:]
	// A call that is more than was approved asks anew.
	held, ok := a.state.approvals.Current(key, ad.time)
	if ok && policy.Within(ad.asks.GetAtMost(), held.Subject.GetRequest().GetAtMost()) {
		ad.approvalID, ad.facts.Approval = held.ID, held.Fact()
		ad.asks.ExpireTime = held.Subject.GetRequest().GetExpireTime()
		return nil
	}
	ad.approvalID = approvalID(ad.tenantKey, key, a.state.approvals.Last(key))
	if err := a.state.approvals.Room(ad.request.Principal, ad.time); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_OVERLOADED, "", "too many calls wait for an approval; try again later")
	}
	return nil
}

// approvable returns the identity that an approval is bound to: the call's own, or, where
// some of its fields may be lower, that of the call without them.
func (ad *Admission) approvable() [32]byte {
	if ad.result.Unbounded == nil {
		return ad.identity
	}
	return boundedIdentity(ad.tenantKey, ad.result.Tool, ad.result.Unbounded, ad.request.Principal)
}

// reconsider decides again where there is an approval to weigh.
func (a *Agent) reconsider(ad *Admission, refusal *reasons.Error) *reasons.Error {
	if refusal == nil && ad.facts.GetApproval() != nil {
		refusal = a.judge(ad)
	}
	if ad.result.Decision.GetVerdict() != writv1.Verdict_VERDICT_NEEDS_APPROVAL {
		ad.approvalID, ad.asks = approvals.ID{}, nil
	}
	return refusal
}

// asked makes the pending approval of a recorded decision. The ledger calls it in the
// order of its records.
func (a *Agent) asked(ad *Admission, body *writv1.DecisionRecord) {
	subject := subjectOf(ad.id[:], body)
	a.state.mu.Lock()
	asked := a.state.ask(subject)
	a.state.mu.Unlock()
	a.approvalsChanged()
	if asked && a.options.Asked != nil {
		a.options.Asked(subject)
	}
}

// seal seals the sensitive arguments of a call that asks for an approval, to those who
// may approve it. A call that asks again for what waits already seals nothing.
func (a *Agent) seal(ad *Admission, removed []schemas.Removed) error {
	if ad.asks == nil || ad.facts.GetApproval() != nil || len(removed) == 0 {
		return nil
	}
	subject := &writv1.ApprovalSubject{Principal: ad.request.Principal, Request: ad.asks}
	var to [][]byte
	for i := range a.options.Approvers {
		approver := &a.options.Approvers[i]
		own := approver.User == ad.request.Principal.GetUser() || approver.User == ad.request.Principal.GetWorkload()
		if approver.SealKey != nil && !own && approver.may(subject) {
			to = append(to, approver.SealKey)
		}
	}
	arguments := make([]*writv1.SealedArgument, len(removed))
	for i := range removed {
		arguments[i] = &writv1.SealedArgument{Path: removed[i].Path, Value: removed[i].Value}
	}
	var err error
	ad.asks.Sealed, err = approvals.Seal(ad.ApprovalID(), arguments, to)
	return err
}

// subjectOf returns what a decision's record asks a human for; nil where it asks nothing.
func subjectOf(id []byte, body *writv1.DecisionRecord) *writv1.ApprovalSubject {
	if body.GetApproval() == nil || body.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_NEEDS_APPROVAL {
		return nil
	}
	return &writv1.ApprovalSubject{
		ApprovalId: body.GetApprovalId(), Tool: body.GetTool(), SchemaDigest: body.GetSchemaDigest(),
		Identity: body.GetIdentity(), Arguments: body.GetArguments(), Principal: body.GetPrincipal(),
		Session: body.GetSession(), Request: body.GetApproval(), DecisionId: id, Time: body.GetFacts().GetTime(),
		Values: body.GetFacts().GetValues(), Checks: askingOf(body.GetDecision()), Effect: body.GetToolEffect(),
		Run: body.GetFacts().GetSession().GetRun(), Risk: body.GetDecision().GetRisk(),
	}
}

// askingOf returns the checks of a decision that ask for an approval.
func askingOf(decision *writv1.Decision) []*writv1.Check {
	var asking []*writv1.Check
	for _, check := range decision.GetChecks() {
		if check.GetReason() == writv1.Reason_REASON_APPROVAL_REQUIRED || check.GetReason() == writv1.Reason_REASON_CONDITION_PROVENANCE {
			asking = append(asking, check)
		}
	}
	return asking
}

// ask takes what a recorded decision asks for, and says whether it was not asked for
// before. The caller holds mu.
func (s *State) ask(subject *writv1.ApprovalSubject) bool {
	id, err := approvals.ParseID(subject.GetApprovalId())
	if subject == nil || err != nil {
		return false
	}
	held := approvals.Held{ID: id, Subject: subject}
	copy(held.Key[:], subject.GetRequest().GetKey())
	return s.approvals.Ask(held)
}

// vote applies a recorded vote.
func (s *State) vote(vote *writv1.ApprovalVote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.approvals.Vote(vote)
}

// unused says whether the approval that a decision rests on, if any, can still be
// used. The caller holds mu.
func (s *State) unused(ad *Admission) bool {
	id, ok := consumedBy(ad.result.Decision)
	return !ok || s.approvals.Usable(id, ad.time)
}

// consumedBy returns the approval that a decision uses up.
func consumedBy(decision *writv1.Decision) (approvals.ID, bool) {
	for _, effect := range decision.GetEffects() {
		if consume := effect.GetConsume(); consume != nil {
			id, err := approvals.ParseID(consume.GetId())
			return id, err == nil
		}
	}
	return approvals.ID{}, false
}
