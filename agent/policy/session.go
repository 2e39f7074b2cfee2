// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// limit is a session limit of the bundle.
type limit struct {
	*writv1.SessionLimit
	within *writv1.Check
}

func newLimit(l *writv1.SessionLimit) *limit {
	return &limit{SessionLimit: l, within: passing("budget", l.GetName())}
}

// limits denies a call of a session, or of a principal, that has done as much as a
// limit allows.
func (e *evaluation) limits() {
	for _, l := range e.bundle.limits {
		if !l.speaksOf(e.call.Principal) {
			continue
		}
		counts := e.facts.GetSession().GetCounts()
		if l.GetScope() == writv1.LimitScope_LIMIT_SCOPE_PRINCIPAL {
			counts = e.facts.GetSession().GetPrincipalCounts()
		}
		writes := e.entry.tool.Options.GetEffect() == writv1.ToolEffect_TOOL_EFFECT_WRITE
		switch {
		case l.Calls != nil && counts.GetCalls() >= l.GetCalls():
			e.limited(l, "calls")
		case l.Writes != nil && writes && counts.GetWrites() >= l.GetWrites():
			e.limited(l, "calls that write")
		case l.Denials != nil && counts.GetDenials() >= l.GetDenials():
			e.limited(l, "denials")
		default:
			e.pass(l.within)
		}
	}
}

func (e *evaluation) limited(l *limit, what string) {
	whose := "the session has"
	if l.GetScope() == writv1.LimitScope_LIMIT_SCOPE_PRINCIPAL {
		whose = "the principal's sessions have"
	}
	e.deny(failing("budget", l.GetName(), writv1.Reason_REASON_BUDGET_SESSION_LIMIT, "",
		fmt.Sprintf("%s as many %s as the limit allows", whose, what)))
}

func (l *limit) speaksOf(who *writv1.Principal) bool {
	return len(l.GetRoles()) == 0 ||
		slices.ContainsFunc(l.GetRoles(), func(role string) bool { return slices.Contains(who.GetRoles(), role) })
}
