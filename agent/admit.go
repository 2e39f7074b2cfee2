// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
)

// optimisticAttempts is how often a decision is made without holding the state's
// lock. The attempt after them holds it: Decide does no I/O, so a busy budget
// costs a wait and never a spurious denial (docs/decisions/0003).
const optimisticAttempts = 2

// maxToolName bounds the name of a tool in a record (DecisionRecord.tool in
// record.proto).
const maxToolName = 128

// Admit decides on a call. It never returns nil: when it returns, the decision
// is recorded as durably as asked, or it is a DENY that says why it could not be.
func (a *Agent) Admit(ctx context.Context, request *Request) *Admission {
	ad := a.receive(request)
	defer a.options.Metrics.observe(ad, time.Now())
	if refusal := a.guard(ctx, ad, a.decide); refusal != nil {
		a.refuse(ad, refusal)
	}
	if refusal := a.guard(ctx, ad, a.commit); refusal != nil {
		a.withdraw(ctx, ad, refusal)
	}
	if !ad.counted && ad.position.Recorded {
		a.state.decided(ad)
	}
	a.count(ad)
	a.watch(ad)
	a.showDecision(ad)
	a.draw(ad)
	return ad
}

// receive makes the admission of a request.
func (a *Agent) receive(request *Request) *Admission {
	a.counts.received.Add(1)
	ad := &Admission{
		agent:   a,
		request: request,
		time:    a.options.Clock(),
		bundle:  request.Generation,
		origin:  writv1.DecisionOrigin_DECISION_ORIGIN_REFUSAL,
	}
	if ad.bundle == nil {
		ad.bundle = a.generation.Load()
	}
	ad.call = policy.Call{
		Principal: request.Principal,
		Arguments: request.Arguments,
		Upstream:  request.Upstream,
		Limits:    a.options.Limits.JSON,
	}
	ad.call.Envelope, ad.oversize = claims(request.Envelope)
	return ad
}

// claims returns the envelope without arguments: they are judged and recorded as
// they are typed, never as they came in. Of an envelope that is too large for a
// record only the tool's name is left.
func claims(envelope *writv1.Envelope) (*writv1.Envelope, *reasons.Error) {
	if envelope.GetToolCall().GetArgs() != nil {
		envelope = proto.CloneOf(envelope)
		envelope.ToolCall.Args = nil
	}
	if proto.Size(envelope) <= policy.MaxEnvelopeBytes {
		return envelope, nil
	}
	left := &writv1.Envelope{}
	if name := envelope.GetToolCall().GetName(); len(name) <= maxToolName {
		left.ToolCall = &writv1.ToolCall{Name: name}
	}
	return left, reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "envelope", "the envelope has more than %d bytes", policy.MaxEnvelopeBytes)
}

// guard runs one step of the life and turns a panic into a refusal, so that it
// costs one call and not the agent.
func (a *Agent) guard(ctx context.Context, ad *Admission, step func(context.Context, *Admission) *reasons.Error) (refusal *reasons.Error) {
	defer func() {
		if cause := recover(); cause != nil {
			a.options.Log.ErrorContext(ctx, "a call was denied because handling it panicked",
				"decision_id", ad.ID(), "stack", string(debug.Stack()))
			refusal = reasons.Wrap(Panicked(cause), writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it handled the call")
		}
	}()
	return step(ctx, ad)
}

// decide resolves facts, decides and applies, until what was read still stands.
func (a *Agent) decide(_ context.Context, ad *Admission) *reasons.Error {
	if _, err := io.ReadFull(a.options.Random, ad.id[:]); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent has no randomness")
	}
	if refusal := a.admissible(ad); refusal != nil {
		return refusal
	}
	a.read(ad)
	for range optimisticAttempts {
		keys, version := a.resolve(ad)
		if refusal := a.judge(ad); refusal != nil {
			return refusal
		}
		if refusal := a.approve(ad); refusal != nil {
			return refusal
		}
		if done, refusal := a.apply(ad, keys, version); done {
			return refusal
		}
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	a.resolveLocked(ad)
	if refusal := a.judge(ad); refusal != nil {
		return refusal
	}
	if refusal := a.approveLocked(ad); refusal != nil {
		return refusal
	}
	return a.applyLocked(ad)
}

// admissible says why a call is refused before anything is decided.
func (a *Agent) admissible(ad *Admission) *reasons.Error {
	ad.facts = &writv1.Facts{Time: timestamppb.New(ad.time)}
	var err error
	if ad.tenantKey, err = a.options.Keys.tenant(ad.request.Principal.GetTenant()); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent cannot read its keys")
	}
	a.place(ad)
	switch {
	case a.draining.Load():
		return reasons.New(writv1.Reason_REASON_AGENT_DRAINING, "", "the agent is shutting down; try again elsewhere")
	case ad.bundle == nil:
		return reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	case ad.request.Refusal != nil:
		return ad.request.Refusal
	}
	return ad.oversize
}

// version tells one reading of the facts from a later one.
type version struct {
	balances            budgets.Version
	session, run, stops uint64
	leases              uint64
}

// resolve reads the facts, and returns which balances are among them and the version of
// all.
func (a *Agent) resolve(ad *Admission) ([]budgets.Key, version) {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	return a.resolveLocked(ad)
}

func (a *Agent) resolveLocked(ad *Admission) ([]budgets.Key, version) {
	read := a.sessionVersion(ad)
	ad.facts = &writv1.Facts{Time: timestamppb.New(ad.time), Stops: a.stopped(ad)}
	if tool := ad.bundle.Tool(ad.call.Envelope.GetToolCall().GetName()); tool != nil && tool.Options.GetMcp() != nil {
		ad.facts.Pin = a.options.Pins(tool.Name)
	}
	if ad.needs.Session {
		ad.facts.Session = a.state.sessions.Summary(ad.session, sessions.OwnerOf(ad.request.Principal), ad.time, ad.needs.Tools)
		ad.facts.Session.Run = a.state.workflows.Summary(workflows.Session(ad.session), ad.time)
	}
	ad.facts.Values = a.state.sessions.Values(ad.session, ad.asked)
	// Whose balances they are may be the session's to say.
	keys := ad.bundle.Balances(&ad.call, ad.facts.GetSession())
	var held version
	ad.facts.Balances, held, ad.slices = a.state.balances(ad.time, keys)
	read.balances, read.leases = held.balances, held.leases
	return keys, read
}

// sessionVersion returns the version of what is read of the call's session, and of the
// stops. The caller holds the state's lock.
func (a *Agent) sessionVersion(ad *Admission) version {
	read := version{stops: a.state.stops.Version()}
	if !ad.needs.Session && !ad.needs.Values {
		return read
	}
	return version{
		stops:   read.stops,
		session: a.state.sessions.Version(ad.session, sessions.OwnerOf(ad.request.Principal)),
		run:     a.state.workflows.Version(workflows.Session(ad.session)),
	}
}

// judge asks policy, and computes what rests on the typed call.
func (a *Agent) judge(ad *Admission) *reasons.Error {
	ad.result = policy.Decide(ad.bundle, &ad.call, ad.facts)
	ad.origin = writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE
	ad.refusal = refusalOf(ad.result.Decision)
	if ad.result.Message == nil {
		return nil
	}
	ad.identity = identity(ad.tenantKey, ad.result.Tool, ad.result.Canonical, ad.request.Principal)
	if ad.request.IdempotencyKey != "" {
		ad.key = idempotencyDigest(ad.tenantKey, ad.result.Tool.Name, ad.request.Principal, ad.session, ad.request.IdempotencyKey)
	}
	return nil
}

// apply applies the effects of an ALLOW if the facts it read still stand, or it
// stands under those that have come since, and reports whether it is done.
func (a *Agent) apply(ad *Admission, keys []budgets.Key, read version) (bool, *reasons.Error) {
	if !ad.Allowed() {
		return true, nil
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	now := a.sessionVersion(ad)
	if now.session != read.session || now.run != read.run || now.stops != read.stops {
		return false, nil
	}
	if !a.state.current(keys, read, ad.time) && !a.refresh(ad, keys) || !a.state.unused(ad) {
		return false, nil
	}
	return true, a.applyLocked(ad)
}

// refresh puts the balances as they are now among the facts, and reports whether the
// decision is the same under them. The caller holds the state's lock.
func (a *Agent) refresh(ad *Admission, keys []budgets.Key) bool {
	ad.facts.Balances, _, ad.slices = a.state.balances(ad.time, keys)
	return ad.bundle.Stands(&ad.call, ad.result, ad.facts)
}

func (a *Agent) applyLocked(ad *Admission) *reasons.Error {
	if !ad.Allowed() {
		return nil
	}
	if refusal := a.repeated(ad); refusal != nil {
		return refusal
	}
	claim := admissions.Claim{
		ID:       ad.id,
		Key:      ad.key,
		Identity: ad.identity,
		Tenant:   ad.request.Principal.GetTenant(),
		Time:     ad.time,
		Reserved: reserves(ad.result.Decision),
	}
	if err := errors.Join(a.state.admissions.Room(claim), a.state.sessions.Room(ad.session, ad.time)); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_OVERLOADED, "", "too many calls are open, or too many idempotency keys in use; try again later")
	}
	a.state.take(claim)
	if id, ok := consumedBy(ad.result.Decision); ok {
		a.state.approvals.Consume(id)
		a.approvalsChanged()
	}
	a.state.sessions.Decided(ad.decided())
	a.state.workflows.Decided(ad.advanced())
	ad.claim, ad.counted = claim, true
	return nil
}

// repeated refuses a call whose idempotency key is taken (SEMANTICS 4).
func (a *Agent) repeated(ad *Admission) *reasons.Error {
	earlier, ok := a.state.admissions.Earlier(ad.key, ad.time)
	if !ok {
		return nil
	}
	held := *earlier
	ad.earlier = &held
	switch {
	case held.Identity != ad.identity:
		return reasons.New(writv1.Reason_REASON_ADMISSION_KEY_REUSED, "", "the idempotency key was used for another call; use a new key")
	case ad.request.Surface != writv1.Surface_SURFACE_EXECUTE:
		return a.repeatedRelease(ad)
	case held.Outcome == nil:
		return reasons.New(writv1.Reason_REASON_ADMISSION_IN_PROGRESS, "", "the call with this idempotency key is being carried out; ask again later")
	case held.Outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_UNKNOWN:
		return reasons.New(writv1.Reason_REASON_ADMISSION_OUTCOME_UNKNOWN, "", "the call with this idempotency key may or may not have taken effect")
	case held.Outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED && len(held.Outcome.GetResult()) == 0:
		return reasons.New(writv1.Reason_REASON_ADMISSION_RESULT_NOT_KEPT, "", "the call with this idempotency key was carried out, and its result is not kept")
	default:
		return reasons.New(writv1.Reason_REASON_ADMISSION_ALREADY_RELEASED, "", "the call with this idempotency key was carried out before")
	}
}

// repeatedRelease lets a call through again only when the tool and the upstream
// both know the key; such a release is a new admission that spends again.
func (a *Agent) repeatedRelease(ad *Admission) *reasons.Error {
	idempotent := ad.result.Tool.Options.GetRepeat() == writv1.Repeat_REPEAT_IDEMPOTENT
	if idempotent && ad.request.KeyPlace == KeySentOn {
		return nil
	}
	return reasons.New(writv1.Reason_REASON_ADMISSION_ALREADY_RELEASED, "", "the call with this idempotency key was let through before")
}

func (a *Agent) count(ad *Admission) {
	switch ad.result.Decision.GetVerdict() {
	case writv1.Verdict_VERDICT_ALLOW:
		a.counts.allowed.Add(1)
	case writv1.Verdict_VERDICT_NEEDS_APPROVAL:
		a.counts.needsApproval.Add(1)
	default:
		a.counts.denied.Add(1)
	}
}
