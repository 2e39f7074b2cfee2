// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// defaultBody is AgentLimits.body_bytes when it is not set.
	defaultBody = 1 << 20
	// envelopeBytes is what a message may have beside its arguments. The agent takes
	// far less of an envelope (policy.MaxEnvelopeBytes), and a larger one that is
	// read is refused under the name of its tool.
	envelopeBytes = 256 << 10
	// headerBytes bounds a request's metadata: a token of 16 KiB, and the rest.
	headerBytes = 32 << 10
	// streams is how many calls one connection may have in hand; a client waits
	// with more.
	streams = 1000
	// handshake is how long a connection may take to be made.
	handshake = 10 * time.Second
	// idle is how long a connection without calls is kept.
	idle = 15 * time.Minute
)

// Identifier finds out who calls.
type Identifier interface {
	// Principal returns who the connection and the request's authorization headers
	// prove the caller to be.
	Principal(connection credentials.AuthInfo, authorization []string) (*writv1.Principal, *reasons.Error)
}

// Options configures a [Server].
type Options struct {
	// Agent decides and runs. It MUST be set.
	Agent *agent.Agent
	// Identity finds out who calls. It MUST be set.
	Identity Identifier
	// Credentials are those of the connections. It MUST be set: mutual TLS, or
	// credentials that read the peer of a unix socket.
	Credentials credentials.TransportCredentials
	// BodyBytes is the limit on arguments, AgentLimits.body_bytes. Default: 1 MiB.
	BodyBytes int
	// Log hears of what goes wrong inside. Nil is silent.
	Log *slog.Logger
}

// Server serves writ.v1.ToolService, WorkflowService, ApprovalService,
// ReviewService, BudgetService and StopService. It is safe for use by several goroutines; nothing in it changes after
// NewServer but what grpc and health guard.
type Server struct {
	agent     *agent.Agent
	identity  Identifier
	validator protovalidate.Validator
	log       *slog.Logger
	limit     int // bytes of a request message

	grpc     *grpc.Server
	health   *health.Server
	draining context.Context // done when Drain was called
	drain    context.CancelFunc
}

// NewServer returns a server that reports NOT_SERVING until [Server.Serving].
func NewServer(o Options) (*Server, error) {
	validator, err := protovalidate.New(protovalidate.WithMessages(
		&writv1.ListToolsRequest{}, &writv1.AuthorizeRequest{}, &writv1.ExecuteRequest{}, &writv1.ExecuteStreamRequest{},
		&writv1.BeginSessionRequest{}, &writv1.EndSessionRequest{}, &writv1.ObserveRequest{},
		&writv1.BeginWorkflowRequest{}, &writv1.EndWorkflowRequest{}, &writv1.GetWorkflowReportRequest{},
		&writv1.ListApprovalsRequest{}, &writv1.GetApprovalRequest{}, &writv1.WatchApprovalsRequest{}, &writv1.VoteRequest{}, &writv1.ApproverCredential{},
		&writv1.LabelCallRequest{}, &writv1.ListBalancesRequest{}, &writv1.OrderStopRequest{}, &writv1.ListStopsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("compile the rules of requests: %w", err)
	}
	if o.BodyBytes == 0 {
		o.BodyBytes = defaultBody
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		agent:     o.Agent,
		identity:  o.Identity,
		validator: validator,
		log:       o.Log,
		limit:     o.BodyBytes + envelopeBytes,
		health:    health.NewServer(),
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(s.options(o.Credentials)...)
	s.grpc.RegisterService(&description, s)
	s.grpc.RegisterService(&workflows, s)
	s.grpc.RegisterService(&approvals, s)
	s.grpc.RegisterService(&reviews, s)
	s.grpc.RegisterService(&budgets, s)
	s.grpc.RegisterService(&stops, s)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.NotServing()
	return s, nil
}

func (s *Server) options(c credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(c),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(2 * s.limit),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: handshake, PermitWithoutStream: true}),
		grpc.ChainStreamInterceptor(s.endWatches),
	}
}

// Serve takes connections until [Server.Drain], which makes it return nil.
func (s *Server) Serve(listener net.Listener) error {
	if err := s.grpc.Serve(listener); err != nil {
		return fmt.Errorf("serve planners: %w", err)
	}
	return nil
}

// Serving reports SERVING from now on.
func (s *Server) Serving() { s.report(healthpb.HealthCheckResponse_SERVING) }

// NotServing reports NOT_SERVING from now on. Calls are still taken.
func (s *Server) NotServing() { s.report(healthpb.HealthCheckResponse_NOT_SERVING) }

func (s *Server) report(status healthpb.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(description.ServiceName, status)
	s.health.SetServingStatus(workflows.ServiceName, status)
	s.health.SetServingStatus(approvals.ServiceName, status)
	s.health.SetServingStatus(reviews.ServiceName, status)
	s.health.SetServingStatus(budgets.ServiceName, status)
	s.health.SetServingStatus(stops.ServiceName, status)
}

// Drain takes no more calls and waits for those in hand. When ctx is done first
// it cuts their connections and returns ctx's error; a tool that runs then is
// still not stopped (docs/decisions/0004).
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	s.drain()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop() // not <-done: that waits for the tools, too
		return fmt.Errorf("drain planners' calls: %w", ctx.Err())
	}
}

// endWatches ends the health watches of clients when the server drains. They end
// by themselves only when the client goes, and would hold up every drain.
func (s *Server) endWatches(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod != healthpb.Health_Watch_FullMethodName {
		return handler(srv, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	return handler(srv, &watch{ServerStream: stream, ctx: ctx})
}

// watch is a stream with a context that ends when the server drains.
type watch struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context that ends when the server drains.
func (w *watch) Context() context.Context { return w.ctx }
