// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// mostMatches bounds the grants that one decision names, denying ones first.
	mostMatches = 256
	// mostNearMisses bounds the grants named whose condition did not hold.
	mostNearMisses = 16
)

var (
	granted  = passing("grant", "granted")
	needsRun = failing("grant", "granted", writv1.Reason_REASON_CONTRACT_REQUIRED, "",
		"the call is granted in workflows only; begin one that permits it")
	missing = failing("grant", "granted", writv1.Reason_REASON_GRANT_MISSING, "",
		"no grant allows the principal to make this call")
	sameTenant  = passing("grant", "tenant_isolation")
	otherTenant = failing("grant", "tenant_isolation", writv1.Reason_REASON_GRANT_TENANT_ISOLATION, "",
		"name the tenant that the principal belongs to")
)

// grant is a grant of the bundle, with the checks it can leave.
type grant struct {
	// order is the grant's place among all: by name, whatever file it stands in.
	order    int
	effect   writv1.GrantEffect
	selector *selector
	// outside says that a grant that allows also counts outside any workflow.
	outside bool
	digest  [32]byte

	// matched is left when the grant bears on the call, errored when a grant that
	// denies does so because its condition could not be evaluated; missed and
	// missedError when a grant that allows would have, but for its condition.
	matched, errored, missed, missedError *writv1.Check
}

func newGrant(g *writv1.Grant, order int) *grant {
	out := &grant{order: order, effect: g.GetEffect(), selector: newSelector(g.GetPrincipals()), outside: g.GetOutsideContracts(), digest: digestOf(g)}
	name := g.GetName()
	if out.effect == writv1.GrantEffect_GRANT_EFFECT_ALLOW {
		out.matched = passing("grant", name)
		out.missed = failing("grant", name, writv1.Reason_REASON_GRANT_MISSING, "", "the condition of this grant does not hold")
		out.missedError = failing("grant", name, writv1.Reason_REASON_GRANT_MISSING, "", "the condition of this grant could not be evaluated")
		out.missedError.Outcome = writv1.CheckOutcome_CHECK_OUTCOME_ERROR
		return out
	}
	out.matched = failing("grant", name, writv1.Reason_REASON_GRANT_DENIED, "", "a grant denies this call")
	out.errored = failing("grant", name, writv1.Reason_REASON_GRANT_DENIED, "", "the condition of a grant that denies could not be evaluated")
	out.errored.Outcome = writv1.CheckOutcome_CHECK_OUTCOME_ERROR
	return out
}

// grants passes a call that some grant allows and none denies, within the
// principal's tenant, and that no operator has stopped.
func (e *evaluation) grants() {
	e.stops()
	found := e.entry.grants.find(e.call.Principal, e.matched[:0])
	for i := range found {
		found[i].outcome = e.holds(found[i].condition)
	}
	room := e.denies(found, mostMatches)
	e.allows(found, room)
	e.isolation()
}

// stops denies a call that an operator has stopped. There is one check of all: what the
// caller is told is until when.
func (e *evaluation) stops() {
	var end time.Time
	for _, stop := range e.facts.GetStops() {
		if at := stop.GetExpireTime().AsTime(); at.After(end) {
			end = at
		}
	}
	if len(e.facts.GetStops()) > 0 {
		e.deny(failing("grant", "stopped", writv1.Reason_REASON_GRANT_STOPPED, "",
			"an operator has stopped such calls, until "+end.UTC().Format(time.RFC3339)+" unless the stop is lifted before"))
	}
}

// denies leaves a check for each grant that denies, and returns the room left.
// A condition that cannot be evaluated counts as a match (SEMANTICS 3).
func (e *evaluation) denies(found []match, room int) int {
	for i := range found {
		m := &found[i]
		if m.grant.effect == writv1.GrantEffect_GRANT_EFFECT_ALLOW || m.outcome == no || room == 0 {
			continue
		}
		room--
		if m.outcome == erred {
			e.deny(m.grant.errored)
			continue
		}
		e.deny(m.grant.matched)
	}
	return room
}

// allows leaves a check for each grant that allows, and one that says whether
// there was any; if not, also for those whose condition did not hold.
func (e *evaluation) allows(found []match, room int) {
	allowing, inRuns := 0, 0
	outside := e.outside()
	for i := range found {
		m := &found[i]
		if m.grant.effect != writv1.GrantEffect_GRANT_EFFECT_ALLOW || m.outcome != yes {
			continue
		}
		if outside && !m.grant.outside {
			inRuns++
			continue
		}
		allowing++
		e.basis = append(e.basis, m.grant.digest)
		if allowing <= room {
			e.pass(m.grant.matched)
		}
	}
	switch {
	case allowing == 0 && inRuns > 0:
		e.deny(needsRun)
	case allowing == 0:
		e.deny(missing)
		e.nearMisses(found)
	case allowing > room:
		check := passing("grant", "granted")
		check.Message = fmt.Sprintf("%d more grants allow the call", allowing-room)
		e.pass(check)
	default:
		e.pass(granted)
	}
}

func (e *evaluation) nearMisses(found []match) {
	room := mostNearMisses
	for i := range found {
		m := &found[i]
		if m.grant.effect != writv1.GrantEffect_GRANT_EFFECT_ALLOW || room == 0 {
			continue
		}
		room--
		if m.outcome == erred {
			e.deny(m.grant.missedError)
			continue
		}
		e.deny(m.grant.missed)
	}
}

// isolation holds every field that is bound to the tenant against the
// principal's. A tool with such fields cannot be called by a principal without a
// tenant, nor with none of the fields present: a service behind may take absence
// for "all".
func (e *evaluation) isolation() {
	if !e.entry.tenantBound {
		return
	}
	tenants := e.entry.tool.Request.Tenants(e.typed)
	own := e.call.Principal.GetTenant()
	if own == "" || len(tenants) == 0 {
		e.deny(otherTenant)
		return
	}
	for _, tenant := range tenants {
		if tenant != own {
			e.deny(otherTenant)
			return
		}
	}
	e.pass(sameTenant)
}
