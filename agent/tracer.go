// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// Tracer shows elsewhere what the agent did. Its methods are called on the way of calls
// and by the ledger's committer: they MUST be quick, and MUST NOT block or call the
// agent or the ledger. What they get is a copy of names and figures: there are no
// arguments and no results in it, and nobody's identity.
type Tracer interface {
	// Decided hears of a decision, once it is recorded or could not be.
	Decided(Decided)
	// Ended hears how an allowed call ended, once that is recorded.
	Ended(Ended)
	// Onward returns the W3C traceparent that a tool gets which is run for a decision.
	// Parent is the one that the call came with.
	Onward(decision [16]byte, parent string) string
}

// Call is what there is to show of a call, decided or ended.
type Call struct {
	// Decision is the decision's id.
	Decision [16]byte
	// Received is when the call came in, and At when what is shown was done.
	Received, At time.Time
	// Tool is the tool's name; empty when the bundle has none of that name, for then
	// the name is the caller's text.
	Tool string
	// MCP is set when the tool is one of an MCP server.
	MCP bool
	// Surface is where the call came in.
	Surface writv1.Surface
	// Parent is the W3C traceparent that it came with; empty is none.
	Parent string
	// Session is the session's id, in hexadecimal; empty is none.
	Session string
}

// Decided is a decision, for a [Tracer].
type Decided struct {
	Call
	// Verdict and Reason are what was decided.
	Verdict writv1.Verdict
	Reason  writv1.Reason
	// Failed are the names of the checks that failed.
	Failed []string
	// Bundle is the digest of the bundle that decided; zero is none.
	Bundle [32]byte
	// Index is the record's position in the ledger, where Recorded is set.
	Index    uint64
	Recorded bool
}

// Ended is the end of an allowed call, for a [Tracer].
type Ended struct {
	Call
	// State is how it ended, and Reason why, when it did not succeed.
	State  writv1.OutcomeState
	Reason writv1.Reason
	// Took is how long the tool took; zero when nobody told.
	Took time.Duration
	// HTTPStatus is the upstream's; zero is none.
	HTTPStatus int
	// RequestBytes went to the tool, ResponseBytes came back.
	RequestBytes, ResponseBytes uint64
}

// shown returns what there is to show of the call.
func (ad *Admission) shown(at time.Time) Call {
	call := Call{
		Decision: ad.id, Received: ad.time, At: at, Surface: ad.request.Surface,
		Parent: ad.request.TraceParent, Session: ad.SessionID(),
	}
	if tool := ad.result.Tool; tool != nil {
		call.Tool, call.MCP = tool.Name, tool.Options.GetMcp() != nil
	}
	return call
}

// showDecision hands the decision to the tracer, if there is one.
func (a *Agent) showDecision(ad *Admission) {
	if a.options.Tracer == nil {
		return
	}
	decided := Decided{
		Call:    ad.shown(a.options.Clock()),
		Verdict: ad.result.Decision.GetVerdict(), Reason: ad.result.Decision.GetReason(),
		Index: ad.position.Index, Recorded: ad.position.Recorded,
	}
	for _, check := range ad.result.Decision.GetChecks() {
		switch check.GetOutcome() {
		case writv1.CheckOutcome_CHECK_OUTCOME_FAIL, writv1.CheckOutcome_CHECK_OUTCOME_ERROR:
			decided.Failed = append(decided.Failed, check.GetName())
		default:
		}
	}
	if ad.bundle != nil {
		decided.Bundle = ad.bundle.Digest()
	}
	a.options.Tracer.Decided(decided)
}

// showEnd hands the end of the call to the tracer, if there is one. What an earlier run
// of the agent left open has no admission here, and is in the ledger alone.
func (a *Agent) showEnd(ad *Admission, outcome *writv1.OutcomeRecord) {
	if a.options.Tracer == nil || ad == nil {
		return
	}
	at := a.options.Clock()
	if ended := ad.ended.Load(); ended != nil {
		at = *ended
	}
	a.options.Tracer.Ended(Ended{
		Call: ad.shown(at), State: outcome.GetState(), Reason: outcome.GetReason(), Took: outcome.GetDuration().AsDuration(),
		HTTPStatus: int(outcome.GetHttpStatus()), RequestBytes: outcome.GetRequestBytes(), ResponseBytes: outcome.GetResponseBytes(),
	})
}

// onward returns the traceparent that the call's tool gets: with nobody to make spans,
// the one that the call came with.
func (ad *Admission) onward() string {
	if tracer := ad.agent.options.Tracer; tracer != nil {
		return tracer.Onward(ad.id, ad.request.TraceParent)
	}
	return ad.request.TraceParent
}

// takeOpen returns the open admission of an id, which is not open any more.
func (a *Agent) takeOpen(id admissions.ID) *Admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	ad := a.open[id]
	delete(a.open, id)
	return ad
}
