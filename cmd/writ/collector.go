// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/collector"
	"github.com/writ-dev/writ/planner/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newCollector() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "collector --config FILE",
		Short: "Run the collector, which verifies and keeps agents' ledgers",
		Long: `Collector takes the ledgers of the agents whose keys it knows, verifies every record
and signed head, stores them, and acknowledges them with its own key. It serves them
to "writ records" until it gets SIGTERM or SIGINT.

At its first start it makes that key in its data directory: agents need
collector.vkey. It knows an agent by its DATA_DIR/ledger/log.vkey.`,
		Args: cobra.NoArgs,
	}
	path := cmd.Flags().StringP("config", "c", "", "the collector's configuration file")
	_ = cmd.MarkFlagRequired("config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := readCollectorConfig(*path)
		if err != nil {
			return err
		}
		return runCollector(cmd.Context(), config, slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil)))
	}
	return cmd
}

// runCollector serves until ctx is done.
func runCollector(ctx context.Context, config *writv1.CollectorConfig, log *slog.Logger) (err error) {
	transport, err := collectorCredentials(config, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	sender, err := openWebhook("finding", config.GetFindingWebhook(), registry, log)
	if err != nil {
		return err
	}
	c, err := collector.New(ctx, collector.Options{
		Config: config, Credentials: transport, Identify: identity.CertificateID, Registry: registry, Clock: time.Now, Log: log,
		Tell: teller(sender, log),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	listener, err := listen(ctx, config.GetListener())
	if err != nil {
		return err
	}
	if err := serveAdmin(ctx, group, config.GetAdmin(), registry, c.Ready); err != nil {
		return errors.Join(err, listener.Close())
	}
	if sender != nil {
		group.Go(func() error { sender.Run(ctx); return nil })
	}
	if err := serveHeadLog(ctx, group, config.GetHeadLog().GetListener(), c.HeadLog()); err != nil {
		return errors.Join(err, listener.Close())
	}
	log.InfoContext(ctx, "serving", "listener", config.GetListener(), "key", c.VerifierKey(), "log_key", c.LogVerifierKey())
	group.Go(func() error { return c.Serve(ctx, listener) })
	return group.Wait()
}

// serveHeadLog serves the collector's own log on the address, if there is one, until ctx is
// done.
func serveHeadLog(ctx context.Context, group *errgroup.Group, address string, handler http.Handler) error {
	if address == "" {
		return nil
	}
	if !local(address) {
		return hinted(fmt.Errorf("head_log.listener %s is open to the network", address), "listen on a unix socket or loopback, behind a proxy that says who reads")
	}
	return serveHTTP(ctx, group, address, handler)
}

// collectorCredentials are those of the collector's listener. One that others can listen
// in on needs TLS.
func collectorCredentials(config *writv1.CollectorConfig, log *slog.Logger) (credentials.TransportCredentials, error) {
	switch {
	case config.GetTls() != nil:
		return identity.MutualTLS(config.GetTls(), time.Now, log)
	case local(config.GetListener()):
		return insecure.NewCredentials(), nil
	default:
		return nil, hinted(fmt.Errorf("listener %s is open to the network and has no TLS", config.GetListener()), "set tls, or listen on a unix socket or loopback")
	}
}
