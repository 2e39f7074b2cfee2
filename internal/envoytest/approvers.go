// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"crypto/rand"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

// approvers returns who may approve calls: bob, of the tenant acme.
func (s *Stack) approvers() []agent.Approver {
	s.t.Helper()
	text, _, err := note.GenerateKey(rand.Reader, "bob")
	if err != nil {
		s.t.Fatal(err)
	}
	if s.approver, err = approvals.ParseKey(text); err != nil {
		s.t.Fatal(err)
	}
	return []agent.Approver{{User: "bob", Tenant: "acme", Roles: []string{"approver"}, PublicKey: s.approver.PublicKey()}}
}

// Approve has bob approve everything that waits for him, and returns how much that was.
func (s *Stack) Approve() int {
	s.t.Helper()
	credential, err := s.approver.Credential(&writv1.ApproverCredential{Time: timestamppb.New(time.Now())})
	if err != nil {
		s.t.Fatal(err)
	}
	view, refusal := s.Agent.ApproverView(credential)
	if refusal != nil {
		s.t.Fatal(refusal)
	}
	approved := 0
	for _, approval := range s.Agent.Approvals(view) {
		if approval.GetState() != writv1.ApprovalState_APPROVAL_STATE_PENDING {
			continue
		}
		vote, err := s.approver.Vote(approval.GetSubject(), writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, refusal := s.Agent.Vote(s.t.Context(), vote); refusal != nil {
			s.t.Fatal(refusal)
		}
		approved++
	}
	return approved
}
