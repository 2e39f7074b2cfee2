// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// keptResult is the largest result that is kept in an outcome's record
// (OutcomeRecord.result in record.proto).
const keptResult = 32 << 10

// keptRedactions is how many paths of a response that were redacted are kept
// (OutcomeRecord.redactions in record.proto).
const keptRedactions = 256

// Finish records how the call ended, and waits until that is durable: the last
// byte of an executed or buffered call's answer MUST NOT leave before. It
// finishes an ALLOW exactly once; an admission that is not allowed has nothing
// to finish. On an error the outcome is not durable yet; the agent goes on trying.
func (ad *Admission) Finish(outcome Outcome) error {
	record, err := ad.end(outcome)
	if err != nil || record == nil {
		return err
	}
	return ad.agent.recordOutcome(context.Background(), ad.ending(record))
}

// FinishLater records how the call ended without waiting: for what was let
// through unobserved, or whose end follows the answer. What cannot be written is
// tried again.
func (ad *Admission) FinishLater(outcome Outcome) error {
	record, err := ad.end(outcome)
	if err != nil || record == nil {
		return err
	}
	return ad.agent.recordLater(ad.ending(record))
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
	now := ad.agent.options.Clock()
	if ad.agent.options.Tracer != nil {
		ad.ended.Store(&now)
	}
	record := &writv1.OutcomeRecord{
		State:         outcome.State,
		Reason:        outcome.Reason,
		Message:       outcome.Message,
		RequestBytes:  uint64(max(0, outcome.RequestBytes)),
		ResponseBytes: uint64(max(0, outcome.ResponseBytes)),
		HttpStatus:    uint32(max(0, outcome.HTTPStatus)),
		Redactions:    ad.answer.paths[:min(len(ad.answer.paths), keptRedactions)],
	}
	if outcome.Duration > 0 {
		record.Duration = durationpb.New(outcome.Duration)
	}
	settled := ad.bundle.Settle(&ad.call, ad.claim.Reserved, ad.facts, policy.Bill{
		State: outcome.State, Duration: outcome.Duration, Spent: ad.answer.spent, Time: now, Window: ad.agent.overdrawn,
	})
	record.GivenBack, record.Overrun, record.Spent = settled.GivenBack, settled.Overrun, settled.Spent
	ad.agent.overrun(ad, settled.Overrun)
	if ad.answer.whole != nil {
		sum := digest(ad.tenantKey, []byte("writ/result/v1"), ad.answer.whole)
		record.ResultDigest = sum[:]
		if len(ad.answer.redacted) <= keptResult {
			record.Result = ad.answer.redacted
		}
		record.Kept = ad.bundle.KeptResult(ad.result.Tool, ad.answer.redacted)
	}
	return record, nil
}

// ending returns the outcome as it goes into the ledger, with what of the result is kept
// out of it, sealed where the tool asks for that.
func (ad *Admission) ending(record *writv1.OutcomeRecord) *ending {
	removed := ad.sensitiveResult()
	sealed, committed, err := ad.keep(removed, ad.agent.options.Clock())
	if err != nil {
		// What happened is recorded all the same; the ledger commits to what is kept out.
		ad.agent.options.Log.Error("the originals of a result were not sealed", "decision_id", ad.ID(), "error", err)
		sealed, committed = nil, removed
	}
	e := newEnding(ad.claim, record, committed, ad.observation(record))
	e.sealed = sealed
	return e
}

func (ad *Admission) sensitiveResult() []ledger.Sensitive {
	ad.mu.Lock()
	defer ad.mu.Unlock()
	return ad.answer.removed
}

// elapsed is the time since start by the agent's clock.
func (a *Agent) elapsed(start time.Time) time.Duration {
	return a.options.Clock().Sub(start)
}
