// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/sessions"
)

// commit makes the decision durable, as its tool asks. It waits for the ledger
// whatever becomes of the caller: a record may not be half a fact.
func (a *Agent) commit(ctx context.Context, ad *Admission) *reasons.Error {
	if ad.Allowed() {
		a.rememberOpen(ad)
	}
	if refusal := a.bind(ad); refusal != nil {
		return refusal
	}
	entry, body, err := ad.decisionEntry()
	if err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to make the call's record")
	}
	if ad.Allowed() {
		entry.Written = a.calledOnceWritten(ad)
	}
	if ad.asks != nil {
		entry.Written = func(err error) {
			if err == nil {
				a.asked(ad, body)
			}
		}
	}
	ad.position, err = a.options.Ledger.Append(context.WithoutCancel(ctx), entry, ad.durability())
	if err != nil {
		return ledgerRefusal(err)
	}
	if refusal := a.reported(ad); refusal != nil {
		return refusal
	}
	return a.mint(ad)
}

// ledgerRefusal maps what the ledger says to a reason.
func ledgerRefusal(err error) *reasons.Error {
	switch {
	case errors.Is(err, ledger.ErrFull):
		return reasons.Wrap(err, writv1.Reason_REASON_LEDGER_FULL, "", "the agent cannot keep more records until its collector takes them")
	case errors.Is(err, ledger.ErrTooLarge):
		return reasons.Wrap(err, writv1.Reason_REASON_LEDGER_RECORD_TOO_LARGE, "", "the call's record would be too large; send smaller arguments or claims")
	case errors.Is(err, ledger.ErrNotAcknowledged):
		return reasons.Wrap(err, writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED, "", "the collector did not acknowledge the call's record in time")
	default:
		return reasons.Wrap(err, writv1.Reason_REASON_LEDGER_UNAVAILABLE, "", "the agent cannot write its records")
	}
}

// durability is what the record must survive before the answer leaves: what the
// tool asks, not less than the agent's floor. Only an ALLOW waits for more than
// the floor, since nothing follows from the others.
func (ad *Admission) durability() writv1.Durability {
	floor := ad.agent.options.Floor
	if !ad.Allowed() {
		return floor
	}
	asked := ad.result.Tool.Options.GetDurability()
	if asked == writv1.Durability_DURABILITY_UNSPECIFIED &&
		ad.result.Tool.Options.GetEffect() == writv1.ToolEffect_TOOL_EFFECT_WRITE {
		asked = ad.agent.options.WriteDurability
	}
	if len(ad.slices) > 0 && ad.bundle.ReportsFirst(&ad.call, ad.facts) {
		asked = writv1.Durability_DURABILITY_REMOTE
	}
	return max(asked, floor)
}

// decisionEntry returns the ledger's entry for the decision, and its body.
func (ad *Admission) decisionEntry() (ledger.Entry, *writv1.DecisionRecord, error) {
	ad.facts.Witnesses = ad.result.Witnesses
	body := &writv1.DecisionRecord{
		Surface:       ad.request.Surface,
		Principal:     ad.request.Principal,
		Envelope:      ad.call.Envelope,
		Tool:          ad.call.Envelope.GetToolCall().GetName(),
		Facts:         ad.facts,
		Decision:      ad.result.Decision,
		Origin:        ad.origin,
		ApprovalId:    ad.ApprovalID(),
		Approval:      ad.asks,
		RequestDigest: ad.digest,
		Durability:    ad.durability(),
		TraceParent:   ad.request.TraceParent,
		Upstream:      ad.request.Upstream,
		Review:        ad.drawn(),
	}
	if ad.session != (sessions.ID{}) {
		body.Session = ad.session[:]
	}
	if ad.lifetime > 0 {
		body.TokenLifetime = durationpb.New(ad.lifetime)
	}
	if ad.key != (admissions.Digest{}) {
		body.IdempotencyDigest = ad.key[:]
	}
	if ad.earlier != nil {
		body.EarlierDecisionId = ad.earlier.ID[:]
	}
	if tool := ad.result.Tool; tool != nil {
		body.SchemaDigest, body.ToolEffect = tool.SchemaDigest[:], tool.Options.GetEffect()
	}
	var removed []ledger.Sensitive
	var kept *writv1.SealedOriginals
	if ad.result.Message != nil {
		public, out, err := ad.result.Tool.Request.AppendPublic(make([]byte, 0, len(ad.result.Canonical)), ad.result.Message)
		if err != nil {
			return ledger.Entry{}, nil, err
		}
		body.Arguments = public
		if kept, removed, err = ad.keep(sensitive("arguments.", out), ad.time); err != nil {
			return ledger.Entry{}, nil, err
		}
		body.Identity = ad.identity[:]
		if err := ad.agent.seal(ad, out); err != nil {
			return ledger.Entry{}, nil, err
		}
	} else if input := ad.input(); len(input) > 0 && ad.tenantKey != nil {
		sum := digest(ad.tenantKey, []byte("writ/input/v1"), input)
		body.InputDigest = sum[:]
	}
	entry := ad.entry(writv1.RecordKind_RECORD_KIND_DECISION, body, removed)
	entry.Sealed = kept
	return entry, body, nil
}

// input returns the bytes of a call that could not be typed.
func (ad *Admission) input() []byte {
	if ad.request.Input != nil {
		return ad.request.Input
	}
	return ad.request.Arguments.JSON
}

func (ad *Admission) entry(kind writv1.RecordKind, body proto.Message, removed []ledger.Sensitive) ledger.Entry {
	entry := ledger.Entry{
		Kind:       kind,
		Tenant:     ad.request.Principal.GetTenant(),
		DecisionID: ad.id[:],
		Body:       body,
		Sensitive:  removed,
	}
	if ad.bundle != nil {
		sum := ad.bundle.Digest()
		entry.BundleDigest = sum[:]
	}
	return entry
}

// recordBare records a refusal without what may be too large: the arguments, for
// which the call's identity stands, the balances, and the checks but that which
// refuses. Who asked and what was claimed is bounded, and fits.
func (a *Agent) recordBare(ctx context.Context, ad *Admission) {
	entry, body, err := ad.decisionEntry()
	if err != nil {
		a.options.Log.ErrorContext(ctx, "a refusal was not recorded", "decision_id", ad.ID(), "error", err)
		return
	}
	checks := ad.result.Decision.GetChecks()
	body.Decision = &writv1.Decision{
		Verdict: writv1.Verdict_VERDICT_DENY,
		Reason:  ad.refusal.Reason,
		Checks:  checks[max(0, len(checks)-1):],
	}
	body.Arguments, body.Review, entry.Sensitive, entry.Sealed = nil, false, nil, nil
	body.Facts = &writv1.Facts{Time: ad.facts.GetTime()}
	ad.position, err = a.options.Ledger.Append(context.WithoutCancel(ctx), entry, a.options.Floor)
	if err != nil {
		a.options.Log.ErrorContext(ctx, "a refusal was not recorded", "decision_id", ad.ID(), "error", err)
	}
}

func (a *Agent) rememberOpen(ad *Admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[ad.id] = ad
}

func (a *Agent) forgetOpen(ad *Admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, ad.id)
}
