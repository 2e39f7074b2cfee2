// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// description is writ.v1.ToolService as this package serves it. It is written out
// because generated handlers decode a request before anybody is asked, and a
// request that does not decode would be refused without a record.
var description = grpc.ServiceDesc{
	ServiceName: writv1.ToolService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "ListTools", Handler: unary((*Server).listTools)},
		{MethodName: "Authorize", Handler: unary((*Server).authorize)},
		{MethodName: "Execute", Handler: unary((*Server).execute)},
		{MethodName: "BeginSession", Handler: unary((*Server).beginSession)},
		{MethodName: "EndSession", Handler: unary((*Server).endSession)},
		{MethodName: "Observe", Handler: unary((*Server).observe)},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "ExecuteStream", Handler: serveExecuteStream, ServerStreams: true},
	},
	Metadata: writv1.ToolService_ServiceDesc.Metadata,
}

// incoming is a request on its way through the face.
type incoming struct {
	ctx context.Context
	// data is the request message as it came.
	data []byte
	// surface is what the request asks for; unspecified when it proposes no call.
	surface writv1.Surface
	// tool is what the call names, as far as that could be read.
	tool string
	// admission is what became of it, once it is admitted.
	admission *agent.Admission
}

// unary returns the frame around a method: it hands on the bytes as they came.
func unary[R proto.Message](method func(*Server, *incoming) (R, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request message
		if err := decode(&request); err != nil {
			return nil, err
		}
		s, ok := srv.(*Server)
		if !ok {
			return nil, fmt.Errorf("served by a %T", srv)
		}
		in := &incoming{ctx: ctx, data: request.data}
		var response R
		err := s.guard(in, func() (err error) {
			response, err = method(s, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		return response, nil
	}
}

func serveExecuteStream(srv any, stream grpc.ServerStream) error {
	var request message
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	s, ok := srv.(*Server)
	if !ok {
		return fmt.Errorf("served by a %T", srv)
	}
	in := &incoming{ctx: stream.Context(), data: request.data}
	return s.guard(in, func() error { return s.executeStream(in, stream) })
}

// guard turns a panic into a refusal, so that it costs one call. A call that was
// not admitted yet is recorded as refused; one that was is finished as unknown.
func (s *Server) guard(in *incoming, method func() error) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		s.log.ErrorContext(in.ctx, "handling a planner's request panicked", "stack", string(debug.Stack()))
		refusal := reasons.Wrap(agent.Panicked(cause),
			writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it handled the call")
		err = s.abandon(in, refusal)
	}()
	return method()
}

// abandon ends a call whose handling failed.
func (s *Server) abandon(in *incoming, refusal *reasons.Error) error {
	switch {
	case in.surface == writv1.Surface_SURFACE_UNSPECIFIED:
		return refused(refusal, details{})
	case in.admission == nil:
		in.admission = s.agent.Admit(in.ctx, &agent.Request{Surface: in.surface, Refusal: refusal, Input: in.data})
		return refused(refusal, in.details())
	}
	err := in.admission.Finish(agent.Outcome{
		State:   writv1.OutcomeState_OUTCOME_STATE_UNKNOWN,
		Reason:  refusal.Reason,
		Message: refusal.Message,
	})
	if err != nil && !errors.Is(err, agent.ErrFinished) {
		s.log.ErrorContext(in.ctx, "the outcome of a failed call was not recorded", "decision_id", in.admission.ID(), "error", err)
	}
	return refused(refusal, in.details())
}

// message is a request message that is not decoded yet.
type message struct{ data []byte }

// codec is gRPC's protobuf codec, but for requests that are taken as they come.
type codec struct{}

// Marshal encodes a message as protobuf.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2(protocodec.Name).Marshal(v)
}

// Unmarshal copies the bytes of a [message] and decodes everything else.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*message); ok {
		m.data = data.Materialize()
		return nil
	}
	return encoding.GetCodecV2(protocodec.Name).Unmarshal(data, v)
}

// Name is protobuf's, since that is what is on the wire.
func (codec) Name() string { return protocodec.Name }
