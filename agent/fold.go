// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
)

// Fold applies one record of the ledger. Records MUST come in the order of the
// ledger, without gaps; those that the state's snapshot covers are passed over. A
// record that cannot be read is an error: the state would be wrong. That its bytes are
// canonical is not looked at again: it was when the record was made, and they are under
// a head that the ledger's key signed.
func (s *State) Fold(record *writv1.Record) error {
	switch index := record.GetIndex(); {
	case index < s.next:
		return nil
	case index > s.next:
		return fmt.Errorf("fold record %d: the records from %d on are missing, and no snapshot covers them", index, s.next)
	}
	s.next++
	switch record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		var body writv1.DecisionRecord
		text, err := s.lean.body(record.GetBody())
		if err == nil {
			err = proto.Unmarshal(text, &body)
		}
		if err != nil {
			return fmt.Errorf("fold decision record %d: %w", record.GetIndex(), err)
		}
		s.foldDecision(record, &body)
		return nil
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		var body writv1.OutcomeRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold outcome record %d: %w", record.GetIndex(), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finish(admissions.ID(record.GetDecisionId()), &body)
		return nil
	case writv1.RecordKind_RECORD_KIND_SESSION:
		var body writv1.SessionRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold session record %d: %w", record.GetIndex(), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.session(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_ALERT:
		var body writv1.AlertRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold alert record %d: %w", record.GetIndex(), err)
		}
		s.alert(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_OBSERVATION:
		var body writv1.ObservationRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold observation record %d: %w", record.GetIndex(), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sessions.Observe(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_WORKFLOW:
		var body writv1.WorkflowRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold workflow record %d: %w", record.GetIndex(), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.workflows.Apply(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_APPROVAL:
		var body writv1.ApprovalVote
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold approval record %d: %w", record.GetIndex(), err)
		}
		s.vote(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_STOP:
		var body writv1.StopOrder
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold stop record %d: %w", record.GetIndex(), err)
		}
		return s.stop(&body)
	case writv1.RecordKind_RECORD_KIND_LEASE:
		var body writv1.LeaseRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold lease record %d: %w", record.GetIndex(), err)
		}
		s.lease(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_START:
		var body writv1.StartRecord
		if err := proto.Unmarshal(record.GetBody(), &body); err != nil {
			return fmt.Errorf("fold start record %d: %w", record.GetIndex(), err)
		}
		s.started(&body)
		return nil
	case writv1.RecordKind_RECORD_KIND_END:
		s.closed()
		return nil
	default:
		return nil
	}
}

func (s *State) foldDecision(record *writv1.Record, body *writv1.DecisionRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(body.GetSession()) == len(sessions.ID{}) {
		s.sessions.Decided(decidedOf(record, body))
	}
	s.ask(subjectOf(record.GetDecisionId(), body))
	if body.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		return
	}
	if id, ok := consumedBy(body.GetDecision()); ok {
		s.approvals.Consume(id)
	}
	claim := admissions.Claim{
		ID:     admissions.ID(record.GetDecisionId()),
		Tenant: record.GetTenant(),
		Time:   body.GetFacts().GetTime().AsTime(),
	}
	copy(claim.Key[:], body.GetIdempotencyDigest())
	copy(claim.Identity[:], body.GetIdentity())
	claim.Reserved = reserves(body.GetDecision())
	s.take(claim)
	s.drift.Call(claim.Time, body.GetTool())
	if len(body.GetSession()) == len(workflows.Session{}) {
		s.workflows.Decided(workflows.DecidedOf(workflows.Session(body.GetSession()), claim.ID,
			body.GetTool(), body.GetToolEffect(), body.GetFacts(), body.GetDecision()))
	}
}
