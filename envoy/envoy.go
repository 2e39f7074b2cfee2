// SPDX-License-Identifier: Apache-2.0

// Package envoy is Envoy's face: one gRPC server with the services that its
// filters and its access log call. It is the room's front door; extauthz, extproc
// and accesslog answer, calls takes what they hold to the agent, identity finds
// out who asks, and resources makes the configuration in which Envoy calls them.
//
//	face, err := envoy.New(envoy.Options{Agent: a, Identity: config.GetIdentity(), ...})
//	go face.Tend(ctx)
//	err = face.GRPC().Serve(listener)
//
// Whoever reaches the listener speaks for Envoy: it MUST be a unix socket or on
// loopback. The package does not listen, and answers no health checks: whoever
// serves it registers what else the server is to have.
package envoy

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/accesslog"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/envoy/extauthz"
	"github.com/writ-dev/writ/envoy/extproc"
	"github.com/writ-dev/writ/envoy/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

const (
	// messageMargin is what a message holds beside a body: headers, metadata, a
	// certificate.
	messageMargin = 1 << 20
	// defaultTimeout is how long one message may take to be answered.
	defaultTimeout = 4 * time.Second
	// sweep is how often calls are looked for whose end Envoy has not told, and
	// patience how long it has for that: longer than the longest route.
	sweep    = 10 * time.Second
	patience = 70 * time.Minute
)

// Options is what the face needs.
type Options struct {
	// Agent decides.
	Agent *agent.Agent
	// Identity says how callers are identified.
	Identity *writv1.IdentityConfig
	// Limits bound bodies.
	Limits *writv1.AgentLimits
	// Timeout is how long one message may take to be answered; it is less than
	// Envoy waits. Default: 4 s.
	Timeout time.Duration
	// Clock tells the time.
	Clock func() time.Time
	// Log is the agent's log.
	Log *slog.Logger
}

// Face is the agent as Envoy sees it.
type Face struct {
	server *grpc.Server
	log    *accesslog.Server
}

// New returns the face. It refuses a configuration that names a caller twice.
func New(options Options) (*Face, error) {
	resolver, err := identity.New(options.Identity)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTimeout
	}
	limits := wire.LimitsOf(options.Limits)
	desk := calls.New(calls.Options{Agent: options.Agent, Identity: resolver, Limits: limits})
	face := &Face{
		server: newServer(limits),
		log:    accesslog.New(accesslog.Options{Clock: options.Clock, Log: options.Log}),
	}
	authz := extauthz.New(extauthz.Options{Desk: desk, Observer: face.log, Timeout: options.Timeout, Log: options.Log})
	authz.Register(face.server)
	procv3.RegisterExternalProcessorServer(face.server, extproc.New(extproc.Options{
		Desk: desk, Timeout: options.Timeout, Log: options.Log,
	}))
	accesslogv3.RegisterAccessLogServiceServer(face.server, face.log)
	return face, nil
}

// streamWorkers are goroutines that outlive their calls: a call that gets one finds
// a stack that has grown already. More calls than that at a time get their own.
const streamWorkers = 64

// Windows of HTTP/2, of a call and of a connection. Fixed ones save the pings by
// which gRPC would find out about the network: beside Envoy there is none.
const (
	streamWindow     = 1 << 20
	connectionWindow = 16 << 20
)

// newServer makes a server that takes whole bodies, and scans checks instead of
// reading all of them.
func newServer(limits wire.Limits) *grpc.Server {
	body := max(limits.Request.Bytes, limits.Response.Bytes)
	return grpc.NewServer(
		grpc.ForceServerCodecV2(extauthz.Codec()),
		grpc.MaxRecvMsgSize(2*body+messageMargin),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
	)
}

// GRPC returns the server, to be served and stopped.
func (f *Face) GRPC() *grpc.Server { return f.server }

// Stop lets calls in hand end until ctx is done, then cuts them off. The stream of
// the access log is waited for until it has told how all calls ended that were let
// through, so that ctx MUST have a deadline, and Tend SHOULD go on meanwhile.
func (f *Face) Stop(ctx context.Context) {
	f.log.Drain()
	stopped := make(chan struct{})
	go func() {
		f.server.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		f.server.Stop()
		<-stopped
	}
}

// Tend finishes calls whose end Envoy does not tell, until ctx is done.
func (f *Face) Tend(ctx context.Context) {
	f.log.Tend(ctx, accesslog.Intervals{Sweep: sweep, Patience: patience})
}
