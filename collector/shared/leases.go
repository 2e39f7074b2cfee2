// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"buf.build/go/protovalidate"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
)

// keptFor is how long slices of windows that have ended are kept: as long as a pool keeps
// them, lest a clock that was set wrong opens a window again.
const keptFor = 24 * time.Hour

// tidyEvery is how often windows that are past are looked for.
const tidyEvery = time.Minute

// LeaseStore keeps slices, and the ledgers that tell what was drawn. A *store.Store is
// one.
type LeaseStore interface {
	// PutShare keeps a slice in place of what it was, durably.
	PutShare(ctx context.Context, balance string, held *writv1.HeldShare) error
	// Shares returns the slices of windows that end after a time.
	Shares(ctx context.Context, after time.Time) ([]*writv1.HeldShare, error)
	// LedgerFrom calls f with each record of a ledger from an index on.
	LedgerFrom(ctx context.Context, origin string, from uint64, f func(*writv1.Record) error) error
}

// LeaseOptions configures [Leases].
type LeaseOptions struct {
	// Store keeps the slices. It MUST be set.
	Store LeaseStore
	// Clock tells the time. It MUST be set.
	Clock func() time.Time
	// Log hears of slices that have lapsed. It MUST be set.
	Log *slog.Logger
}

// Leases gives agents slices of shared budgets. It is safe for use by several goroutines.
type Leases struct {
	options LeaseOptions

	// mu guards what follows. It is held while a slice is stored: nothing is given from
	// what is not kept.
	mu   sync.Mutex
	pool *leases.Pool
	// tidied is when what is past was forgotten last.
	tidied time.Time
}

// NewLeases reads the slices that were kept.
func NewLeases(ctx context.Context, o LeaseOptions) (*Leases, error) {
	l := &Leases{options: o}
	return l, l.reopen(ctx)
}

// reopen reads what was kept. It is called with mu held, or before others know of l.
func (l *Leases) reopen(ctx context.Context) error {
	kept, err := l.options.Store.Shares(ctx, l.options.Clock().Add(-keptFor))
	if err != nil {
		return err
	}
	l.pool = leases.NewPool(leases.Skew)
	for _, held := range kept {
		l.pool.Restore(held)
	}
	return nil
}

// Ask answers what the agent of a ledger says of its slice. The answer, nil where there is
// none, is kept when it returns. The ask MUST be a record of that ledger that is stored.
func (l *Leases) Ask(ctx context.Context, origin string, ask *writv1.LeaseAsk) (*writv1.LeaseGrant, error) {
	if err := protovalidate.Validate(ask); err != nil {
		return nil, fmt.Errorf("an ask for a slice: %w", err)
	}
	if (ask.GetWindow() == nil) == (ask.GetCalendar() == nil) {
		return nil, errors.New("an ask for a slice has no window, or two")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	grant, err := l.ask(ctx, origin, ask)
	if err == nil {
		return grant, nil
	}
	// What was counted and not kept is counted no more: it was never sent.
	if again := l.reopen(ctx); again != nil {
		return nil, errors.Join(err, again)
	}
	return nil, err
}

func (l *Leases) ask(ctx context.Context, origin string, ask *writv1.LeaseAsk) (*writv1.LeaseGrant, error) {
	now := l.options.Clock()
	balance := leases.BalanceID(ask)
	if now.Sub(l.tidied).Abs() > tidyEvery {
		l.pool.Forget(now)
		l.tidied = now
	}
	for _, lapsed := range l.pool.Lapsed(now, ask) {
		drawn, err := l.drawn(ctx, lapsed)
		if err != nil {
			return nil, err
		}
		settled := l.pool.Settle(lapsed, drawn)
		if settled == nil {
			continue
		}
		if err := l.options.Store.PutShare(ctx, balance, settled); err != nil {
			return nil, err
		}
		l.options.Log.WarnContext(ctx, "an agent's slice of a budget has lapsed; what its records do not draw is there for others",
			"origin", lapsed.GetHolder(), "budget", ask.GetBudget(), "taken", settled.GetSettled())
	}
	held, err := l.pool.Ask(now, origin, ask)
	if err != nil || held == nil {
		return nil, err
	}
	if err := l.options.Store.PutShare(ctx, balance, held); err != nil {
		return nil, err
	}
	return held.GetGrant(), nil
}

// drawn adds up what the records of a holder drew on its slice since it asked for it.
// What a call gave back is not subtracted: it may have been, in what the ask says is taken.
func (l *Leases) drawn(ctx context.Context, lapsed *writv1.HeldShare) (int64, error) {
	var sum int64
	err := l.options.Store.LedgerFrom(ctx, lapsed.GetHolder(), lapsed.GetAsk().GetFromIndex(), func(record *writv1.Record) error {
		var reserves []*writv1.Reserve
		switch record.GetKind() {
		case writv1.RecordKind_RECORD_KIND_DECISION:
			var body writv1.DecisionRecord
			if err := canonical.Unmarshal(record.GetBody(), &body); err != nil {
				return err
			}
			if body.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW {
				for _, effect := range body.GetDecision().GetEffects() {
					reserves = append(reserves, effect.GetReserve())
				}
			}
		case writv1.RecordKind_RECORD_KIND_OUTCOME:
			var body writv1.OutcomeRecord
			if err := canonical.Unmarshal(record.GetBody(), &body); err != nil {
				return err
			}
			reserves = body.GetOverrun()
		}
		for _, r := range reserves {
			if drawsOn(r, lapsed.GetGrant()) {
				sum = min(sum, maxSum-r.GetAmount()) + r.GetAmount()
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read what %s drew: %w", lapsed.GetHolder(), err)
	}
	return sum, nil
}

// maxSum is the most that amounts add up to.
const maxSum = 1<<63 - 1

// drawsOn says whether a reservation is of a slice.
func drawsOn(r *writv1.Reserve, grant *writv1.LeaseGrant) bool {
	return r != nil && r.GetBudget() == grant.GetBudget() && r.GetDimension() == grant.GetDimension() &&
		slices.Equal(r.GetKey(), grant.GetKey()) && r.GetWindowStart().AsTime().Equal(grant.GetWindowStart().AsTime())
}
