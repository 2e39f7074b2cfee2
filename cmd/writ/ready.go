// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// pinPatience is how long after its start the agent is not ready because a bound MCP
// tool has not been seen: a server that is down keeps its own tools denied, and no
// other's.
const pinPatience = 10 * time.Second

// notReady says why calls should not be sent to this agent yet, or any more; nil when
// they should.
func (p *parts) notReady() error {
	if p.draining.Load() {
		return errors.New("the agent is stopping")
	}
	if err := p.ledger.Status().Err; err != nil {
		return fmt.Errorf("the ledger cannot be written: %w", err)
	}
	if time.Since(p.started) > pinPatience {
		return nil
	}
	for _, tool := range p.agent.Bundle().Tools() {
		if tool.Options.GetMcp() != nil && p.pin(tool.Name).GetState() == writv1.PinState_PIN_STATE_UNSEEN {
			return fmt.Errorf("the definition of %s has not been seen at its MCP server yet", tool.Name)
		}
	}
	return nil
}

// ready answers 200 when check has no objection, and else 503 with the reason.
func ready(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}
