// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// judge holds what the clients were answered, what the ledger says and what the
// payments service did against each other.
type judge struct {
	desk    *desk
	account *account
	// update has the account take up what is new.
	update func(t *testing.T)
	// attempts by traceparent, all that were made.
	attempts map[string]*attempt
	// seen is how much of what arrived at payments was judged, lastEffect the last
	// row of its books that was.
	seen       int
	lastEffect int64
	// effects by idempotency key, and by decision.
	byKey, byDecision map[string]*effect
	// arrived counts the decisions, and the keys of refunds, that reached payments.
	arrived, arrivedKeys map[string]int
	// released are the decisions that let a refund of a key through, or may have.
	released map[string]*decision
}

func newJudge(d *desk) *judge {
	account := newAccount(d.ledger())
	return &judge{
		desk: d, account: account, update: account.update, attempts: map[string]*attempt{},
		byKey: map[string]*effect{}, byDecision: map[string]*effect{},
		arrived: map[string]int{}, arrivedKeys: map[string]int{}, released: map[string]*decision{},
	}
}

// round judges what happened since the round before, while the agent is dead: made
// are the attempts, all of them over. It returns those that were cut off: decided,
// and never answered.
func (j *judge) round(t *testing.T, made []*attempt) (cut []*attempt) {
	t.Helper()
	for _, a := range made {
		j.attempts[a.trace] = a
	}
	// The books are read before the ledger: whatever they say was decided earlier.
	effects, arrivals := effectsSince(t, j.desk.books(), j.lastEffect), j.desk.tap.since(j.seen)
	j.update(t)
	for i := range effects {
		j.effect(t, &effects[i])
	}
	for _, a := range arrivals {
		j.arrival(t, a)
	}
	for _, a := range made {
		if j.attempt(t, a) {
			cut = append(cut, a)
		}
	}
	return cut
}

// effect judges one refund in the books of payments.
func (j *judge) effect(t *testing.T, e *effect) {
	t.Helper()
	j.lastEffect = e.id
	if earlier := j.byKey[e.key]; earlier != nil {
		t.Errorf("refund %d of key %s: it was refunded before, as %d", e.id, e.key, earlier.id)
	}
	if earlier := j.byDecision[e.decision]; earlier != nil {
		t.Errorf("refund %d of decision %s: it was spent before, on %d", e.id, e.decision, earlier.id)
	}
	j.byKey[e.key], j.byDecision[e.decision] = e, e
	made := j.account.decisions[e.decision]
	switch {
	case made == nil:
		t.Errorf("an effect without a decision: refund %+v", *e)
		return
	case !made.allows() || made.record.GetTool() != "payments.issue_refund":
		t.Errorf("refund %+v rests on a decision that does not allow it: %v", *e, made.record)
	case made.withdrawn():
		t.Errorf("refund %+v rests on a decision that was taken back: %v", *e, made.outcomes)
	}
	asked := j.attempts[made.record.GetTraceParent()]
	if asked == nil {
		t.Errorf("refund %+v is nobody's: no client sent %s", *e, made.record.GetTraceParent())
		return
	}
	want := effect{
		id: e.id, tenant: asked.client.tenant, payment: paymentID, currency: "EUR",
		minor: asked.minor, reason: asked.key, decision: made.id, key: asked.key,
	}
	if *e != want || asked.kind != refund {
		t.Errorf("refund %+v, want %+v, as it was asked for by %s", *e, want, asked)
	}
}

// arrival judges one request that reached payments.
func (j *judge) arrival(t *testing.T, a arrival) {
	t.Helper()
	j.seen++
	made := j.account.decisions[a.decision]
	if made == nil || !made.allows() || made.withdrawn() {
		t.Errorf("%s %s reached payments without a decision that allows it: %+v", a.method, a.path, a)
		return
	}
	if j.arrived[a.decision]++; j.arrived[a.decision] > 1 {
		t.Errorf("%s %s reached payments %d times under one decision: %+v", a.method, a.path, j.arrived[a.decision], a)
	}
	if a.method != "POST" {
		return
	}
	if j.arrivedKeys[a.key]++; j.arrivedKeys[a.key] > 1 {
		t.Errorf("a refund of one key reached payments %d times: %+v", j.arrivedKeys[a.key], a)
	}
}

// attempt judges what a client was answered, and says whether it was cut off.
func (j *judge) attempt(t *testing.T, a *attempt) bool {
	t.Helper()
	decided := j.account.byTrace[a.trace]
	if len(decided) > 1 {
		t.Errorf("%s was decided %d times", a, len(decided))
	}
	if len(decided) == 0 {
		if a.answered() {
			t.Errorf("%s was answered, and no decision is in the ledger", a)
		}
		return false
	}
	made := decided[0]
	if a.kind == tooMuch && made.allows() {
		t.Errorf("%s was allowed: %v", a, made.record)
	}
	j.release(t, a, made)
	j.facts(t, a, made)
	switch {
	case a.succeeded():
		j.success(t, a, made)
	case a.denial != nil:
		if a.denial.DecisionID != made.id || made.allows() && !made.withdrawn() {
			t.Errorf("%s was denied, and the ledger says %s: %v", a, made.id, made.record)
		}
	}
	return !a.answered()
}

// success judges a call that its client saw succeed.
func (j *judge) success(t *testing.T, a *attempt, made *decision) {
	t.Helper()
	if !made.allows() || made.withdrawn() {
		t.Errorf("%s, and the ledger does not allow it: %v", a, made.record)
	}
	if j.arrived[made.id] == 0 {
		t.Errorf("%s, and it never reached payments", a)
	}
	if a.kind == refund && j.byDecision[made.id] == nil {
		t.Errorf("%s, and it is not in the books of payments", a)
	}
	// Where ext_proc has the response whole, its end was durable before its last byte.
	if made.record.GetSurface() == writv1.Surface_SURFACE_EXT_PROC && !made.succeeded() {
		t.Errorf("%s, and its outcome is not in the ledger: %v", a, made.outcomes)
	}
}

// release remembers which decision a key was spent on: it is one.
func (j *judge) release(t *testing.T, a *attempt, made *decision) {
	t.Helper()
	if a.kind != refund || !made.allows() || made.withdrawn() {
		return
	}
	if earlier := j.released[a.key]; earlier != nil {
		t.Errorf("%s was let through by %s, and before by %s", a, made.id, earlier.id)
	}
	j.released[a.key] = made
}

// facts judges what the agent took its state to be: where nobody else called, that is
// the fold of all records before.
func (j *judge) facts(t *testing.T, a *attempt, made *decision) {
	t.Helper()
	if !a.quiet {
		return
	}
	for i, read := range made.record.GetFacts().GetBalances() {
		if read.GetTaken() != made.folded[i] {
			t.Errorf("%s: the agent's state has %d taken of %s %q, and the ledger folds to %d",
				a, read.GetTaken(), read.GetBudget(), read.GetKey(), made.folded[i])
		}
	}
}

// retried judges the retry of a call that was cut off. What was let through, or may
// have been, is told so; what was never decided is decided now.
func (j *judge) retried(t *testing.T, first, again *attempt) {
	t.Helper()
	switch earlier := j.released[first.key]; {
	case first.kind == tooMuch:
		if again.denial == nil {
			t.Errorf("%s, on a retry", again)
		}
	case first.kind == read || earlier == nil:
		if !again.succeeded() {
			t.Errorf("%s, on the retry of a call that was never let through, or may be repeated", again)
		}
	default:
		if again.denial == nil || again.denial.Reason != "ADMISSION_ALREADY_RELEASED" || again.denial.EarlierDecisionID != earlier.id {
			t.Errorf("%s, on the retry of a call that was let through by %s", again, earlier.id)
		}
	}
}

// outage judges the attempts that were made when no agent was there.
func (j *judge) outage(t *testing.T, a *attempt) {
	t.Helper()
	if a.answered() || a.err != nil || a.status < 500 {
		t.Errorf("%s, while there was no agent", a)
	}
	if decided := j.account.byTrace[a.trace]; len(decided) > 0 {
		t.Errorf("%s was decided while there was no agent: %v", a, decided[0].record)
	}
	if j.byKey[a.key] != nil {
		t.Errorf("%s had an effect while there was no agent", a)
	}
}

// last judges what holds once everything has stopped.
func (j *judge) last(t *testing.T) {
	t.Helper()
	for id, made := range j.account.decisions {
		if made.allows() && len(made.outcomes) != 1 {
			t.Errorf("decision %s allows, and has the outcomes %v", id, made.outcomes)
		}
	}
}
