// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy"
	"github.com/writ-dev/writ/planner/identity"
	"github.com/writ-dev/writ/planner/toolservice"
	"github.com/writ-dev/writ/planner/webhook"
)

// drainTime bounds the end of calls that are in hand when the agent stops.
const drainTime = 10 * time.Second

// serve serves every listener until ctx is done.
func (p *parts) serve(ctx context.Context) error {
	face, err := envoy.New(envoy.Options{
		Agent: p.agent, Identity: p.config.GetIdentity(), Limits: p.config.GetLimits(), Clock: time.Now, Log: p.log,
	})
	if err != nil {
		return err
	}
	filters := health.NewServer()
	grpc_health_v1.RegisterHealthServer(face.GRPC(), filters)
	group, ctx := errgroup.WithContext(ctx)
	listener, err := listen(ctx, p.config.GetListeners().GetEnvoy())
	if err != nil {
		return err
	}
	group.Go(func() error { return face.GRPC().Serve(listener) })
	// Calls that were let through end after the filters have stopped.
	tending, tended := context.WithCancel(context.WithoutCancel(ctx))
	defer tended()
	group.Go(func() error { face.Tend(tending); return nil })
	p.goOn(ctx, group)
	planners, err := p.servePlanners(ctx, group)
	if err != nil {
		face.GRPC().Stop()
		return err
	}
	if err := serveAdmin(ctx, group, p.config.GetListeners().GetAdmin(), p.registry, p.notReady); err != nil {
		face.GRPC().Stop()
		return err
	}
	p.log.InfoContext(ctx, "serving", "ledger", p.ledger.Origin(), "bundle", p.agent.Bundle().Name())
	group.Go(func() error {
		<-ctx.Done()
		p.draining.Store(true)
		filters.Shutdown()
		planners.NotServing()
		time.Sleep(p.config.GetDrainDelay().AsDuration())
		p.agent.Drain()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		face.Stop(stopping)
		tended()
		return planners.Drain(stopping)
	})
	return group.Wait()
}

// goOn runs what goes on beside the listeners, until ctx is done.
func (p *parts) goOn(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { p.tend(ctx); return nil })
	group.Go(func() error { every(ctx, compactEvery, func() { p.compact(ctx) }); return nil })
	group.Go(func() error { p.reload(ctx); return nil })
	if p.sealing != nil {
		group.Go(func() error { every(ctx, originalsEvery, func() { p.tendOriginals(ctx) }); return nil })
	}
	for _, sender := range []*webhook.Sender{p.alerts, p.asks} {
		if sender == nil {
			continue
		}
		group.Go(func() error { sender.Run(ctx); return nil })
	}
	if p.upstream != nil {
		group.Go(func() error { p.upstream.obey(ctx, p); return nil })
		group.Go(func() error { p.upstream.receive(ctx, p); return nil })
		group.Go(func() error { p.agent.KeepLeases(ctx); return nil })
	}
	if p.watcher != nil {
		group.Go(func() error { p.watcher.Run(ctx); return nil })
	}
}

func (p *parts) tend(ctx context.Context) {
	intervals := agent.Intervals{Heartbeat: 10 * time.Second, Sweep: 5 * time.Second, Dropped: 2 * time.Minute}
	if beat := p.config.GetLedger().GetHeartbeat(); beat != nil {
		intervals.Heartbeat = beat.AsDuration()
	}
	p.agent.Tend(ctx, intervals)
}

// every calls f at intervals until ctx is done.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// compactEvery is the time between looks whether the ledger can be made shorter.
const compactEvery = 10 * time.Second

func (p *parts) compact(ctx context.Context) {
	segments, err := p.agent.Compact(ctx)
	if err != nil && ctx.Err() == nil {
		p.log.ErrorContext(ctx, "the ledger was not made shorter", "error", err)
	}
	if segments > 0 {
		p.log.InfoContext(ctx, "the collector has these records, and the snapshot their effect: pruned", "segments", segments)
	}
}

// planners is the part of the planners' server that serve needs.
type planners interface {
	NotServing()
	Drain(ctx context.Context) error
}

// noPlanners stands for a planners' listener that is not configured.
type noPlanners struct{}

func (noPlanners) NotServing()                 {}
func (noPlanners) Drain(context.Context) error { return nil }

func (p *parts) servePlanners(ctx context.Context, group *errgroup.Group) (planners, error) {
	address := p.config.GetListeners().GetPlanner()
	if address == "" {
		return noPlanners{}, nil
	}
	verifier, err := identity.New(identity.Options{Config: p.config.GetIdentity(), Clock: time.Now, Log: p.log})
	if err != nil {
		return nil, err
	}
	credentials := identity.PeerCredentials()
	if tls := p.config.GetListeners().GetPlannerTls(); tls != nil {
		if credentials, err = identity.MutualTLS(tls, time.Now, p.log); err != nil {
			return nil, err
		}
	} else if !local(address) {
		return nil, hinted(fmt.Errorf("listeners.planner %s is open to the network and has no TLS", address), "set listeners.planner_tls, or listen on a unix socket or loopback")
	}
	server, err := toolservice.NewServer(toolservice.Options{
		Agent: p.agent, Identity: verifier, Credentials: credentials,
		BodyBytes: int(p.config.GetLimits().GetBodyBytes()), Log: p.log,
	})
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, address)
	if err != nil {
		return nil, err
	}
	group.Go(func() error { return server.Serve(listener) })
	server.Serving()
	return server, nil
}

// serveAdmin serves /livez, /readyz and /metrics on the address, if there is one, until
// ctx is done.
func serveAdmin(ctx context.Context, group *errgroup.Group, address string, metrics prometheus.Gatherer, check func() error) error {
	if address == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", ready(func() error { return nil }))
	mux.HandleFunc("GET /readyz", ready(check))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return serveHTTP(ctx, group, address, mux)
}

// Bounds of what is served over HTTP.
const (
	httpConnections = 256
	httpHeaderBytes = 16 << 10
	httpReadTime    = 5 * time.Second
	httpWriteTime   = 30 * time.Second
	httpIdleTime    = 2 * time.Minute
)

// serveHTTP serves on the address until ctx is done.
func serveHTTP(ctx context.Context, group *errgroup.Group, address string, handler http.Handler) error {
	listener, err := listen(ctx, address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: httpReadTime, ReadTimeout: httpReadTime, WriteTimeout: httpWriteTime,
		IdleTimeout: httpIdleTime, MaxHeaderBytes: httpHeaderBytes,
	}
	group.Go(func() error {
		if err := server.Serve(netutil.LimitListener(listener, httpConnections)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", address, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return nil
}

// listen opens "unix:/path" or "host:port". A socket that a dead process left is
// removed; one that answers is not.
func listen(ctx context.Context, address string) (net.Listener, error) {
	network, where := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, where = "unix", path
		if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, where); err == nil {
			conn.Close()
			return nil, fmt.Errorf("listen on %s: another process does", address)
		}
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove a socket that was left: %w", err)
			}
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, network, where)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}

// local says whether only this machine reaches the address.
func local(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
