// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"buf.build/go/protoyaml"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/envoy/resources"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// readyTimeout bounds how long a stand takes until its first call is answered.
	readyTimeout = 30 * time.Second
	readyPoll    = 50 * time.Millisecond
	// ledgerBytes bounds an agent's ledger: what a long run writes.
	ledgerBytes = 64 << 30
	// upstreamName is the bundle's one upstream.
	upstreamName = "shop"
)

//go:embed testdata/bundle
var bundle embed.FS

// stand is one row's programs: an Envoy, and what stands behind its filter.
type stand struct {
	row
	address string
	envoy   *process
	filter  *process // nil without a filter
}

// places are where a run keeps its files and finds its programs.
type places struct {
	// data is on a disk; sockets has a short name.
	data, sockets string
	writ, envoy   string
	upstream      string
}

// startStand starts a row's programs, and waits until a call comes back.
func startStand(ctx context.Context, at places, r row) (*stand, error) {
	s := &stand{row: r}
	dir := filepath.Join(at.data, r.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	var err error
	if s.address, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	config, catalogue := s.config(at, dir), s.catalogue(at)
	if err := s.startFilter(at, dir, config, catalogue); err != nil {
		return s, err
	}
	if err := s.startEnvoy(at, dir, config, catalogue); err != nil {
		return s, err
	}
	return s, s.ready(ctx)
}

// config is an agent's. The no-op servers get the same, for Envoy's is made from it:
// only the server differs.
func (s *stand) config(at places, dir string) *writv1.AgentConfig {
	return &writv1.AgentConfig{
		DataDir:   filepath.Join(dir, "data"),
		BundleDir: filepath.Join(dir, "bundle"),
		Listeners: &writv1.AgentListeners{Envoy: "unix:" + filepath.Join(at.sockets, s.name)},
		Identity: &writv1.IdentityConfig{TrustedHeaders: &writv1.TrustedHeaders{
			User: userHeader, Roles: roleHeader, Tenant: tenantHeader,
		}},
		Ledger: &writv1.LedgerConfig{
			Origin: "bench/" + s.name, MaxBytes: ledgerBytes, Durability: writv1.Durability_DURABILITY_PROCESS,
		},
		Envoy: &writv1.EnvoyConfig{Listener: s.address, AgentListener: "unix:" + filepath.Join(at.sockets, s.name+".egress")},
	}
}

func (s *stand) catalogue(at places) *writv1.Catalogue {
	upstream := &writv1.Upstream{
		Name: upstreamName, Address: at.upstream, Protocol: writv1.Protocol_PROTOCOL_HTTP_JSON,
		Domains: []string{domain}, Enforcement: s.enforcement,
	}
	if s.token != writv1.DecisionTokenKind_DECISION_TOKEN_KIND_UNSPECIFIED {
		upstream.DecisionToken = &writv1.DecisionToken{Kind: s.token, Audience: upstreamName}
	}
	return &writv1.Catalogue{Upstreams: []*writv1.Upstream{upstream}}
}

// startFilter starts what stands behind Envoy's filter.
func (s *stand) startFilter(at places, dir string, config *writv1.AgentConfig, catalogue *writv1.Catalogue) (err error) {
	switch s.server {
	case noopServer:
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		s.filter, err = start(dir, "noop", self, noopCommand, filepath.Join(at.sockets, s.name))
		return err
	case writServer:
		if err := writeBundle(config.GetBundleDir(), catalogue); err != nil {
			return err
		}
		file := filepath.Join(dir, "agent.yaml")
		if err := writeYAML(file, config); err != nil {
			return err
		}
		s.filter, err = start(dir, "agent", at.writ, "agent", "--config", file)
		return err
	default:
		return nil
	}
}

func (s *stand) startEnvoy(at places, dir string, config *writv1.AgentConfig, catalogue *writv1.Catalogue) error {
	bootstrap, err := resources.Bootstrap(resources.Input{Config: config, Catalogue: catalogue})
	if err != nil {
		return fmt.Errorf("make Envoy's configuration: %w", err)
	}
	if s.server == noServer {
		if err := dropFilters(bootstrap); err != nil {
			return err
		}
	}
	text, err := resources.YAML(bootstrap)
	if err != nil {
		return fmt.Errorf("write Envoy's configuration: %w", err)
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("write Envoy's configuration: %w", err)
	}
	s.envoy, err = start(dir, "envoy", at.envoy, "-c", file, "--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id")
	return err
}

// dropFilters leaves the router alone of all filters, and no access log.
func dropFilters(bootstrap *bootstrapv3.Bootstrap) error {
	for _, listener := range bootstrap.GetStaticResources().GetListeners() {
		filter := listener.GetFilterChains()[0].GetFilters()[0]
		manager := &hcmv3.HttpConnectionManager{}
		if err := filter.GetTypedConfig().UnmarshalTo(manager); err != nil {
			return fmt.Errorf("read Envoy's configuration: %w", err)
		}
		manager.AccessLog = nil
		manager.HttpFilters = manager.GetHttpFilters()[len(manager.GetHttpFilters())-1:]
		for _, host := range manager.GetRouteConfig().GetVirtualHosts() {
			for _, route := range host.GetRoutes() {
				route.TypedPerFilterConfig = nil
			}
		}
		if err := filter.GetTypedConfig().MarshalFrom(manager); err != nil {
			return fmt.Errorf("write Envoy's configuration: %w", err)
		}
	}
	return nil
}

// ready waits until a call comes back as it should.
func (s *stand) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := s.try(ctx)
		if err == nil {
			return nil
		}
		for _, p := range []*process{s.envoy, s.filter} {
			if p == nil {
				continue
			}
			if err := p.ended(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w", s.name, readyTimeout, err)
		case <-time.After(readyPoll):
		}
	}
}

func (s *stand) try(ctx context.Context) error {
	c, err := dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.conn.SetDeadline(time.Now().Add(stopTimeout)); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	return c.ask()
}

// stop stops Envoy first, so that nobody is left to call the filter.
func (s *stand) stop() error {
	var errs []error
	for _, p := range []*process{s.envoy, s.filter} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(errs...)
}

// writeBundle writes the bundle with its catalogue.
func writeBundle(dir string, catalogue *writv1.Catalogue) error {
	files, err := fs.Sub(bundle, "testdata/bundle")
	if err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return writeYAML(filepath.Join(dir, "catalogue.yaml"), catalogue)
}

func writeYAML(file string, message proto.Message) error {
	text, err := protoyaml.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// freeAddress returns a loopback address with a port that was free a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
