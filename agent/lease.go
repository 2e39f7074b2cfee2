// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/leases"
)

// leaseTick is the time between looks for slices that are to be asked for, given back or
// kept on, beside those that calls give rise to.
const leaseTick = 500 * time.Millisecond

// KeepLeases asks for slices of shared budgets as calls draw on them, until ctx is done.
// Asks are records, which the ledger's stream takes to the collector: no call waits for
// one. It is for one goroutine.
func (a *Agent) KeepLeases(ctx context.Context) {
	ticker := time.NewTicker(leaseTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-a.hungry:
		}
		a.askLeases(ctx)
	}
}

// askLeases records the asks that are due. While the collector does not have the last
// ones it makes no others: a collector that is away is asked once.
func (a *Agent) askLeases(ctx context.Context) {
	status := a.options.Ledger.Status()
	if status.Acknowledged < a.askedAt {
		return
	}
	a.state.mu.Lock()
	asks := a.state.leases.Due(a.options.Clock(), a.state.taken, status.Size)
	a.state.mu.Unlock()
	a.recordAsks(ctx, asks)
}

// giveBack says that nothing more is drawn on the agent's slices: what is left of them is
// there for others when the collector has the end of the ledger. Nobody draws any more.
func (a *Agent) giveBack(ctx context.Context) {
	from := a.options.Ledger.Status().Size
	a.state.mu.Lock()
	a.state.leases.Stop()
	a.state.mu.Unlock()
	for {
		a.state.mu.Lock()
		asks := a.state.leases.Due(a.options.Clock(), a.state.taken, from)
		a.state.mu.Unlock()
		if len(asks) == 0 {
			return
		}
		a.recordAsks(ctx, asks)
	}
}

func (a *Agent) recordAsks(ctx context.Context, asks []*writv1.LeaseAsk) {
	for _, ask := range asks {
		record := &writv1.LeaseRecord{What: &writv1.LeaseRecord_Ask{Ask: ask}}
		position, err := a.options.Ledger.Append(ctx, ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_LEASE, BundleDigest: a.bundleDigest(), Body: record,
		}, writv1.Durability_DURABILITY_NODE)
		if err != nil {
			a.options.Log.ErrorContext(ctx, "a slice of a shared budget could not be asked for; it is tried again", "budget", ask.GetBudget(), "error", err)
			a.state.mu.Lock()
			a.state.leases.Unasked(ask)
			a.state.mu.Unlock()
			continue
		}
		a.askedAt = position.Index + 1
	}
}

// TakeGrant takes the collector's answer to an ask, once it is recorded durably: what was
// drawn on it may be lost with the machine, that it was given may not. The caller MUST
// have verified that it is the collector's. One that answers an earlier ask, or comes
// again, is passed over.
func (a *Agent) TakeGrant(ctx context.Context, grant *writv1.LeaseGrant) *reasons.Error {
	if err := protovalidate.Validate(grant); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_DECODE_MALFORMED, "grant", "the grant breaks the rules of its message: %v", err)
	}
	a.state.mu.Lock()
	takes := a.state.leases.Takes(grant)
	a.state.mu.Unlock()
	if !takes {
		return nil
	}
	_, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_LEASE, BundleDigest: a.bundleDigest(),
		Body: &writv1.LeaseRecord{What: &writv1.LeaseRecord_Grant{Grant: grant}},
		Written: func(err error) {
			if err == nil {
				a.state.granted(a.options.Clock(), grant)
			}
		},
	}, writv1.Durability_DURABILITY_NODE)
	if err != nil {
		return ledgerRefusal(err)
	}
	return nil
}

// draw notes what a decision drew on shared budgets, or would have.
func (a *Agent) draw(ad *Admission) {
	if ad.bundle == nil || ad.origin != writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE {
		return
	}
	draws := ad.bundle.Draws(&ad.call, ad.result, ad.facts)
	if len(draws) == 0 {
		return
	}
	due, now := false, a.options.Clock()
	a.state.mu.Lock()
	for _, d := range draws {
		due = a.state.leases.Drew(now, d) || due
	}
	a.state.mu.Unlock()
	if due {
		select {
		case a.hungry <- struct{}{}:
		default:
		}
	}
}

// reported says why a call that draws on a slice, of which the collector was to hear
// first, is not answered although it has: it may have counted the slice as lapsed before.
func (a *Agent) reported(ad *Admission) *reasons.Error {
	if !ad.Allowed() || len(ad.slices) == 0 || !ad.bundle.ReportsFirst(&ad.call, ad.facts) {
		return nil
	}
	now := a.options.Clock()
	if slices.ContainsFunc(ad.slices, func(s leases.Slice) bool { return !s.Live(now) }) {
		return reasons.New(writv1.Reason_REASON_BUDGET_NO_LEASE, "", "the agent's slice of a shared budget ended before the collector had the call's record; try again in a moment")
	}
	return nil
}

// returnable returns what a call that is withdrawn gives back. Where the collector is to
// hear first it may have counted the call, and what it counted is not drawn again.
func (ad *Admission) returnable() []*writv1.Reserve {
	if len(ad.slices) == 0 || !ad.bundle.ReportsFirst(&ad.call, ad.facts) {
		return ad.claim.Reserved
	}
	return slices.DeleteFunc(slices.Clone(ad.claim.Reserved), func(r *writv1.Reserve) bool {
		return slices.Contains(ad.bundle.Shared(), r.GetBudget())
	})
}

// balances reads the balances of keys, those of shared budgets with the agent's slices,
// which it returns too. The caller holds mu.
func (s *State) balances(now time.Time, keys []budgets.Key) ([]*writv1.Balance, version, []leases.Slice) {
	read, own := s.budgets.Read(now, keys)
	at := version{balances: own}
	var held []leases.Slice
	for i := range keys {
		key := &keys[i]
		if key.Terms == nil {
			continue
		}
		read[i] = &writv1.Balance{Budget: key.Budget, Key: key.Scope, Dimension: key.Dimension}
		slice, newest, live := s.leases.Slice(key.Terms, now)
		at.leases = max(at.leases, newest)
		taken, open := s.budgets.Taken(*key, slice.Start)
		if !live || !open {
			continue
		}
		held = append(held, slice)
		read[i].WindowStart, read[i].Taken = timestamppb.New(slice.Start), taken
		read[i].Lease = &writv1.LeaseFact{Cap: slice.Cap, WindowEnd: timestamppb.New(slice.End), Exhausted: slice.Dry}
	}
	return read, at, held
}

// current says whether nothing that keys name has changed since it was read. The caller
// holds mu.
func (s *State) current(keys []budgets.Key, read version, now time.Time) bool {
	if !s.budgets.Current(keys, read.balances) {
		return false
	}
	var newest uint64
	for i := range keys {
		if keys[i].Terms != nil {
			_, at, _ := s.leases.Slice(keys[i].Terms, now)
			newest = max(newest, at)
		}
	}
	return newest == read.leases
}

// taken tells what is taken of a balance in a window of a slice. The caller holds mu.
func (s *State) taken(ask *writv1.LeaseAsk, start time.Time) int64 {
	taken, _ := s.budgets.Taken(budgets.Key{Budget: ask.GetBudget(), Scope: ask.GetKey(), Dimension: ask.GetDimension()}, start)
	return taken
}

// granted applies a grant that is recorded.
func (s *State) granted(now time.Time, grant *writv1.LeaseGrant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases.Granted(now, grant, s.taken)
}

// lease applies the record of a lease.
func (s *State) lease(body *writv1.LeaseRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ask := body.GetAsk(); ask != nil {
		s.leases.Asked(ask)
	}
	if grant := body.GetGrant(); grant != nil {
		s.leases.Granted(time.Time{}, grant, s.taken)
	}
}

// started applies a start. If the machine was down since the one before, and not the agent
// alone, records that were answered may be missing: what was left of the slices counts as
// taken.
func (s *State) started(start *writv1.StartRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && (s.boot != start.GetBootId() || s.boot == "") {
		s.leases.WriteOff(s.taken)
	}
	s.boot, s.ended = start.GetBootId(), false
}

// closed applies an end: everything before it is there.
func (s *State) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// overdrawn returns the window that an overrun of a shared budget is taken from.
func (a *Agent) overdrawn(terms *writv1.LeaseAsk) time.Time {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	return a.state.leases.Window(terms)
}

// Leases returns the slices of shared budgets, in a fixed order.
func (s *State) Leases() []*writv1.HeldLease {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.leases.Held()
	for i := range held {
		held[i] = proto.CloneOf(held[i])
	}
	return held
}
