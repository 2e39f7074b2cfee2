// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"log/slog"

	"github.com/writ-dev/writ/collector/findings"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/planner/webhook"
)

// teller returns what has findings posted. What it posts names ledgers, sizes and signed
// heads: whoever receives it may know of every agent, and of no tenant's calls.
func teller(sender *webhook.Sender, log *slog.Logger) func(store.Finding) {
	if sender == nil {
		return nil
	}
	return func(f store.Finding) {
		id := findings.Identity(f)
		body, err := webhookBody("writ.finding."+f.Kind, f.Time, map[string]any{
			"origin": f.Origin, "kind": f.Kind, "detail": f.Detail, "held_size": f.HeldSize,
			"held_root": hex.EncodeToString(f.HeldRoot), "head": string(f.Head),
		})
		if err == nil {
			err = sender.Send("finding_"+hex.EncodeToString(id[:16]), body)
		}
		if err != nil {
			log.Error("a finding was not posted; it stands in the store", "origin", f.Origin, "finding", f.Kind, "error", err)
		}
	}
}
