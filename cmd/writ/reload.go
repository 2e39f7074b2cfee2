// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
)

// reload loads the bundle again whenever the process gets SIGHUP.
func (p *parts) reload(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			bundle, err := p.swap(ctx)
			if err != nil {
				p.log.ErrorContext(ctx, "the bundle did not load; the old one stays in force", "error", err)
				continue
			}
			p.log.InfoContext(ctx, "a bundle came into force", "name", bundle.Name())
		}
	}
}

// swap puts the bundle in force that the directory holds now.
func (p *parts) swap(ctx context.Context) (*policy.Bundle, error) {
	bundle, err := bundles.LoadDir(ctx, p.config.GetBundleDir(), bundles.Options{})
	if err != nil {
		return nil, err
	}
	if bundle.SandboxTier() > 0 && p.runner == nil {
		return nil, errors.New("the bundle demands a sandbox, and there is none")
	}
	if err := p.checkCommands(bundle); err != nil {
		return nil, err
	}
	if !proto.Equal(bundle.Catalogue(), p.agent.Bundle().Catalogue()) {
		p.log.WarnContext(ctx, "the catalogue changed: Envoy and the agent know the upstreams of their start; start both again with a new \"writ envoy bootstrap\"")
	}
	if err := p.agent.Swap(ctx, bundle); err != nil {
		return nil, err
	}
	p.warnOfLess(bundle)
	p.warnOfUnsealed(bundle)
	if p.watcher != nil {
		// What is newly bound is denied until it was seen.
		if err := p.watcher.Look(ctx); err != nil {
			p.log.WarnContext(ctx, "not all pins of the new bundle could be checked", "error", err)
		}
	}
	return bundle, nil
}
