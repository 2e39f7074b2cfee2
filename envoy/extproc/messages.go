// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/proto/reasons"
	"github.com/writ-dev/writ/wire"
)

// common is the part of an answer that all kinds share; a nil change is none.
func common(change *mutation) *procv3.CommonResponse {
	if change == nil {
		return nil
	}
	response := &procv3.CommonResponse{HeaderMutation: change.headers}
	if change.body != nil {
		response.BodyMutation = &procv3.BodyMutation{Mutation: &procv3.BodyMutation_Body{Body: change.body}}
	}
	return response
}

func requestHeadersPass(change *mutation) *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_RequestHeaders{
		RequestHeaders: &procv3.HeadersResponse{Response: common(change)},
	}}
}

func requestBodyPass(change *mutation) *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_RequestBody{
		RequestBody: &procv3.BodyResponse{Response: common(change)},
	}}
}

func requestTrailersPass() *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_RequestTrailers{
		RequestTrailers: &procv3.TrailersResponse{},
	}}
}

func responseHeadersPass() *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_ResponseHeaders{
		ResponseHeaders: &procv3.HeadersResponse{},
	}}
}

func responseBodyPass(change *mutation) *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_ResponseBody{
		ResponseBody: &procv3.BodyResponse{Response: common(change)},
	}}
}

func responseTrailersPass() *procv3.ProcessingResponse {
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_ResponseTrailers{
		ResponseTrailers: &procv3.TrailersResponse{},
	}}
}

// immediate answers the caller in the upstream's place.
func immediate(response *wire.Response) *procv3.ProcessingResponse {
	headers := &procv3.HeaderMutation{}
	for _, header := range response.Headers {
		set(headers, header.Name, header.Value)
	}
	return &procv3.ProcessingResponse{Response: &procv3.ProcessingResponse_ImmediateResponse{
		ImmediateResponse: &procv3.ImmediateResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(response.Status)},
			Headers: headers,
			Body:    response.Body,
			Details: "writ",
		},
	}}
}

// set has a header replace all of its name.
func set(headers *procv3.HeaderMutation, name, value string) {
	headers.SetHeaders = append(headers.SetHeaders, &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	})
}

// annotated adds what filters behind and the access log learn of the decision.
func (x *exchange) annotated(response *procv3.ProcessingResponse) *procv3.ProcessingResponse {
	if x.passage.Admission == nil {
		return response
	}
	decision := x.passage.Admission.Decision()
	fields := map[string]*structpb.Value{
		metadataDecision: structpb.NewStringValue(x.id()),
		"verdict":        structpb.NewStringValue(strings.TrimPrefix(decision.GetVerdict().String(), "VERDICT_")),
		"reason":         structpb.NewStringValue(reasons.Name(decision.GetReason())),
		"record_index":   structpb.NewNumberValue(float64(x.passage.Admission.RecordIndex())),
	}
	response.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{
		resources.ProcNamespace: structpb.NewStructValue(&structpb.Struct{Fields: fields}),
	}}
	return response
}
