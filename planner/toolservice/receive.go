// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"context"
	"errors"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/trace"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const (
	// messageDepth is more than any request message nests.
	messageDepth = 16
	// maxToolName is the longest name that a call may give a tool.
	maxToolName = 128
)

// proposal is a request that proposes a call.
type proposal interface {
	proto.Message
	GetEnvelope() *writv1.Envelope
	GetIdempotencyKey() string
}

// admit hands the call to the agent: whole where it could be read and its caller
// verified, and with the refusal where not.
func (s *Server) admit(in *incoming, surface writv1.Surface, read func(*agent.Request) *reasons.Error) *agent.Admission {
	in.surface = surface
	request := &agent.Request{Surface: surface, Input: in.data, TraceParent: traceParent(in.ctx), SessionToken: sessionToken(in.ctx)}
	malformed := read(request)
	in.tool = request.Envelope.GetToolCall().GetName()
	principal, refusal := s.identify(in.ctx)
	switch {
	case refusal == nil:
		request.Principal, request.Refusal = principal, malformed
	case refusal.Reason == writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED && refusal.Err == nil:
		// Nobody: Decide says so itself, as it does of every face.
		request.Refusal = malformed
	default:
		request.Refusal = refusal
	}
	in.admission = s.agent.Admit(in.ctx, request)
	return in.admission
}

func (s *Server) identify(ctx context.Context) (*writv1.Principal, *reasons.Error) {
	var connection credentials.AuthInfo
	if p, ok := peer.FromContext(ctx); ok {
		connection = p.AuthInfo
	}
	return s.identity.Principal(connection, metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// read decodes and checks a request message. What breaks a rule of its own is not
// looked at further; the arguments are read by the agent, against their schema.
func (s *Server) read(data []byte, into proto.Message) *reasons.Error {
	if len(data) > s.limit {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the request has more than %d bytes", s.limit)
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: messageDepth}).Unmarshal(data, into); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_DECODE_MALFORMED, "", "the request is not a valid %s", into.ProtoReflect().Descriptor().Name())
	}
	if err := s.validator.Validate(into); err != nil {
		return invalid(err)
	}
	return nil
}

func invalid(err error) *reasons.Error {
	var violations *protovalidate.ValidationError
	if !errors.As(err, &violations) || len(violations.Violations) == 0 {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to check the request")
	}
	first := violations.Violations[0].Proto
	return reasons.New(writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, protovalidate.FieldPathString(first.GetField()), "%s", first.GetMessage())
}

// readProposal fills the agent's request from a request that proposes a call.
func (s *Server) readProposal(in *incoming, into proposal, request *agent.Request) *reasons.Error {
	return s.take(request, into, s.read(in.data, into))
}

// take fills the agent's request from a proposal that was read, or not. One that
// breaks a rule leaves only the tool's name, so that its record stays small.
func (s *Server) take(request *agent.Request, from proposal, refusal *reasons.Error) *reasons.Error {
	if refusal == nil {
		refusal = checkProposal(from)
	}
	if refusal != nil {
		if name := from.GetEnvelope().GetToolCall().GetName(); name != "" && len(name) <= maxToolName {
			request.Envelope = &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: name}}
		}
		return refusal
	}
	request.Envelope = from.GetEnvelope()
	request.IdempotencyKey = from.GetIdempotencyKey()
	request.Arguments = tools.Arguments{JSON: arguments(from.GetEnvelope().GetToolCall())}
	request.Input = request.Arguments.JSON
	return nil
}

// arguments returns the text of the arguments. A call that has none has an empty
// object; one whose arguments are an empty text has malformed ones.
func arguments(call *writv1.ToolCall) []byte {
	if call.GetArgs() == nil {
		return []byte("{}")
	}
	return call.GetArgs().GetText()
}

// checkProposal refuses what the rules of the message cannot say.
func checkProposal(p proposal) *reasons.Error {
	if strings.ContainsFunc(p.GetIdempotencyKey(), func(r rune) bool { return r < '!' || r > '~' }) {
		return reasons.New(writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "idempotency_key", "must be visible ASCII")
	}
	if hasUnknown(p) {
		return reasons.New(writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "", "the request has a field that this agent does not know")
	}
	return nil
}

// hasUnknown reports whether a proposal has fields that are not known: what they
// ask for could not be heeded.
func hasUnknown(p proposal) bool {
	envelope := p.GetEnvelope()
	call, retrieval := envelope.GetToolCall(), envelope.GetRetrieval()
	parts := []proto.Message{p, envelope, call, call.GetArgs(), retrieval}
	for _, document := range retrieval.GetDocuments() {
		parts = append(parts, document, document.GetRetrieveTime())
	}
	for _, part := range parts {
		if len(part.ProtoReflect().GetUnknown()) > 0 {
			return true
		}
	}
	return false
}

// sessionMetadata is the metadata, and the header on Envoy's faces, with the token of
// the caller's session.
const sessionMetadata = "x-writ-session"

// sessionToken returns the token of the caller's session; of several none counts.
func sessionToken(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, sessionMetadata)
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// traceParent returns the request's W3C traceparent; of several none counts.
func traceParent(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if len(values) != 1 {
		return ""
	}
	return trace.Parse(values[0])
}
