// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// ending is an outcome on its way into the ledger. Until it is written its
// admission is open, in the state as in the fold of the records: repeats are told
// that it is in progress, and what it would give back stays taken.
type ending struct {
	claim   admissions.Claim
	record  *writv1.OutcomeRecord
	removed []ledger.Sensitive
	// sealed holds what was removed, where the tool asks to have it kept.
	sealed *writv1.SealedOriginals
	// observed is what the session came to know by the call, until it is written: the
	// committer clears it, at any time after it was queued. It is shared with the bare
	// ending, so that what was written once is not written again by that.
	observed *atomic.Pointer[writv1.ObservationRecord]
}

func newEnding(claim admissions.Claim, record *writv1.OutcomeRecord, removed []ledger.Sensitive, observed *writv1.ObservationRecord) *ending {
	e := &ending{claim: claim, record: record, removed: removed, observed: &atomic.Pointer[writv1.ObservationRecord]{}}
	e.observed.Store(observed)
	return e
}

// bare returns the ending without what may be too large for a record: the keyed
// digest of the result stands for it. What else an outcome holds is bounded, and
// smaller than the decision that came before it.
func (e *ending) bare() *ending {
	record := proto.CloneOf(e.record)
	record.Result, record.Redactions = nil, nil
	return &ending{claim: e.claim, record: record, observed: e.observed}
}

// keptWhole is how many endings that cannot be written are kept with their results.
const keptWhole = 1000

func (a *Agent) outcomeEntry(e *ending) ledger.Entry {
	return ledger.Entry{
		Kind:         writv1.RecordKind_RECORD_KIND_OUTCOME,
		Tenant:       e.claim.Tenant,
		DecisionID:   e.claim.ID[:],
		BundleDigest: a.bundleDigest(),
		Body:         e.record,
		Sensitive:    e.removed,
		Sealed:       e.sealed,
	}
}

// recordOutcome records an outcome durably. One that is too large is recorded
// without its result. On an error it is not as durable as asked, and if it is not
// even written it is put off.
func (a *Agent) recordOutcome(ctx context.Context, e *ending) error {
	err := a.tryOutcome(ctx, e)
	if errors.Is(err, ledger.ErrTooLarge) {
		e = e.bare()
		err = a.tryOutcome(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("record the outcome: %w", err)
	}
	return nil
}

// tryOutcome appends an outcome once; what was not written is put off, unless it
// never can be.
func (a *Agent) tryOutcome(ctx context.Context, e *ending) error {
	if err := a.queueObservation(e); err != nil {
		a.putOff(e, err)
		return err
	}
	entry := a.outcomeEntry(e)
	// Settled by the committer: the state changes in the order of the records, and
	// before anybody hears that this one stands.
	entry.Written = func(err error) {
		if err == nil {
			a.settle(e)
		}
	}
	position, err := a.options.Ledger.Append(context.WithoutCancel(ctx), entry, a.options.Floor)
	if err != nil && !position.Recorded && !errors.Is(err, ledger.ErrTooLarge) {
		a.putOff(e, err)
	}
	return err
}

// recordLater records an outcome that nobody waits for.
func (a *Agent) recordLater(e *ending) error {
	err := a.queueOutcome(e)
	if errors.Is(err, ledger.ErrTooLarge) {
		e = e.bare()
		err = a.queueOutcome(e)
	}
	if err != nil {
		a.putOff(e, err)
		return fmt.Errorf("record the outcome: %w", err)
	}
	return nil
}

// queueObservation appends what the session came to know, before the outcome: who
// hears of the outcome may rely on the session knowing. One that a retry writes a
// second time says nothing new.
func (a *Agent) queueObservation(e *ending) error {
	observed := e.observed.Load()
	if observed == nil {
		return nil
	}
	err := a.options.Ledger.AppendAsync(context.Background(), ledger.Entry{
		Kind:         writv1.RecordKind_RECORD_KIND_OBSERVATION,
		Tenant:       e.claim.Tenant,
		DecisionID:   e.claim.ID[:],
		BundleDigest: a.bundleDigest(),
		Body:         observed,
		Written: func(err error) {
			if err == nil {
				e.observed.Store(nil)
				a.state.observe(observed)
			}
		},
	})
	if errors.Is(err, ledger.ErrTooLarge) {
		// It is bounded to fit; that it does not is a fault, and denies nothing.
		a.options.Log.Error("what a session came to know was too large to be recorded", "decision_id", e.claim.ID.String())
		e.observed.Store(nil)
		return nil
	}
	return err
}

func (a *Agent) queueOutcome(e *ending) error {
	if err := a.queueObservation(e); err != nil {
		return err
	}
	entry := a.outcomeEntry(e)
	entry.Written = func(err error) { a.written(e, err) }
	return a.options.Ledger.AppendAsync(context.Background(), entry)
}

// written hears from the ledger what became of an ending that nobody waits for.
func (a *Agent) written(e *ending, err error) {
	if err != nil {
		a.putOff(e, err)
		return
	}
	a.settle(e)
}

// putOff keeps an ending that could not be written, for [Agent.Tend] to try again.
// There are never more than admissions are open.
func (a *Agent) putOff(e *ending, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if errors.Is(why, ledger.ErrTooLarge) || len(a.unwritten) >= keptWhole {
		e = e.bare()
	}
	a.unwritten = append(a.unwritten, e)
}

// catchUp writes what was put off, until the ledger refuses again.
func (a *Agent) catchUp(ctx context.Context) {
	a.mu.Lock()
	late := a.unwritten
	a.unwritten = nil
	a.mu.Unlock()
	for i, e := range late {
		if err := a.recordOutcome(ctx, e); err != nil {
			a.options.Log.ErrorContext(ctx, "outcomes are still not recorded", "outcomes", len(late)-i, "error", err)
			a.mu.Lock()
			a.unwritten = append(a.unwritten, late[i+1:]...)
			a.mu.Unlock()
			return
		}
	}
}

// settle applies an outcome that is written to the state.
func (a *Agent) settle(e *ending) {
	a.state.mu.Lock()
	a.state.finish(e.claim.ID, e.record)
	a.state.mu.Unlock()
	a.showEnd(a.takeOpen(e.claim.ID), e.record)
}
