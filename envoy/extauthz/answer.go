// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"math"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/wire"
)

const (
	// HeaderToken carries the decision token, where the route asks for one.
	HeaderToken = "x-writ-decision-token"
	// MetadataDecision is the key of the decision's id in dynamic metadata.
	MetadataDecision = "decision_id"
)

// Numbers of the fields that are written (envoy/service/auth/v3 and what it uses).
const (
	responseStatus   = 1
	responseDenied   = 2
	responseAllowed  = 3
	responseMetadata = 4

	deniedStatus  = 1
	deniedHeaders = 2
	deniedBody    = 3

	allowedHeaders = 2
	allowedRemove  = 5

	optionHeader = 1
	optionAction = 3

	structFields = 1
	valueNumber  = 2
	valueString  = 3
)

// answer is a CheckResponse in its wire form.
type answer []byte

// allowed lets the request go on; without an admission it is housekeeping. What
// came in under the agent's own names is removed or overwritten.
func allowed(admission *agent.Admission) answer {
	if admission == nil {
		return response(codes.OK, responseAllowed, remove(remove(nil, tools.DecisionHeader), HeaderToken))
	}
	ok := header(nil, allowedHeaders, tools.DecisionHeader, admission.ID())
	if token := admission.Token(); token != "" {
		ok = header(ok, allowedHeaders, HeaderToken, token)
	} else {
		ok = remove(ok, HeaderToken)
	}
	return withMetadata(response(codes.OK, responseAllowed, ok), admission)
}

// denied sends the denial that the caller's protocol has.
func denied(passage *calls.Passage) answer {
	made := deniedWith(passage.Denial)
	if passage.Admission == nil {
		return made
	}
	return withMetadata(made, passage.Admission)
}

func deniedWith(denial *wire.Response) answer {
	status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(denial.Status))
	http := bytesField(nil, deniedStatus, status)
	for _, h := range denial.Headers {
		http = header(http, deniedHeaders, h.Name, h.Value)
	}
	if len(denial.Body) > 0 {
		http = bytesField(http, deniedBody, denial.Body)
	}
	return response(codes.PermissionDenied, responseDenied, http)
}

// internal denies a call that could not be handled.
func internal(call *wire.Call, id string) answer {
	refusal := reasons.New(writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it handled the call")
	return deniedWith(call.Deny(&wire.Denial{Refusal: refusal, DecisionID: id}))
}

// response begins a CheckResponse with its status and one of its two kinds.
func response(code codes.Code, kind protowire.Number, http []byte) answer {
	var status []byte
	if code != codes.OK {
		status = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(code))
	}
	made := bytesField(make([]byte, 0, len(http)+256), responseStatus, status)
	return bytesField(made, kind, http)
}

// withMetadata adds what filters behind and the access log learn of a decision.
func withMetadata(made answer, admission *agent.Admission) answer {
	decision := admission.Decision()
	fields := text(nil, MetadataDecision, admission.ID())
	fields = text(fields, "verdict", strings.TrimPrefix(decision.GetVerdict().String(), "VERDICT_"))
	fields = text(fields, "reason", reasons.Name(decision.GetReason()))
	index := protowire.AppendTag(nil, valueNumber, protowire.Fixed64Type)
	index = protowire.AppendFixed64(index, math.Float64bits(float64(admission.RecordIndex())))
	return bytesField(made, responseMetadata, entry(fields, "record_index", index))
}

// header appends a header that replaces all of its name. ext_authz reads the
// value as text and passes over the raw form.
func header(dst []byte, field protowire.Number, name, value string) []byte {
	inner := protowire.AppendString(protowire.AppendTag(nil, headerKey, protowire.BytesType), name)
	inner = protowire.AppendString(protowire.AppendTag(inner, headerValue, protowire.BytesType), value)
	option := bytesField(nil, optionHeader, inner)
	option = protowire.AppendTag(option, optionAction, protowire.VarintType)
	option = protowire.AppendVarint(option, uint64(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	return bytesField(dst, field, option)
}

func remove(dst []byte, name string) []byte {
	return bytesField(dst, allowedRemove, []byte(name))
}

// text appends a field of a Struct that holds a string.
func text(dst []byte, key, value string) []byte {
	inner := protowire.AppendTag(nil, valueString, protowire.BytesType)
	return entry(dst, key, protowire.AppendString(inner, value))
}

// entry appends a field of a Struct.
func entry(dst []byte, key string, value []byte) []byte {
	inner := protowire.AppendString(protowire.AppendTag(nil, entryKey, protowire.BytesType), key)
	return bytesField(dst, structFields, bytesField(inner, entryValue, value))
}

func bytesField(dst []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), value)
}
