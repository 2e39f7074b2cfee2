// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// keptResult is the largest result that is kept in an outcome's record
// (OutcomeRecord.result in record.proto).
const keptResult = 32 << 10

// Finish records how the call ended, and waits until that is durable: the last
// byte of an executed or buffered call's answer MUST NOT leave before. It
// finishes an ALLOW exactly once; an admission that is not allowed has nothing
// to finish.
func (ad *Admission) Finish(outcome Outcome) error {
	record, err := ad.end(outcome)
	if err != nil || record == nil {
		return err
	}
	return ad.agent.recordOutcome(context.Background(), ad.claim, record, ad.sensitiveResult()...)
}

// FinishLater records how the call ended without waiting: for what was let
// through unobserved, or whose end follows the answer.
func (ad *Admission) FinishLater(outcome Outcome) error {
	record, err := ad.end(outcome)
	if err != nil || record == nil {
		return err
	}
	entry := ad.entry(writv1.RecordKind_RECORD_KIND_OUTCOME, record, ad.sensitiveResult())
	if err := ad.agent.options.Ledger.AppendAsync(context.Background(), entry); err != nil {
		return fmt.Errorf("record the outcome: %w", err)
	}
	ad.agent.settle(ad.id, record)
	return nil
}

// end makes the record of the outcome, once.
func (ad *Admission) end(outcome Outcome) (*writv1.OutcomeRecord, error) {
	if !ad.Allowed() {
		return nil, nil
	}
	ad.mu.Lock()
	defer ad.mu.Unlock()
	if ad.finished {
		return nil, ErrFinished
	}
	ad.finished = true
	record := &writv1.OutcomeRecord{
		State:         outcome.State,
		Reason:        outcome.Reason,
		Message:       outcome.Message,
		RequestBytes:  uint64(max(0, outcome.RequestBytes)),
		ResponseBytes: uint64(max(0, outcome.ResponseBytes)),
		HttpStatus:    uint32(max(0, outcome.HTTPStatus)),
		Redactions:    ad.answer.paths,
	}
	if outcome.Duration > 0 {
		record.Duration = durationpb.New(outcome.Duration)
	}
	if outcome.State == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		record.GivenBack = ad.claim.Reserved
	}
	if ad.answer.whole != nil {
		sum := digest(ad.tenantKey, []byte("writ/result/v1"), ad.answer.whole)
		record.ResultDigest = sum[:]
		if len(ad.answer.redacted) <= keptResult {
			record.Result = ad.answer.redacted
		}
	}
	return record, nil
}

func (ad *Admission) sensitiveResult() []ledger.Sensitive {
	ad.mu.Lock()
	defer ad.mu.Unlock()
	return ad.answer.removed
}

// recordOutcome records an outcome durably and settles it.
func (a *Agent) recordOutcome(ctx context.Context, claim admissions.Claim, outcome *writv1.OutcomeRecord, removed ...ledger.Sensitive) error {
	_, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind:         writv1.RecordKind_RECORD_KIND_OUTCOME,
		Tenant:       claim.Tenant,
		DecisionID:   claim.ID[:],
		BundleDigest: a.bundleDigest(),
		Body:         outcome,
		Sensitive:    removed,
	}, a.options.Floor)
	if err != nil {
		return fmt.Errorf("record the outcome: %w", err)
	}
	a.settle(claim.ID, outcome)
	return nil
}

// settle applies a recorded outcome to the state.
func (a *Agent) settle(id admissions.ID, outcome *writv1.OutcomeRecord) {
	a.state.mu.Lock()
	a.state.finish(id, outcome)
	a.state.mu.Unlock()
	a.mu.Lock()
	delete(a.open, id)
	a.mu.Unlock()
}

// elapsed is the time since start by the agent's clock.
func (a *Agent) elapsed(start time.Time) time.Duration {
	return a.options.Clock().Sub(start)
}
