// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/drift"
	"github.com/writ-dev/writ/state/leases"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/stops"
	"github.com/writ-dev/writ/state/workflows"
)

// State is everything that changes between two decisions. It is a deterministic
// fold over the ledger's records: give [State.Fold] to the ledger's recovery,
// then hand the state to [New].
type State struct {
	// mu guards everything below. It is never held across I/O.
	mu         sync.Mutex
	budgets    budgets.Machine
	admissions *admissions.Machine
	sessions   *sessions.Machine
	drift      drift.Machine
	workflows  *workflows.Machine
	approvals  *approvals.Machine
	stops      *stops.Machine
	leases     *leases.Shares
	// boot is the boot of the newest start, ended that an end came after it.
	boot  string
	ended bool
	// next is the index of the record that Fold takes next.
	next uint64
	// lean is Fold's.
	lean lean
	// origin, size and root are of the snapshot that the state began with, if any.
	origin string
	size   uint64
	root   []byte
}

// NewState returns an empty state that has room for limit open admissions.
func NewState(limit int) *State {
	return &State{admissions: admissions.New(limit), sessions: sessions.New(), workflows: workflows.New(), approvals: approvals.New(), stops: stops.New(policy.Selects), leases: leases.NewShares()}
}

// take applies what an ALLOW does. The caller holds mu.
func (s *State) take(claim admissions.Claim) {
	s.admissions.Take(claim)
	for _, reserve := range claim.Reserved {
		s.budgets.Reserve(reserve)
	}
}

// abandon undoes take. The caller holds mu.
func (s *State) abandon(claim admissions.Claim) {
	s.admissions.Abandon(claim.ID)
	for _, reserve := range claim.Reserved {
		s.budgets.GiveBack(reserve)
	}
}

// finish applies an outcome. The caller holds mu.
func (s *State) finish(id admissions.ID, outcome *writv1.OutcomeRecord) {
	held, ok := s.admissions.Finish(id, outcome)
	if !ok {
		return
	}
	s.sessions.Ended(id, outcome)
	s.workflows.Ended(id, outcome)
	for _, reserve := range outcome.GetGivenBack() {
		s.budgets.GiveBack(reserve)
	}
	for _, overrun := range outcome.GetOverrun() {
		s.budgets.Reserve(overrun)
	}
	s.drift.Spend(spentMoney(held.Reserved, outcome))
}

// session applies the record of a session. The caller holds the lock.
func (s *State) session(r *writv1.SessionRecord) {
	switch r.GetEvent() {
	case writv1.SessionEvent_SESSION_EVENT_BEGIN:
		s.sessions.Begin(r)
	case writv1.SessionEvent_SESSION_EVENT_END:
		s.sessions.End(r)
		s.workflows.Drop(workflows.Session(r.GetSession()))
	}
}

// decided applies a decision that denies or asks, once it is recorded.
func (s *State) decided(ad *Admission) {
	if ad.session == (sessions.ID{}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.Decided(ad.decided())
}

// decidedOf returns a recorded decision as a session takes it.
func decidedOf(record *writv1.Record, body *writv1.DecisionRecord) sessions.Decided {
	return sessions.Decided{
		Session: sessions.ID(body.GetSession()), Owner: sessions.OwnerOf(body.GetPrincipal()),
		Time: body.GetFacts().GetTime().AsTime(), Decision: [16]byte(record.GetDecisionId()), Tool: body.GetTool(),
		Effect: body.GetToolEffect(), Verdict: body.GetDecision().GetVerdict(), Kept: keptOf(body.GetDecision().GetEffects()),
	}
}

// keptOf returns the fields that effects keep.
func keptOf(effects []*writv1.Effect) []*writv1.KeptField {
	var kept []*writv1.KeptField
	for _, effect := range effects {
		if field := effect.GetKeep(); field != nil {
			kept = append(kept, field)
		}
	}
	return kept
}

// Dump writes the state as text, equal for equal states.
func (s *State) Dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admissions.Dump() + s.budgets.Dump() + s.drift.Dump() + s.sessions.Dump() + s.workflows.Dump() + s.approvals.Dump() + s.stops.Dump() + s.leases.Dump()
}

// approvalsKeptFor is how long approvals can be looked at after they ended.
const approvalsKeptFor = 24 * time.Hour

func (s *State) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets.Forget(now)
	s.sessions.Forget(now)
	s.workflows.Forget(now)
	s.approvals.Forget(now.Add(-approvalsKeptFor))
	s.stops.Forget(now)
	s.leases.Forget(now)
}

// reserves returns what a decision's effects reserve.
func reserves(decision *writv1.Decision) []*writv1.Reserve {
	var out []*writv1.Reserve
	for _, effect := range decision.GetEffects() {
		if reserve := effect.GetReserve(); reserve != nil {
			out = append(out, reserve)
		}
	}
	return out
}

// Standings returns how the balances of a bundle's budgets stand at the time now.
func (s *State) Standings(bundle *policy.Bundle, now time.Time) []*writv1.BudgetStanding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bundle.Standings(&s.budgets, s.leases, now)
}
