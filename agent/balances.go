// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
)

// Balances returns what is left of the budgets that a principal's calls draw on, and of
// those that its session and the run in it have, if the token names one.
func (a *Agent) Balances(who *writv1.Principal, token string) ([]*writv1.BudgetStanding, *reasons.Error) {
	bundle := a.generation.Load()
	if bundle == nil {
		return nil, reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	}
	var id sessions.ID
	if token != "" {
		var refusal *reasons.Error
		if id, refusal = a.findSession(who, token); refusal != nil {
			return nil, refusal
		}
	}
	now := a.options.Clock()
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	var session *writv1.SessionSummary
	if token != "" {
		session = &writv1.SessionSummary{Id: id[:], Run: a.state.workflows.Summary(workflows.Session(id), now)}
	}
	return bundle.OwnStandings(&a.state.budgets, a.state.leases, who, session, now), nil
}
