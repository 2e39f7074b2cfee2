// SPDX-License-Identifier: Apache-2.0

// Package extauthz is the agent as Envoy's external authorization: every request
// of a governed route is checked whole and goes on unchanged, or gets a denial in
// its own protocol.
//
//	server := extauthz.New(extauthz.Options{Desk: desk, Log: log})
//	grpcServer := grpc.NewServer(grpc.ForceServerCodecV2(extauthz.Codec()))
//	server.Register(grpcServer)
//
// What the package promises: the answer is never an error of gRPC, so that what
// the caller gets does not depend on how Envoy treats errors; an allowed request
// carries the decision's id on, to the filters behind in dynamic metadata and to
// the upstream in a header; what comes in under those names is overwritten. It
// cannot change a body and sees no response.
package extauthz

import (
	"context"
	"log/slog"
	"time"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// Observer is told of calls that were let through, and finishes them when it
// learns how they ended.
type Observer interface {
	// Expect takes over an admission that was released. It MUST finish it.
	Expect(admission *agent.Admission)
}

// Options is what the server needs.
type Options struct {
	// Desk takes requests to the agent.
	Desk *calls.Desk
	// Observer finishes what is let through; nil means that nobody sees how it
	// ends, and it is finished as UNOBSERVED.
	Observer Observer
	// Timeout is how long a decision may take. It is less than Envoy waits.
	Timeout time.Duration
	// Log is the agent's log.
	Log *slog.Logger
}

// Server is envoy.service.auth.v3.Authorization.
type Server struct {
	options Options
}

// New returns a server.
func New(options Options) *Server { return &Server{options: options} }

// check decides on a request. A panic costs the call, and not the agent.
func (s *Server) check(ctx context.Context, c *check) (made answer) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			s.options.Log.ErrorContext(ctx, "a call was denied because handling it panicked", "error", agent.Panicked(cause))
			made = internal(wire.Unrouted(&c.request, nil), "")
		}
	}()
	arrival := &calls.Arrival{
		Surface:  writv1.Surface_SURFACE_EXT_AUTHZ,
		Upstream: c.upstream,
		Request:  &c.request,
		Evidence: c.evidence,
	}
	switch {
	case c.broken != nil:
		arrival.Refusal = reasons.Wrap(c.broken, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to read what Envoy sent")
	case c.most > 0 && len(c.request.Body) >= c.most:
		// Envoy says that a body is cut only where more than its buffer has come by
		// then: what just fills the buffer may go on all the same.
		arrival.Refusal = reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the body has %d bytes or more, which is all that Envoy takes", c.most)
	}
	return s.answer(ctx, s.options.Desk.Take(ctx, arrival))
}

// answer lets the request through or denies it.
func (s *Server) answer(ctx context.Context, passage *calls.Passage) answer {
	if passage.Denial != nil {
		return denied(passage)
	}
	if passage.Admission == nil || passage.Enforcement == writv1.Enforcement_ENFORCEMENT_BOTH {
		// Housekeeping; or ext_proc joins the admission, releases and finishes it.
		return allowed(passage.Admission)
	}
	if err := passage.Admission.Release(); err != nil {
		s.options.Log.ErrorContext(ctx, "an allowed call could not be released", "decision_id", passage.Admission.ID(), "error", err)
		return internal(passage.Call, passage.Admission.ID())
	}
	s.observe(ctx, passage.Admission)
	return allowed(passage.Admission)
}

// observe hands the admission to whoever will know how the call ends.
func (s *Server) observe(ctx context.Context, admission *agent.Admission) {
	if s.options.Observer != nil {
		s.options.Observer.Expect(admission)
		return
	}
	err := admission.FinishLater(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED})
	if err != nil {
		s.options.Log.ErrorContext(ctx, "the outcome of a call was not recorded", "decision_id", admission.ID(), "error", err)
	}
}
