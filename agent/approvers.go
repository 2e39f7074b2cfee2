// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
)

// Approver is somebody who may approve calls of a tenant.
type Approver struct {
	// User is who it is, as principals are named: a requester of that name cannot
	// approve its own call.
	User string
	// Tenant is whose calls; empty is those without a tenant.
	Tenant string
	// AllTenants lets an operator stop the calls of every tenant. It approves nothing.
	AllTenants bool
	// Roles are held against the rule's.
	Roles []string
	// PublicKey is the key that the approver's votes are signed with.
	PublicKey ed25519.PublicKey
	// SealKey is the key that sensitive arguments are sealed to, as
	// [approvals.ParseSealKey] reads it; nil seals nothing.
	SealKey []byte
}

// may says whether the approver may vote on a subject.
func (a *Approver) may(subject *writv1.ApprovalSubject) bool {
	return a.Tenant == subject.GetPrincipal().GetTenant() && !a.AllTenants &&
		slices.ContainsFunc(a.Roles, func(role string) bool { return slices.Contains(subject.GetRequest().GetRoles(), role) })
}

// credentialAge is how long a credential counts, before and after its time.
const credentialAge = time.Minute

// Viewer is who looks at approvals: an approver, or whoever asks for calls.
type Viewer struct {
	approver []Approver
	owner    *sessions.Owner
}

// OwnView sees the approvals that a principal asked for, in whichever session.
func OwnView(who *writv1.Principal) Viewer {
	owner := sessions.OwnerOf(who)
	return Viewer{owner: &owner}
}

// ApproverView sees what an approver may vote on. The credential must be of a minute
// and signed with a registered key.
func (a *Agent) ApproverView(c *writv1.ApproverCredential) (Viewer, *reasons.Error) {
	age := a.options.Clock().Sub(c.GetTime().AsTime()).Abs()
	view := Viewer{approver: a.approversOf(c.GetUser(), c.GetPublicKey())}
	if len(view.approver) == 0 || age > credentialAge || !approvals.VerifyCredential(c) {
		return Viewer{}, reasons.New(writv1.Reason_REASON_APPROVAL_NOT_APPROVER, "",
			"the credential is not a registered approver's, or older than a minute")
	}
	return view, nil
}

// approversOf returns the registrations of a user with a key.
func (a *Agent) approversOf(user string, key []byte) []Approver {
	var found []Approver
	for _, approver := range a.options.Approvers {
		if approver.User == user && approver.PublicKey.Equal(ed25519.PublicKey(key)) {
			found = append(found, approver)
		}
	}
	return found
}

func (v Viewer) sees(subject *writv1.ApprovalSubject) bool {
	if v.owner != nil {
		return *v.owner == sessions.OwnerOf(subject.GetPrincipal())
	}
	return slices.ContainsFunc(v.approver, func(a Approver) bool { return a.may(subject) })
}

// of returns an approval as the viewer is told of it: who asks for a call is not told
// how risky it was found, nor given what is sealed to others.
func (v Viewer) of(approval *writv1.Approval) *writv1.Approval {
	if v.owner != nil {
		approval.Subject = proto.CloneOf(approval.GetSubject())
		approval.Subject.Risk, approval.Subject.Request.Sealed = nil, nil
	}
	return approval
}

// Approvals returns the approvals that a viewer sees, oldest first, those that have
// ended within the last day among them. The caller MUST NOT change them.
func (a *Agent) Approvals(v Viewer) []*writv1.Approval {
	now := a.options.Clock()
	var out []*writv1.Approval
	held := a.state.heldApprovals()
	for i := range held {
		if v.sees(held[i].Subject) {
			out = append(out, v.of(viewOf(&held[i], held[:i], now)))
		}
	}
	return out
}

// heldApprovals returns the approvals as they are now. Their subjects do not change.
func (s *State) heldApprovals() []approvals.Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []approvals.Held
	for _, h := range s.approvals.Held() {
		held := *h
		held.Votes = slices.Clone(h.Votes)
		out = append(out, held)
	}
	return out
}

// Approval returns the approval of that id if the viewer sees it.
func (a *Agent) Approval(v Viewer, id string) (*writv1.Approval, *reasons.Error) {
	for _, approval := range a.Approvals(v) {
		if approval.GetSubject().GetApprovalId() == id {
			return approval, nil
		}
	}
	return nil, reasons.New(writv1.Reason_REASON_APPROVAL_UNKNOWN, "approval_id", "no such approval is held that the caller may see")
}

// viewOf returns an approval as it is told, with the last one before it that is like it.
func viewOf(h *approvals.Held, before []approvals.Held, now time.Time) *writv1.Approval {
	out := &writv1.Approval{Subject: h.Subject, State: writv1.ApprovalState(h.State(now)), Votes: h.Votes}
	for i := range slices.Backward(before) {
		earlier := &before[i]
		if !earlier.Used || earlier.Subject.GetTool() != h.Subject.GetTool() ||
			sessions.OwnerOf(earlier.Subject.GetPrincipal()) != sessions.OwnerOf(h.Subject.GetPrincipal()) {
			continue
		}
		out.Similar = &writv1.SimilarApproval{
			ApprovalId: earlier.Subject.GetApprovalId(), Time: earlier.Subject.GetTime(),
			Changed: changed(earlier.Subject.GetArguments(), h.Subject.GetArguments()),
		}
		break
	}
	return out
}

// changed returns the paths of values that are not the same in two texts of canonical
// JSON, sorted. Sensitive values stand in neither.
func changed(before, after []byte) []string {
	old, now := make(map[string]string), make(map[string]string)
	for text, into := range map[*[]byte]map[string]string{&before: old, &after: now} {
		leaves, _, _, err := atoms.Leaves(*text)
		if err != nil {
			return nil
		}
		for i := range leaves {
			into[leaves[i].Path] = leaves[i].JSON()
		}
	}
	var paths []string
	for path, value := range now {
		if was, ok := old[path]; !ok || was != value {
			paths = append(paths, path)
		}
	}
	for path := range old {
		if _, ok := now[path]; !ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Vote takes an approver's vote: it verifies who signed what, records it, and returns
// the approval as it is then. Votes count in the order of their records.
func (a *Agent) Vote(ctx context.Context, vote *writv1.ApprovalVote) (*writv1.Approval, *reasons.Error) {
	vote = proto.CloneOf(vote)
	vote.Time = timestamppb.New(a.options.Clock())
	view := Viewer{approver: a.approversOf(vote.GetApprover(), vote.GetPublicKey())}
	if len(view.approver) == 0 || !approvals.VerifyVote(vote) {
		return nil, reasons.New(writv1.Reason_REASON_APPROVAL_NOT_APPROVER, "", "the vote is not signed by a registered approver")
	}
	approval, refusal := a.Approval(view, vote.GetApprovalId())
	if refusal != nil {
		return nil, refusal
	}
	binding, err := approvals.Binding(approval.GetSubject())
	if err != nil || string(binding[:]) != string(vote.GetBinding()) {
		return nil, reasons.New(writv1.Reason_REASON_APPROVAL_NOT_APPROVER, "vote.binding",
			"the vote is on something other than this approval; look at it again")
	}
	a.state.mu.Lock()
	err = a.state.approvals.Votable(vote, vote.GetTime().AsTime())
	a.state.mu.Unlock()
	if err != nil {
		return nil, unvotable(err)
	}
	_, err = a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_APPROVAL, Tenant: approval.GetSubject().GetPrincipal().GetTenant(),
		DecisionID: approval.GetSubject().GetDecisionId(), BundleDigest: a.bundleDigest(), Body: vote,
		Written: func(err error) {
			if err == nil {
				a.state.vote(vote)
				a.approvalsChanged()
			}
		},
	}, a.options.Floor)
	if err != nil {
		return nil, ledgerRefusal(err)
	}
	return a.Approval(view, vote.GetApprovalId())
}

// unvotable maps why a vote is not taken to a reason.
func unvotable(err error) *reasons.Error {
	switch {
	case errors.Is(err, approvals.ErrUnknown):
		return reasons.Wrap(err, writv1.Reason_REASON_APPROVAL_UNKNOWN, "approval_id", "no such approval is held")
	case errors.Is(err, approvals.ErrSelf):
		return reasons.Wrap(err, writv1.Reason_REASON_APPROVAL_NOT_APPROVER, "", "who asks for a call cannot approve it")
	case errors.Is(err, approvals.ErrRepeated):
		return reasons.Wrap(err, writv1.Reason_REASON_APPROVAL_DECIDED, "", "the approver has said so before")
	case errors.Is(err, approvals.ErrExpired):
		return reasons.Wrap(err, writv1.Reason_REASON_APPROVAL_DECIDED, "", "the approval has expired; the call must ask anew")
	default:
		return reasons.Wrap(err, writv1.Reason_REASON_APPROVAL_DECIDED, "", "the approval is decided or used")
	}
}

// ApprovalsChange returns a channel that is closed when approvals have changed since:
// one was asked for, voted on or used. That one expires does not close it.
func (a *Agent) ApprovalsChange() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (a *Agent) approvalsChanged() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}
