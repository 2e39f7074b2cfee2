// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"context"
	"net/http"
	"strconv"

	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// viaUpstream are the details of a response that the upstream made; every other
// is Envoy's own.
const viaUpstream = "via_upstream"

// tooLarge are the details of Envoy's reply to a request that its buffer cannot hold.
const tooLarge = "request_payload_too_large"

// stale are headers that speak of a body which is replaced.
var stale = []string{"content-md5", "digest", "content-digest", "repr-digest", "etag", "last-modified"}

// responseHeaders reads the response's headers. A response that comes first is a
// reply of Envoy's own, such as the denial of a filter before, and passes; were it
// an upstream's, the filter would not have been asked about the request.
func (x *exchange) responseHeaders(ctx context.Context, headers *procv3.HttpHeaders) *procv3.ProcessingResponse {
	switch x.phase {
	case phaseBegin, phaseRequestBody:
		if x.details == viaUpstream {
			return x.unexpected(ctx, "an upstream's response to a request that was not decided on")
		}
		if x.phase == phaseRequestBody && x.details == tooLarge {
			return x.overflow(ctx)
		}
		x.phase = phasePassing
		return responseHeadersPass()
	case phasePassing:
		return responseHeadersPass()
	case phaseList:
		x.response = readResponse(headers)
		x.phase = phaseListBody
		return responseHeadersPass()
	case phaseResponse:
	default:
		return x.unexpected(ctx, "response headers")
	}
	x.response = readResponse(headers)
	x.phase = phaseResponseBody
	if !headers.GetEndOfStream() {
		return responseHeadersPass()
	}
	answer, failure := x.conclude(ctx)
	if failure != nil {
		return failure
	}
	if answer.Failure != nil {
		return immediate(answer.Response)
	}
	return responseHeadersPass()
}

// overflow refuses a request whose body is larger than Envoy buffers, so that the
// refusal is on record, and in the caller's protocol, as every other.
func (x *exchange) overflow(ctx context.Context) *procv3.ProcessingResponse {
	if x.refusal == nil {
		x.refusal = reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the body is larger than what Envoy takes")
	}
	if denial := x.take(ctx); denial != nil {
		return denial
	}
	return x.unexpected(ctx, "the end of a request that was not read")
}

// responseBody checks the whole response and answers the caller.
func (x *exchange) responseBody(ctx context.Context, body *procv3.HttpBody) *procv3.ProcessingResponse {
	switch x.phase {
	case phasePassing:
		return responseBodyPass(nil)
	case phaseListBody:
		return x.listed(body)
	case phaseResponseBody:
	default:
		return x.unexpected(ctx, "a response body")
	}
	x.response.Body = body.GetBody()
	answer, failure := x.conclude(ctx)
	switch {
	case failure != nil:
		return failure
	case answer.Failure != nil:
		return immediate(answer.Response)
	case len(answer.Response.Body) == 0:
		return responseBodyPass(nil)
	}
	return responseBodyPass(replace(answer.Response))
}

// listed leaves out of a list what the caller may not call.
func (x *exchange) listed(body *procv3.HttpBody) *procv3.ProcessingResponse {
	x.phase = phaseOver
	x.response.Body = body.GetBody()
	made := x.passage.Call.List(x.response, x.passage.Visible())
	if made == x.response {
		return responseBodyPass(nil)
	}
	return responseBodyPass(replace(made))
}

// conclude checks the response and records the outcome, durably: the answer
// leaves after it, or not at all.
func (x *exchange) conclude(ctx context.Context) (*wire.Answer, *procv3.ProcessingResponse) {
	x.phase = phaseOver
	admission := x.passage.Admission
	answer := x.passage.Call.Answer(x.response, admission.ID(), admission.Response)
	if err := x.finish(ctx, x.outcome(answer)); err != nil {
		refusal := reasons.Wrap(err, writv1.Reason_REASON_LEDGER_UNAVAILABLE, "", "the call was carried out, and its outcome could not be recorded")
		return nil, immediate(x.passage.Call.Deny(&wire.Denial{Refusal: refusal, DecisionID: admission.ID()}))
	}
	return answer, nil
}

// outcome says how the call ended. A reply of Envoy's own to a request that was
// let through means that the upstream did not answer.
func (x *exchange) outcome(answer *wire.Answer) agent.Outcome {
	outcome := agent.Outcome{
		State:         writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED,
		HTTPStatus:    x.response.Status,
		RequestBytes:  int64(len(x.request.Body)),
		ResponseBytes: int64(len(x.response.Body)),
	}
	if answer.Failure == nil {
		return outcome
	}
	outcome.State = writv1.OutcomeState_OUTCOME_STATE_FAILED
	outcome.Reason, outcome.Message = answer.Failure.Reason, answer.Failure.Message
	if x.details == "" || x.details == viaUpstream {
		return outcome
	}
	switch x.response.Status {
	case http.StatusServiceUnavailable:
		outcome.Reason = writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE
		outcome.Message = "Envoy could not reach the upstream"
	case http.StatusGatewayTimeout:
		outcome.Reason = writv1.Reason_REASON_EXECUTION_TIMEOUT
		outcome.Message = "the upstream did not answer in time"
	}
	return outcome
}

func notSent(err error) agent.Outcome {
	refusal := reasons.Of(err)
	return agent.Outcome{
		State:   writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
		Reason:  refusal.Reason,
		Message: refusal.Message,
	}
}

// finish finishes the admission, once.
func (x *exchange) finish(ctx context.Context, outcome agent.Outcome) error {
	x.finished = true
	err := x.passage.Admission.Finish(outcome)
	if err != nil {
		x.server.options.Log.ErrorContext(ctx, "the outcome of a call was not recorded", "decision_id", x.id(), "error", err)
	}
	return err
}

// replace puts the checked body in the place of the one that came, with the
// length that it has.
func replace(response *wire.Response) *mutation {
	change := &mutation{headers: &procv3.HeaderMutation{RemoveHeaders: stale}, body: response.Body}
	for _, header := range response.Headers {
		set(change.headers, header.Name, header.Value)
	}
	set(change.headers, headerLength, strconv.Itoa(len(response.Body)))
	return change
}

func readResponse(headers *procv3.HttpHeaders) *wire.Response {
	response := &wire.Response{}
	for _, header := range headers.GetHeaders().GetHeaders() {
		if header.GetKey() != headerStatus {
			response.Headers = append(response.Headers, wire.Header{Name: header.GetKey(), Value: valueOf(header)})
			continue
		}
		// What is no number is no success.
		response.Status, _ = strconv.Atoi(valueOf(header))
	}
	return response
}
