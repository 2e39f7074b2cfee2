// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/telemetry"
)

// openTelemetry makes what shows decisions and executions elsewhere, where the
// configuration says where to.
func (p *parts) openTelemetry(ctx context.Context, options *agent.Options) error {
	config := p.config.GetTelemetry().GetOtlp()
	if config == nil {
		return nil
	}
	var secure *tls.Config
	switch {
	case config.GetTls() != nil:
		var err error
		if secure, err = clientTLS(config.GetTls()); err != nil {
			return fmt.Errorf("telemetry.otlp.tls: %w", err)
		}
	case !local(config.GetEndpoint()):
		return hinted(fmt.Errorf("telemetry.otlp.endpoint %s is across the network, and TLS is not configured", config.GetEndpoint()),
			"set telemetry.otlp.tls, or send to a collector on a loopback address such as 127.0.0.1:4317")
	}
	id := ledger.LogID(p.ledger.Origin())
	tracer, err := telemetry.New(ctx, telemetry.Options{
		Config: config, TLS: secure, Origin: p.ledger.Origin(), LogID: id[:],
		Version: programVersion(), Registry: p.registry, Log: p.log,
	})
	if err != nil {
		return fmt.Errorf("telemetry.otlp: %w", err)
	}
	p.tracer, options.Tracer = tracer, tracer
	return nil
}
