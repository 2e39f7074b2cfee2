// SPDX-License-Identifier: Apache-2.0

// Package calls takes a request that one of Envoy's filters holds to the agent,
// and says what the filter may do with it. Both filters do the same here, so that
// they cannot differ: find the route, find out who asks, read the call, have it
// admitted.
//
//	passage := desk.Take(ctx, &calls.Arrival{Surface: surface, Upstream: name, Request: request, Evidence: evidence})
//	if passage.Denial != nil {
//		return immediately(passage.Denial)
//	}
//
// What the package promises: every call of a tool, and every request that is
// refused, becomes an admission with a record; what it lets through is either an
// allowed call or housekeeping of a protocol by an authenticated principal. It
// does not know Envoy's messages, and does not release or finish admissions: the
// filter that lets a call through does.
package calls

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/metadata"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/agent/trace"
	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/ledger/token"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// Options is what a desk needs.
type Options struct {
	// Agent decides.
	Agent *agent.Agent
	// Identity finds out who calls.
	Identity *identity.Resolver
	// Limits bound bodies.
	Limits wire.Limits
}

// Desk takes requests to the agent. Several goroutines may use it.
type Desk struct {
	options Options
	// generation is replaced whole when the agent has another bundle.
	generation atomic.Pointer[Generation]
}

// Generation is a bundle and the routes made from it. It does not change.
type Generation struct {
	bundle *policy.Bundle
	routes wire.Routes
}

// New returns a desk.
func New(options Options) *Desk { return &Desk{options: options} }

// Generation returns the one in force. A stream keeps the one it began with.
func (d *Desk) Generation() *Generation {
	bundle := d.options.Agent.Bundle()
	current := d.generation.Load()
	if current != nil && current.bundle == bundle {
		return current
	}
	// Two goroutines may both make one: they are alike.
	made := &Generation{bundle: bundle}
	if bundle != nil {
		made.routes = wire.NewRoutes(bundle.Catalogue(), bundle.Tools(), d.options.Limits)
	}
	d.generation.Store(made)
	return made
}

// Arrival is a request at one of the filters.
type Arrival struct {
	// Surface is the filter.
	Surface writv1.Surface
	// Upstream is the name that the route gives the filter.
	Upstream string
	// Request is the whole request.
	Request *wire.Request
	// Evidence is what Envoy says of who calls.
	Evidence identity.Evidence
	// Earlier is the decision's id that a filter before left; empty is none.
	Earlier string
	// Generation is the one the filter's stream began with; nil is the current one.
	Generation *Generation
	// Refusal is set when the filter already knows that it cannot let the
	// request through.
	Refusal *reasons.Error
	// View is what the filter will see of the response.
	View View
}

// View is what a filter sees of responses.
type View int

const (
	// ViewRequest is a filter that sees requests only: responses are not its.
	ViewRequest View = iota
	// ViewWhole is a filter that gets every response whole.
	ViewWhole
	// ViewStreamed is a filter that is set not to see the response, so that it
	// may stream. No call of a tool passes it.
	ViewStreamed
)

// Passage is what became of a request.
type Passage struct {
	// Call is what was read. Never nil.
	Call *wire.Call
	// Admission is the agent's; nil for housekeeping that passes.
	Admission *agent.Admission
	// Denial is what the caller gets; nil when the request may go on.
	Denial *wire.Response
	// Enforcement is the route's.
	Enforcement writv1.Enforcement

	bundle    *policy.Bundle
	principal *writv1.Principal
}

// Visible tells which tools the caller may know of: those that some grant may let
// it call.
func (p *Passage) Visible() wire.Visible {
	names := make(map[string]bool)
	for _, tool := range p.bundle.Visible(p.principal) {
		names[tool.Name] = true
	}
	return func(tool string) bool { return names[tool] }
}

// Take reads a request and has it admitted.
func (d *Desk) Take(ctx context.Context, arrival *Arrival) *Passage {
	generation := arrival.Generation
	if generation == nil {
		generation = d.Generation()
	}
	passage := &Passage{}
	route, known := generation.routes[arrival.Upstream]
	if known {
		passage.Call = decode(route, arrival.Request)
		passage.Enforcement = route.Upstream().GetEnforcement()
	} else {
		passage.Call = wire.Unrouted(arrival.Request, unrouted(generation))
	}
	principal, refusal := d.whoAndWhat(arrival, passage.Call)
	passage.bundle, passage.principal = generation.bundle, principal
	if refusal == nil && passage.Call.Kind == wire.KindHousekeeping {
		return passage
	}
	request := requestOf(ctx, arrival, generation, passage.Call, principal)
	request.Refusal = refusal
	if refusal == nil {
		request.Token = tokenOf(route, arrival.Request, passage.Call)
	}
	passage.Admission = d.options.Agent.Join(ctx, arrival.Earlier, request)
	if refusal := passage.Admission.Refusal(); refusal != nil {
		passage.Denial = passage.Call.Deny(denialOf(passage.Admission, refusal))
	}
	return passage
}

// whoAndWhat returns who calls, and why the request is refused before anything is
// decided. That nobody calls is for Decide to say, as it is on every face; for
// housekeeping, on which nothing is decided, it is said here.
func (d *Desk) whoAndWhat(arrival *Arrival, call *wire.Call) (*writv1.Principal, *reasons.Error) {
	principal, unknown := d.options.Identity.Principal(&arrival.Evidence)
	if unknown != nil && (unknown.Reason != writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED || unknown.Err != nil) {
		return nil, unknown
	}
	refusal := first(arrival.Refusal, call.Refusal, misplaced(arrival.View, call))
	if refusal == nil && call.Kind == wire.KindHousekeeping {
		refusal = unknown
	}
	return principal, refusal
}

// decode reads a request. A panic costs the call, and not the agent.
func decode(route *wire.Route, request *wire.Request) (call *wire.Call) {
	defer func() {
		if cause := recover(); cause != nil {
			call = wire.Unrouted(request, reasons.Wrap(agent.Panicked(cause),
				writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it read the call"))
		}
	}()
	return route.Decode(request)
}

// misplaced refuses a call whose response nobody would check, and a stream that
// would be held until its end, which never comes.
func misplaced(view View, call *wire.Call) *reasons.Error {
	switch {
	case view == ViewStreamed && !call.Streams:
		return reasons.New(writv1.Reason_REASON_AGENT_UNIMPLEMENTED, "", "the filter is not set to see the response")
	case view == ViewWhole && call.Streams:
		return reasons.New(writv1.Reason_REASON_AGENT_UNIMPLEMENTED, "", "the filter would hold a response that does not end")
	}
	return nil
}

// unrouted says why there is no route: Envoy's configuration was made from
// another catalogue, or there is no bundle at all.
func unrouted(generation *Generation) *reasons.Error {
	if generation.bundle == nil {
		return reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	}
	return reasons.New(writv1.Reason_REASON_TOOL_UNKNOWN, "", "the bundle's catalogue has no upstream of the name that the route gives")
}

// first returns the first refusal that is one.
func first(refusals ...*reasons.Error) *reasons.Error {
	for _, refusal := range refusals {
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

func requestOf(ctx context.Context, arrival *Arrival, generation *Generation, call *wire.Call, principal *writv1.Principal) *agent.Request {
	return &agent.Request{
		Surface:        arrival.Surface,
		Principal:      principal,
		Envelope:       call.Envelope,
		Arguments:      call.Arguments,
		Input:          arrival.Request.Body,
		IdempotencyKey: call.IdempotencyKey,
		KeyPlace:       agent.KeySentOn,
		SessionToken:   sessionToken(arrival.Request, call),
		TraceParent:    traceParent(ctx, arrival.Request),
		Upstream:       arrival.Upstream,
		Generation:     generation.bundle,
	}
}

// sessionToken returns the token of the caller's session, which the body or a header has;
// of several headers none counts.
func sessionToken(request *wire.Request, call *wire.Call) string {
	if call.SessionToken != "" {
		return call.SessionToken
	}
	token := ""
	for i := range request.Headers {
		if request.Headers[i].Name != wire.HeaderSession {
			continue
		}
		if token != "" {
			return ""
		}
		token = request.Headers[i].Value
	}
	return token
}

// traceParent returns the W3C traceparent of the request. Where Envoy traces, it tells
// its own span on the call to the agent, and that is the parent: the request's header
// still has what the client sent. Of several headers none counts.
func traceParent(ctx context.Context, request *wire.Request) string {
	const name = "traceparent"
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) == 1 {
		return trace.Parse(values[0])
	}
	found := ""
	for i := range request.Headers {
		if request.Headers[i].Name != name {
			continue
		}
		if found != "" {
			return ""
		}
		found = request.Headers[i].Value
	}
	return trace.Parse(found)
}

// tokenOf returns the decision token that the route asks for. It binds the
// request as it is sent on: as it came in, where ext_authz lets it through, or as
// it is written again.
func tokenOf(route *wire.Route, request *wire.Request, call *wire.Call) *agent.TokenRequest {
	asked := route.Upstream().GetDecisionToken()
	if asked == nil {
		return nil
	}
	raw := route.Upstream().GetEnforcement() == writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ
	return &agent.TokenRequest{
		Kind:     asked.GetKind(),
		Audience: asked.GetAudience(),
		Lifetime: asked.GetLifetime().AsDuration(),
		Digest: func(canonical []byte) [32]byte {
			if raw {
				return token.RequestDigest(asked.GetAudience(), request.Method, request.Path, request.Body)
			}
			sent, err := call.Rewrite(canonical, nil)
			if err != nil {
				// Nothing is sent on: the filter fails to rewrite too.
				return [32]byte{}
			}
			return token.RequestDigest(asked.GetAudience(), sent.Method, sent.Path, sent.Body)
		},
	}
}

// denialOf says what the caller is told of a decision.
func denialOf(admission *agent.Admission, refusal *reasons.Error) *wire.Denial {
	denial := &wire.Denial{
		Refusal:    refusal,
		DecisionID: admission.ID(),
		EarlierID:  admission.EarlierID(),
		ApprovalID: admission.ApprovalID(),
	}
	for _, check := range admission.Decision().GetChecks() {
		failing := check.GetOutcome() == writv1.CheckOutcome_CHECK_OUTCOME_FAIL || check.GetOutcome() == writv1.CheckOutcome_CHECK_OUTCOME_ERROR
		if failing {
			denial.Checks = append(denial.Checks, check.GetName())
		}
	}
	return denial
}
