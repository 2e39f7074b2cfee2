// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/findings"
	"github.com/writ-dev/writ/collector/heads"
	"github.com/writ-dev/writ/collector/ingest"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/reads"
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
	// Tell is called with each finding, once. It MUST NOT wait. Nil tells nobody.
	Tell func(store.Finding)
}

// Collector takes, keeps and shows records. Its methods may be called by several
// goroutines.
type Collector struct {
	store *store.Store
	// stopping ends when the collector stops, and stop ends it.
	stopping context.Context
	stop     context.CancelFunc
	findings *findings.Keeper
	reads    *reads.Log
	grpc     *grpc.Server
	health   *health.Server
	intake   *ingest.Server
	vkey     string
	log      *heads.Log
	logVkey  string
}

// New opens the store and the key, or makes them, and takes nothing yet.
func New(ctx context.Context, o Options) (*Collector, error) {
	kept, err := store.Open(ctx, o.Config.GetDataDir(), store.Options{Clock: o.Clock})
	if err != nil {
		return nil, err
	}
	c := &Collector{store: kept, health: health.NewServer()}
	c.stopping, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := errors.Join(c.open(ctx, o), c.openLog(o)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// openLog opens the collector's own log, which Serve then writes.
func (c *Collector) openLog(o Options) (err error) {
	dir, config := filepath.Join(o.Config.GetDataDir(), heads.Dir), o.Config.GetHeadLog()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the log's directory: %w", err)
	}
	key := logKey(dir, config.GetOrigin())
	var signer note.Signer
	if signer, c.logVkey, err = key.open(); err != nil {
		return err
	}
	if origin := config.GetOrigin(); origin != "" && !strings.HasPrefix(signer.Name(), origin+"/") {
		return fmt.Errorf("head_log.origin is %s, and the log in %s is %s: put the origin back, or move the directory away, and a new log begins", origin, dir, signer.Name())
	}
	var policy []byte
	if file := config.GetWitnessPolicyFile(); file != "" {
		if policy, err = heads.ReadPolicy(file); err != nil {
			return fmt.Errorf("head_log.witness_policy_file: %w", err)
		}
	}
	c.log, err = heads.New(heads.Options{
		Dir: filepath.Join(dir, heads.TilesDir), Signer: signer, Source: c.store, Policy: policy,
		Interval: config.GetCheckpointInterval().AsDuration(), Registry: o.Registry, Log: o.Log,
	})
	return err
}

// LogVerifierKey is the key that checkpoints of the collector's own log are signed with.
func (c *Collector) LogVerifierKey() string { return c.logVkey }

// HeadLog serves the collector's own log, for reading.
func (c *Collector) HeadLog() http.Handler { return c.log.Handler() }

func (c *Collector) open(ctx context.Context, o Options) error {
	signer, vkey, err := receiptKey(o.Config.GetDataDir()).open()
	if err != nil {
		return err
	}
	keys, err := ingest.NewKeys(o.Config.GetAgents(), o.Config.GetAgentsFile(), o.Clock, o.Log)
	if err != nil {
		return err
	}
	if c.findings, err = findings.New(c.stopping, findings.Options{
		Store: c.store, Known: func(origin string) bool { _, known := keys.Find(origin); return known },
		Silence: o.Config.GetSilence().AsDuration(), Clock: o.Clock, Log: o.Log, Registry: o.Registry, Tell: o.Tell,
	}); err != nil {
		return err
	}
	access := query.NewAccess(o.Config.GetReaders(), o.Identify)
	c.vkey = vkey
	if c.reads, err = reads.Open(reads.Options{
		Dir: filepath.Join(o.Config.GetDataDir(), reads.DirName), Origin: signer.Name() + "/" + reads.DirName, Clock: o.Clock,
	}); err != nil {
		return err
	}
	guard := query.NewGuard(access, c.reads.Add, o.Log)
	c.grpc = grpc.NewServer(
		grpc.Creds(o.Credentials),
		grpc.MaxRecvMsgSize(ingest.MaxMessageBytes),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: silence}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: handshake, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(guard.Unary),
		grpc.ChainStreamInterceptor(c.endStreams, guard.Stream),
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
		Store: c.store, Keys: keys, Findings: c.findings, Signer: signer, Orders: stops, Leases: slices, Metrics: ingest.NewMetrics(o.Registry), Log: o.Log,
	})
	writv1.RegisterLedgerServiceServer(c.grpc, c.intake)
	writv1.RegisterStopServiceServer(c.grpc, stops)
	writv1.RegisterRecordServiceServer(c.grpc, query.NewServer(query.Options{Store: c.store, Access: access, Log: o.Log}))
	writv1.RegisterAgentServiceServer(c.grpc, query.NewAgentServer(query.AgentsFromStore(c.store, query.Hearing{
		Silence: o.Config.GetSilence().AsDuration(), Clock: o.Clock,
	}), access, o.Log))
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

// Serve takes connections until ctx ends; calls in hand then have a few seconds, and so
// has the log, to take up what they stored.
func (c *Collector) Serve(ctx context.Context, listener net.Listener) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.log.Run(writing)
	}()
	err := c.serve(ctx, listener)
	stop()
	<-written
	return err
}

func (c *Collector) serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- c.grpc.Serve(listener) }()
	looked := make(chan struct{})
	go func() { defer close(looked); c.findings.Run(c.stopping) }()
	defer func() { c.stop(); <-looked }()
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

// Close gives the store and the record of reads free. Serve MUST have returned.
func (c *Collector) Close() error {
	var err error
	if c.reads != nil {
		err = c.reads.Close()
	}
	return errors.Join(err, c.store.Close())
}
