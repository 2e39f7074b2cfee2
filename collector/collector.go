// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/ingest"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/shared"
	"github.com/writ-dev/writ/collector/store"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

const (
	// streams is how many calls one connection may have in hand.
	streams = 100
	// headerBytes bounds a request's metadata.
	headerBytes = 16 << 10
	// handshake is how long a connection may take to be made, and the least time
	// between a client's keepalive pings.
	handshake = 10 * time.Second
	// idle is how long a connection without calls is kept.
	idle = 15 * time.Minute
	// silence is after how long without a word a connection is asked whether it lives.
	silence = time.Minute
	// drainTime bounds the end of calls that are in hand when the collector stops.
	drainTime = 5 * time.Second
	// readyTime bounds the look into the store that readiness takes.
	readyTime = 2 * time.Second
)

// Options configures a [Collector].
type Options struct {
	// Config says where the store is and which agents are known. Its listener, TLS and
	// admin address are its caller's to open. It MUST be set.
	Config *writv1.CollectorConfig
	// Credentials are those of connections. It MUST be set.
	Credentials credentials.TransportCredentials
	// Identify returns the SPIFFE ID of a verified connection, "" where it proves none.
	// Without it nobody reads over TLS.
	Identify func(tls.ConnectionState) (string, error)
	// Registry takes the metrics. It MUST be set.
	Registry prometheus.Registerer
	// Clock tells the time. It MUST be set.
	Clock func() time.Time
	// Log is the collector's own log. It MUST be set.
	Log *slog.Logger
}

// Collector takes, keeps and shows records. Its methods may be called by several
// goroutines.
type Collector struct {
	store *store.Store
	// stopping ends when the collector stops, and stop ends it.
	stopping context.Context
	stop     context.CancelFunc
	grpc     *grpc.Server
	health   *health.Server
	intake   *ingest.Server
	vkey     string
}

// New opens the store and the key, or makes them, and takes nothing yet.
func New(ctx context.Context, o Options) (*Collector, error) {
	kept, err := store.Open(ctx, o.Config.GetDataDir(), store.Options{Clock: o.Clock})
	if err != nil {
		return nil, err
	}
	c := &Collector{store: kept, health: health.NewServer()}
	c.stopping, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.open(ctx, o); err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return c, nil
}

func (c *Collector) open(ctx context.Context, o Options) error {
	signer, vkey, err := openKey(o.Config.GetDataDir())
	if err != nil {
		return err
	}
	keys, err := ingest.NewKeys(o.Config.GetAgents(), o.Config.GetAgentsFile(), o.Clock, o.Log)
	if err != nil {
		return err
	}
	access := query.NewAccess(o.Config.GetReaders(), o.Identify)
	c.vkey = vkey
	c.grpc = grpc.NewServer(
		grpc.Creds(o.Credentials),
		grpc.MaxRecvMsgSize(ingest.MaxMessageBytes),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: silence}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: handshake, PermitWithoutStream: true}),
		grpc.ChainStreamInterceptor(c.endStreams),
	)
	stops, err := c.stops(ctx, o)
	if err != nil {
		return err
	}
	slices, err := shared.NewLeases(ctx, shared.LeaseOptions{Store: c.store, Clock: o.Clock, Log: o.Log})
	if err != nil {
		return err
	}
	c.intake = ingest.New(ingest.Options{
		Store: c.store, Keys: keys, Signer: signer, Orders: stops, Leases: slices, Metrics: ingest.NewMetrics(o.Registry), Log: o.Log,
	})
	writv1.RegisterLedgerServiceServer(c.grpc, c.intake)
	writv1.RegisterStopServiceServer(c.grpc, stops)
	writv1.RegisterRecordServiceServer(c.grpc, query.NewServer(query.Options{Store: c.store, Access: access, Log: o.Log}))
	healthpb.RegisterHealthServer(c.grpc, c.health)
	reflection.Register(c.grpc)
	return nil
}

// stops opens what operators have stopped.
func (c *Collector) stops(ctx context.Context, o Options) (*shared.Stops, error) {
	var operators approvals.Operators
	for i, operator := range o.Config.GetOperators() {
		user, key, err := approvals.ParsePublicKey(operator.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("operators[%d].public_key: %w", i, err)
		}
		operators = append(operators, approvals.Operator{User: user, Tenant: operator.GetTenant(), AllTenants: operator.GetAllTenants(), PublicKey: key})
	}
	return shared.NewStops(ctx, shared.StopOptions{
		Store: c.store, Operators: operators, Connected: func() int { return c.intake.Connected() }, Clock: o.Clock, Log: o.Log,
	})
}

// VerifierKey is the key that acknowledgements are signed with, in the vkey form of C2SP
// signed-note.
func (c *Collector) VerifierKey() string { return c.vkey }

// Serve takes connections until ctx ends; calls in hand then have a few seconds.
func (c *Collector) Serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- c.grpc.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	c.health.Shutdown()
	c.stop()
	hard := time.AfterFunc(drainTime, c.grpc.Stop)
	defer hard.Stop()
	c.grpc.GracefulStop()
	<-served
	return nil
}

// endStreams ends agents' streams and watches when the collector stops: by themselves
// they end only when the other side goes.
func (c *Collector) endStreams(srv any, in grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(in.Context())
	defer cancel(nil)
	defer context.AfterFunc(c.stopping, func() { cancel(errStopping) })()
	return handler(srv, &endingStream{ServerStream: in, ctx: ctx})
}

var errStopping = status.Error(codes.Unavailable, "the collector is stopping")

// endingStream is a stream with a context that ends when the collector stops.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context that ends when the collector stops.
func (s *endingStream) Context() context.Context { return s.ctx }

// Ready is nil while records can be taken and read.
func (c *Collector) Ready() error {
	if c.stopping.Err() != nil {
		return errors.New("the collector is stopping")
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	if _, err := c.store.Ledgers(ctx); err != nil {
		return fmt.Errorf("the store cannot be read: %w", err)
	}
	return nil
}

// Close gives the store free. Serve MUST have returned.
func (c *Collector) Close() error { return c.store.Close() }
