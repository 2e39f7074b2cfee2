// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"strings"

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
	apply := folds[record.GetKind()]
	if apply == nil {
		return nil
	}
	if err := apply(s, record); err != nil {
		return fmt.Errorf("fold %s record %d: %w", kindText(record.GetKind()), record.GetIndex(), err)
	}
	return nil
}

// folds are what the kinds of records do to the state. A kind that is not there does
// nothing.
var folds = map[writv1.RecordKind]func(*State, *writv1.Record) error{
	writv1.RecordKind_RECORD_KIND_START:       folding((*State).started),
	writv1.RecordKind_RECORD_KIND_DECISION:    (*State).foldDecision,
	writv1.RecordKind_RECORD_KIND_OUTCOME:     (*State).foldOutcome,
	writv1.RecordKind_RECORD_KIND_SESSION:     folding(locked((*State).session)),
	writv1.RecordKind_RECORD_KIND_OBSERVATION: folding(locked(func(s *State, r *writv1.ObservationRecord) { s.sessions.Observe(r) })),
	writv1.RecordKind_RECORD_KIND_WORKFLOW:    folding(locked(func(s *State, r *writv1.WorkflowRecord) { s.workflows.Apply(r) })),
	writv1.RecordKind_RECORD_KIND_APPROVAL:    folding((*State).vote),
	writv1.RecordKind_RECORD_KIND_ALERT:       folding((*State).alert),
	writv1.RecordKind_RECORD_KIND_STOP:        foldStop,
	writv1.RecordKind_RECORD_KIND_LEASE:       folding((*State).lease),
	writv1.RecordKind_RECORD_KIND_END:         func(s *State, _ *writv1.Record) error { s.closed(); return nil },
}

// body is a message that a record's body can be.
type body[T any] interface {
	*T
	proto.Message
}

// folding reads the body of a record and applies it.
func folding[T any, B body[T]](apply func(*State, B)) func(*State, *writv1.Record) error {
	return func(s *State, record *writv1.Record) error {
		read := B(new(T))
		if err := proto.Unmarshal(record.GetBody(), read); err != nil {
			return err
		}
		apply(s, read)
		return nil
	}
}

// locked applies with the state's lock held.
func locked[B any](apply func(*State, B)) func(*State, B) {
	return func(s *State, read B) {
		s.mu.Lock()
		defer s.mu.Unlock()
		apply(s, read)
	}
}

func kindText(kind writv1.RecordKind) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), "RECORD_KIND_"))
}

func (s *State) foldOutcome(record *writv1.Record) error {
	return folding(locked(func(s *State, outcome *writv1.OutcomeRecord) {
		s.finish(admissions.ID(record.GetDecisionId()), outcome)
	}))(s, record)
}

func foldStop(s *State, record *writv1.Record) error {
	var failed error
	err := folding(func(s *State, order *writv1.StopOrder) { failed = s.stop(order) })(s, record)
	return errors.Join(err, failed)
}

func (s *State) foldDecision(record *writv1.Record) error {
	text, err := s.lean.body(record.GetBody())
	if err != nil {
		return err
	}
	body := &writv1.DecisionRecord{}
	if err := proto.Unmarshal(text, body); err != nil {
		return err
	}
	s.decidedAs(record, body)
	return nil
}

// decidedAs applies a recorded decision.
func (s *State) decidedAs(record *writv1.Record, body *writv1.DecisionRecord) {
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
