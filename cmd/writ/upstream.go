// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/leases"
	"github.com/writ-dev/writ/state/stops"
)

// comeBack bounds the time between two tries to reach the collector, of the connection
// and of the sender on it. Calls that wait for the collector are denied until both have
// found it: gRPC's own bound of two minutes would go on denying that long after it is back.
const comeBack = 2 * time.Second

// ordersInHand is how many orders of operators wait for the agent. Those beyond are passed
// over, and come again with the next connection.
const ordersInHand = 2 * stops.MaxHeld

// upstream takes the agent's ledger to its collector.
type upstream struct {
	sender *stream.Sender
	// orders are those that the collector brings.
	orders chan *writv1.StopOrder
	// grants are the slices of shared budgets that it gives.
	grants chan *writv1.LeaseGrant
	conn   *grpc.ClientConn
	stop   context.CancelFunc
	done   chan struct{}
}

// openUpstream begins to send the ledger, if a collector is configured. It begins
// before the agent does: a call may not be answered before its record is upstream.
func (p *parts) openUpstream(ctx context.Context) error {
	config := p.config.GetCollector()
	if config == nil {
		return nil
	}
	key, err := readVerifier(config.GetPublicKeyFile())
	if err != nil {
		return fmt.Errorf("collector.public_key_file: %w", err)
	}
	conn, err := dialCollector(config.GetAddress(), config.GetTls())
	if err != nil {
		return err
	}
	up := &upstream{conn: conn, done: make(chan struct{}), orders: make(chan *writv1.StopOrder, ordersInHand), grants: make(chan *writv1.LeaseGrant, grantsInHand)}
	up.sender = stream.NewSender(stream.SenderOptions{
		Ledger: p.ledger, Client: writv1.NewLedgerServiceClient(conn), Collector: key, MaxBackoff: comeBack,
		OnError: func(err error) {
			p.log.Warn("the collector does not take the ledger; it is kept here", "error", err)
		},
		OnOrder: func(order *writv1.StopOrder) {
			select {
			case up.orders <- order:
			default:
				p.log.Error("too many orders of operators wait; one is passed over until the collector is connected again")
			}
		},
		OnGrant: func(grant *writv1.LeaseGrant) {
			if !leases.Verify(key, p.ledger.Origin(), grant) {
				p.log.Error("a slice of a budget is not taken: the collector's key did not sign it")
				return
			}
			select {
			case up.grants <- grant:
			default: // it is asked for again
			}
		},
	})
	p.upstream = up
	p.observeUpstream()
	ctx, up.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(up.done)
		if err := up.sender.Run(ctx); err != nil {
			p.log.Error("the ledger is not sent any more; calls that need the collector are denied until the agent starts again", "error", err)
		}
	}()
	return nil
}

// grantsInHand is how many slices of shared budgets wait for the agent.
const grantsInHand = 1024

// receive gives the agent the slices that the collector gives, until ctx is done.
func (u *upstream) receive(ctx context.Context, p *parts) {
	for {
		select {
		case <-ctx.Done():
			return
		case grant := <-u.grants:
			if refusal := p.agent.TakeGrant(ctx, grant); refusal != nil {
				p.log.WarnContext(ctx, "a slice of a budget is not taken", "budget", grant.GetBudget(), "error", refusal)
			}
		}
	}
}

// obey gives the agent the orders that the collector brings, until ctx is done.
func (u *upstream) obey(ctx context.Context, p *parts) {
	for {
		select {
		case <-ctx.Done():
			return
		case order := <-u.orders:
			if _, refusal := p.agent.OrderStop(ctx, order); refusal != nil {
				p.log.WarnContext(ctx, "an order that the collector brought is not taken", "operator", order.GetOperator(), "error", refusal)
			}
		}
	}
}

// warnOfLess says which tools with effects ask for less than the collector's word.
func (p *parts) warnOfLess(bundle *policy.Bundle) {
	if p.upstream == nil {
		return
	}
	for _, tool := range bundle.Tools() {
		asked := tool.Options.GetDurability()
		if tool.Options.GetEffect() == writv1.ToolEffect_TOOL_EFFECT_WRITE &&
			asked != writv1.Durability_DURABILITY_UNSPECIFIED && asked < writv1.Durability_DURABILITY_REMOTE {
			p.log.Warn("a tool with effects does not wait for the collector: its decisions can be lost with the volume",
				"tool", tool.Name, "durability", asked.String())
		}
	}
}

// close ends the stream. What is not acknowledged is sent after the next start.
func (u *upstream) close() error {
	u.stop()
	<-u.done
	return u.conn.Close()
}

func (p *parts) observeUpstream() {
	p.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "writ_collector_connected",
			Help: "Whether the collector has welcomed this agent's ledger.",
		}, func() float64 {
			if connected, _ := p.upstream.sender.Connected(); connected {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "writ_collector_lag_records",
			Help: "Records of the ledger that the collector has not acknowledged.",
		}, func() float64 {
			status := p.ledger.Status()
			return float64(status.Size - min(status.Size, status.Acknowledged))
		}),
	)
}

// observeLedger shows the ledger's room.
func (p *parts) observeLedger() {
	gauge := func(name, help string, value func(ledger.Status) float64) {
		p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			return value(p.ledger.Status())
		}))
	}
	gauge("writ_ledger_records", "Records in the ledger.", func(s ledger.Status) float64 { return float64(s.Size) })
	gauge("writ_ledger_bytes", "Bytes of the ledger's segments.", func(s ledger.Status) float64 { return float64(s.Bytes) })
	gauge("writ_ledger_max_bytes", "Bytes that the ledger's segments may take; at that the agent denies.", func(s ledger.Status) float64 { return float64(s.MaxBytes) })
	gauge("writ_ledger_available", "Whether the ledger can be written; while it cannot, the agent denies.", func(s ledger.Status) float64 {
		if s.Err != nil {
			return 0
		}
		return 1
	})
}

// dialCollector connects to a collector.
func dialCollector(address string, config *writv1.ClientTls) (*grpc.ClientConn, error) {
	return dial("collector", address, config)
}

// dial connects to a collector or an agent: plainly on this machine, and over TLS.
func dial(what, address string, config *writv1.ClientTls) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	switch {
	case config != nil:
		tls, err := clientTLS(config)
		if err != nil {
			return nil, fmt.Errorf("%s.tls: %w", what, err)
		}
		transport = credentials.NewTLS(tls)
	case !local(address):
		return nil, hinted(fmt.Errorf("the %s %s is across the network, and TLS is not configured", what, address), "give the TLS files, or use a unix socket or loopback")
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: comeBack},
		MinConnectTimeout: 5 * time.Second,
	}))
	if err != nil {
		return nil, fmt.Errorf("connect to the %s: %w", what, err)
	}
	return conn, nil
}

// tlsFlags are the flags of a client's TLS.
type tlsFlags struct{ authorities, certificate, key string }

func (t *tlsFlags) add(flags *pflag.FlagSet, server string) {
	flags.StringVar(&t.authorities, "tls-ca", "", "file of the certificates that the "+server+"'s must chain to, PEM")
	flags.StringVar(&t.certificate, "tls-cert", "", "file of the certificate to present, PEM")
	flags.StringVar(&t.key, "tls-key", "", "file of its private key, PEM")
}

// config is nil where no flag is given: then there is no TLS.
func (t *tlsFlags) config() *writv1.ClientTls {
	if *t == (tlsFlags{}) {
		return nil
	}
	return &writv1.ClientTls{ServerCaFile: t.authorities, CertificateFile: t.certificate, KeyFile: t.key}
}

// clientTLS reads the certificate at each handshake, so that a renewed one is used;
// the server's authorities are read once.
func clientTLS(config *writv1.ClientTls) (*tls.Config, error) {
	authorities, err := os.ReadFile(config.GetServerCaFile())
	if err != nil {
		return nil, fmt.Errorf("read server_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("server_ca_file %s holds no certificate in PEM form", config.GetServerCaFile())
	}
	out := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: config.GetServerName()}
	certificate, key := config.GetCertificateFile(), config.GetKeyFile()
	if (certificate == "") != (key == "") {
		return nil, errors.New("certificate_file and key_file go together")
	}
	if certificate == "" {
		return out, nil
	}
	read := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		return &pair, err
	}
	if _, err := read(nil); err != nil {
		return nil, err
	}
	out.GetClientCertificate = read
	return out, nil
}
