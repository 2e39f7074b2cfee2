// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"bytes"
	"context"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/wire"
)

const (
	filterName = "envoy.filters.http.ext_proc"

	headerToken  = "x-writ-decision-token"
	headerLength = "content-length"
	headerPath   = ":path"
	headerStatus = ":status"

	metadataDecision = "decision_id"
)

// evidenceOf returns what the first message says of who calls, and the id of the
// decision that ext_authz made, if it did.
func evidenceOf(message *procv3.ProcessingRequest) (identity.Evidence, string) {
	spaces := message.GetMetadataContext().GetFilterMetadata()
	peer := attribute(message.GetAttributes(), resources.PeerAttribute)
	earlier := spaces[resources.AuthzNamespace].GetFields()[metadataDecision].GetStringValue()
	return identity.Evidence{Peer: peer, Token: spaces[resources.JWTNamespace]}, earlier
}

// attribute returns an attribute that the filter was told to send.
func attribute(attributes map[string]*structpb.Struct, name string) string {
	return attributes[filterName].GetFields()[name].GetStringValue()
}

// requestHeaders reads the request's headers. A request without a body is
// complete with them.
func (x *exchange) requestHeaders(ctx context.Context, headers *procv3.HttpHeaders) *procv3.ProcessingResponse {
	if x.phase != phaseBegin {
		return x.unexpected(ctx, "request headers")
	}
	x.request = readRequest(headers.GetHeaders())
	x.phase = phaseRequestBody
	if !headers.GetEndOfStream() {
		return requestHeadersPass(nil)
	}
	if denial := x.take(ctx); denial != nil {
		return denial
	}
	mutation, failure := x.goOn(ctx)
	if failure != nil {
		return failure
	}
	return x.annotated(requestHeadersPass(mutation))
}

// requestBody reads the whole body and decides.
func (x *exchange) requestBody(ctx context.Context, body *procv3.HttpBody) *procv3.ProcessingResponse {
	if x.phase != phaseRequestBody {
		return x.unexpected(ctx, "a request body")
	}
	x.request.Body = body.GetBody()
	if !body.GetEndOfStream() && x.refusal == nil {
		x.refusal = reasons.New(writv1.Reason_REASON_DECODE_PARTIAL_BODY, "", "the body did not come whole, or has trailers")
	}
	if denial := x.take(ctx); denial != nil {
		return denial
	}
	mutation, failure := x.goOn(ctx)
	if failure != nil {
		return failure
	}
	return x.annotated(requestBodyPass(mutation))
}

// take has the request admitted; what it returns is the denial, if it is denied.
func (x *exchange) take(ctx context.Context) *procv3.ProcessingResponse {
	x.evidence.Headers = x.request.Headers
	x.passage = x.server.options.Desk.Take(ctx, &calls.Arrival{
		Surface:    writv1.Surface_SURFACE_EXT_PROC,
		Upstream:   x.upstream,
		Request:    x.request,
		Evidence:   x.evidence,
		Earlier:    x.earlier,
		Generation: x.generation,
		Refusal:    x.refusal,
		View:       x.view,
	})
	if x.passage.Denial != nil {
		x.phase = phaseOver
		return x.annotated(immediate(x.passage.Denial))
	}
	return nil
}

// mutation is what changes of a message.
type mutation struct {
	headers *procv3.HeaderMutation
	// body replaces the body; nil leaves it.
	body []byte
}

// goOn releases the call and returns how the request is sent on.
func (x *exchange) goOn(ctx context.Context) (*mutation, *procv3.ProcessingResponse) {
	change := &mutation{headers: &procv3.HeaderMutation{RemoveHeaders: []string{headerToken}}}
	if x.passage.Admission == nil {
		x.phase = phasePassing
		if x.passage.Call.Lists && x.view == calls.ViewWhole {
			x.phase = phaseList
		}
		change.headers.RemoveHeaders = append(change.headers.RemoveHeaders, tools.DecisionHeader)
		return change, nil
	}
	admission := x.passage.Admission
	sent, err := x.passage.Call.Rewrite(admission.Arguments(), admission.Message())
	if err == nil {
		err = admission.Release()
	}
	if err != nil {
		x.server.options.Log.ErrorContext(ctx, "an allowed call could not be sent on", "decision_id", x.id(), "error", err)
		x.finish(ctx, notSent(err))
		return nil, x.fail()
	}
	x.phase = phaseResponse
	x.apply(sent, change)
	return change, nil
}

// apply makes the change from the request that came in to the one sent on.
func (x *exchange) apply(sent *wire.Sent, change *mutation) {
	admission := x.passage.Admission
	set(change.headers, tools.DecisionHeader, admission.ID())
	if token := admission.Token(); token != "" {
		change.headers.RemoveHeaders = nil
		set(change.headers, headerToken, token)
	}
	change.headers.RemoveHeaders = append(change.headers.RemoveHeaders, sent.Remove...)
	if sent.Path != x.request.Path {
		set(change.headers, headerPath, sent.Path)
	}
	for _, header := range sent.Set {
		set(change.headers, header.Name, header.Value)
	}
	if len(sent.Body) > 0 && !bytes.Equal(sent.Body, x.request.Body) {
		change.body = sent.Body
		set(change.headers, headerLength, strconv.Itoa(len(sent.Body)))
	}
}

// readRequest reads the headers, pseudo headers apart.
func readRequest(headers *corev3.HeaderMap) *wire.Request {
	request := &wire.Request{Headers: make([]wire.Header, 0, len(headers.GetHeaders()))}
	for _, header := range headers.GetHeaders() {
		value := valueOf(header)
		switch header.GetKey() {
		case ":method":
			request.Method = value
		case headerPath:
			request.Path = value
		case ":scheme":
			request.Scheme = value
		case ":authority":
			request.Authority = value
		default:
			request.Headers = append(request.Headers, wire.Header{Name: header.GetKey(), Value: value})
		}
	}
	return request
}

func valueOf(header *corev3.HeaderValue) string {
	if raw := header.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return header.GetValue()
}
