// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// originalsEvery is the time between looks whether the file of public keys has changed.
const originalsEvery = 30 * time.Second

// openOriginals makes what seals originals, where the configuration names the public keys.
func (p *parts) openOriginals() (*originals.Sealer, error) {
	if p.config.GetOriginalsKeysFile() == "" {
		return nil, nil
	}
	p.sealing = &sealing{path: p.config.GetOriginalsKeysFile(), sealer: originals.NewSealer(ledger.LogID(p.ledger.Origin()))}
	if _, err := p.sealing.read(); err != nil {
		return nil, hinted(err, "\"writ keys public\" prints the keys, one a line")
	}
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "writ_originals_key_days",
		Help: "For how many days from today on, without a gap, there are keys to seal originals to: of the tenant that has the fewest.",
	}, func() float64 { return float64(p.sealing.days(originals.DayOf(time.Now()))) }))
	return p.sealing.sealer, nil
}

// sealing is what seals originals, and the file that it has its keys of.
type sealing struct {
	path   string
	sealer *originals.Sealer
	// text is what the file said. It is read's alone.
	text []byte
}

// read reads the file, and says whether it has changed. One that is not right leaves the
// keys as they are.
func (s *sealing) read() (bool, error) {
	file, err := os.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("read the keys to seal originals to: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(file, originals.MostKeyBytes+1))
	if err != nil {
		return false, fmt.Errorf("read the keys to seal originals to: %w", err)
	}
	if s.sealer.Keys() != nil && bytes.Equal(text, s.text) {
		return false, nil
	}
	keys, err := originals.ParseKeys(text)
	if err != nil {
		return false, fmt.Errorf("read the keys to seal originals to: %s: %w", s.path, err)
	}
	s.text = text
	s.sealer.Use(keys)
	return true, nil
}

// days is for how many days from one on every tenant has keys.
func (s *sealing) days(from originals.Day) int {
	const most = 10_000
	keys, fewest := s.sealer.Keys(), most
	for _, tenant := range keys.Tenants() {
		fewest = min(fewest, keys.Days(tenant, from))
	}
	if fewest == most {
		return 0
	}
	return fewest
}

// tendOriginals takes new keys, and drops data keys that are too old.
func (p *parts) tendOriginals(ctx context.Context) {
	p.sealing.sealer.Forget(time.Now())
	switch changed, err := p.sealing.read(); {
	case err != nil:
		p.log.ErrorContext(ctx, "the keys to seal originals to were not read; those of before stay", "error", err)
	case changed:
		p.log.InfoContext(ctx, "there are new keys to seal originals to", "keys", p.sealing.sealer.Keys().Len())
	}
}

// warnOfUnsealed tells of tools that ask to have originals kept by an agent that cannot.
func (p *parts) warnOfUnsealed(bundle *policy.Bundle) {
	if p.sealing != nil {
		return
	}
	for _, tool := range bundle.Tools() {
		if tool.Options.GetOriginals() == writv1.Originals_ORIGINALS_SEALED {
			p.log.Warn("the tool asks to have originals kept, and the configuration has no originals_keys_file: they are not", "tool", tool.Name)
		}
	}
}
