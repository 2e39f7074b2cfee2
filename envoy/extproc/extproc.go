// SPDX-License-Identifier: Apache-2.0

// Package extproc is the agent as Envoy's external processing: a request of a
// governed route goes on written again from the typed message, and the response
// is checked against the tool's response schema before the caller sees it.
//
//	server := extproc.New(extproc.Options{Desk: desk, Timeout: 5 * time.Second, Log: log})
//	procv3.RegisterExternalProcessorServer(grpcServer, server)
//
// Both bodies are asked for BUFFERED: what is decided on is all there is, and
// nothing has left when it is refused. The package promises that every message
// is answered; that a denial is an immediate response in the caller's protocol
// and never an error of gRPC; that the outcome is recorded before the answer
// leaves; and that a stream keeps the bundle it began with. It does not check
// responses that stream: calls whose answer it cannot hold whole are refused, and
// a response of events (text/event-stream) is held to its end and answered as one
// JSON value.
package extproc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/envoy/resources"
)

// Options is what the server needs.
type Options struct {
	// Desk takes requests to the agent.
	Desk *calls.Desk
	// Timeout is how long one message may take to be answered. It is less than
	// Envoy waits.
	Timeout time.Duration
	// Log is the agent's log.
	Log *slog.Logger
}

// Server is envoy.service.ext_proc.v3.ExternalProcessor.
type Server struct {
	procv3.UnimplementedExternalProcessorServer
	options Options
}

// New returns a server.
func New(options Options) *Server { return &Server{options: options} }

// Process carries one HTTP request through its phases.
func (s *Server) Process(stream procv3.ExternalProcessor_ProcessServer) error {
	x := s.begin(stream.Context())
	defer x.abandon()
	for {
		message, err := stream.Recv()
		if ended(err) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := s.answer(stream.Context(), x, message)
		if err := stream.Send(answer); err != nil {
			return err
		}
		if x.phase == phaseOver {
			return nil
		}
	}
}

// begin starts an exchange. The route names its upstream in the stream's own
// metadata, once.
func (s *Server) begin(ctx context.Context) *exchange {
	x := &exchange{server: s, generation: s.options.Desk.Generation()}
	incoming, _ := metadata.FromIncomingContext(ctx)
	if names := incoming.Get(resources.UpstreamKey); len(names) == 1 {
		x.upstream = names[0]
	}
	return x
}

// ended reports whether a stream is over. Envoy cancels where it might close.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled
}

// answer answers one message in time. A panic costs the call, and not the agent.
func (s *Server) answer(ctx context.Context, x *exchange, message *procv3.ProcessingRequest) (response *procv3.ProcessingResponse) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			s.options.Log.ErrorContext(ctx, "a call was cut off because handling it panicked", "decision_id", x.id(), "error", agent.Panicked(cause))
			response = x.fail()
		}
	}()
	return x.step(ctx, message)
}
