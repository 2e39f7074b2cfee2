// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"context"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// phase is what an exchange waits for.
type phase int

const (
	// phaseBegin: nothing has come yet.
	phaseBegin phase = iota
	// phaseRequestBody: the request's headers are here.
	phaseRequestBody
	// phaseResponse: the request was let through.
	phaseResponse
	// phaseResponseBody: the headers of a response to a call are here.
	phaseResponseBody
	// phaseList: the request was let through and will be answered with a list.
	phaseList
	// phaseListBody: the headers of a list are here.
	phaseListBody
	// phasePassing: what still comes passes as it is, because it is no answer
	// of a tool: Envoy's own replies, or responses to housekeeping.
	phasePassing
	// phaseOver: the caller has its answer, and the stream ends.
	phaseOver
)

// exchange is one HTTP request and its response. One goroutine uses it.
type exchange struct {
	server     *Server
	generation *calls.Generation
	upstream   string

	phase    phase
	view     calls.View
	refusal  *reasons.Error
	request  *wire.Request
	evidence identity.Evidence
	earlier  string
	passage  *calls.Passage
	response *wire.Response
	// details say where the response comes from.
	details  string
	finished bool
}

// step answers one message by what it is and what the exchange waits for.
func (x *exchange) step(ctx context.Context, message *procv3.ProcessingRequest) *procv3.ProcessingResponse {
	if x.phase == phaseBegin {
		x.configure(ctx, message)
	}
	attributes := message.GetAttributes()
	switch message := message.GetRequest().(type) {
	case *procv3.ProcessingRequest_RequestHeaders:
		return x.requestHeaders(ctx, message.RequestHeaders)
	case *procv3.ProcessingRequest_RequestBody:
		return x.requestBody(ctx, message.RequestBody)
	case *procv3.ProcessingRequest_RequestTrailers:
		return requestTrailersPass()
	case *procv3.ProcessingRequest_ResponseHeaders:
		x.details = attribute(attributes, resources.DetailsAttribute)
		return x.responseHeaders(ctx, message.ResponseHeaders)
	case *procv3.ProcessingRequest_ResponseBody:
		return x.responseBody(ctx, message.ResponseBody)
	case *procv3.ProcessingRequest_ResponseTrailers:
		return responseTrailersPass()
	}
	return x.unexpected(ctx, "a message of an unknown kind")
}

// configure reads from the first message what holds for all: who calls, what a
// filter before decided, and the modes that Envoy runs the filter in. Modes in
// which something would pass unseen refuse every call.
func (x *exchange) configure(ctx context.Context, message *procv3.ProcessingRequest) {
	x.evidence, x.earlier = evidenceOf(message)
	modes := message.GetProtocolConfig()
	if modes == nil {
		return
	}
	x.view = calls.ViewWhole
	if modes.GetResponseBodyMode() != extprocv3.ProcessingMode_BUFFERED {
		x.view = calls.ViewStreamed
	}
	good := modes.GetRequestBodyMode() == extprocv3.ProcessingMode_BUFFERED &&
		!modes.GetSendBodyWithoutWaitingForHeaderResponse() && !message.GetObservabilityMode()
	if good {
		return
	}
	x.refusal = reasons.New(writv1.Reason_REASON_AGENT_UNIMPLEMENTED, "", "the filter runs in a mode that the agent cannot govern")
	x.server.options.Log.ErrorContext(ctx, "Envoy runs ext_proc in a mode that lets something pass unseen: generate its configuration again",
		"upstream", x.upstream, "request_body_mode", modes.GetRequestBodyMode(), "response_body_mode", modes.GetResponseBodyMode(),
		"observability_mode", message.GetObservabilityMode())
}

// unexpected ends an exchange whose messages come in an order that the protocol
// does not have.
func (x *exchange) unexpected(ctx context.Context, what string) *procv3.ProcessingResponse {
	x.server.options.Log.ErrorContext(ctx, "Envoy sent what ext_proc does not expect", "what", what, "phase", int(x.phase), "decision_id", x.id())
	return x.fail()
}

// fail ends an exchange as the agent's own failure.
func (x *exchange) fail() *procv3.ProcessingResponse {
	x.phase = phaseOver
	refusal := reasons.New(writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it handled the call")
	denial := &wire.Denial{Refusal: refusal, DecisionID: x.id()}
	if x.passage != nil {
		return immediate(x.passage.Call.Deny(denial))
	}
	return immediate(wire.Unrouted(&wire.Request{}, refusal).Deny(denial))
}

// id returns the decision's id; empty if there is none yet.
func (x *exchange) id() string {
	if x.passage == nil || x.passage.Admission == nil {
		return ""
	}
	return x.passage.Admission.ID()
}

// abandon finishes a call whose exchange ended before its response did: the
// caller went away, or Envoy did.
func (x *exchange) abandon() {
	if x.id() == "" || x.finished || x.passage.Admission.Refusal() != nil {
		return
	}
	outcome := agent.Outcome{
		State:   writv1.OutcomeState_OUTCOME_STATE_UNKNOWN,
		Reason:  writv1.Reason_REASON_EXECUTION_CANCELLED,
		Message: "the exchange ended before the response did",
	}
	if x.passage.Denial != nil {
		outcome.State, outcome.Message = writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED, "the call was not let through"
	}
	if err := x.passage.Admission.FinishLater(outcome); err != nil {
		x.server.options.Log.Error("the outcome of a call was not recorded", "decision_id", x.id(), "error", err)
	}
}
