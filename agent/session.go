// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
)

// tokenPrefix tells a session's token from other secrets, so that scanners find one
// that got out.
const tokenPrefix = "writ_session_"

// tokenBytes is how many random bytes a token has: nobody guesses it (SEMANTICS 8).
const tokenBytes = 32

// Session is a session that was minted.
type Session struct {
	// ID names it in records.
	ID sessions.ID
	// Token names it in calls. It is told once and kept nowhere.
	Token string
	// ExpireTime is when it ends by itself.
	ExpireTime time.Time
}

// BeginSession mints a session for a principal. Lifetime zero is the default. The
// session is recorded as durably as the agent's floor asks before it is told.
func (a *Agent) BeginSession(ctx context.Context, who *writv1.Principal, label string, lifetime time.Duration) (*Session, *reasons.Error) {
	if lifetime == 0 {
		lifetime = sessions.DefaultLifetime
	}
	key, refusal := a.sessionKey(who)
	if refusal != nil {
		return nil, refusal
	}
	made := &Session{ExpireTime: a.options.Clock().Add(lifetime)}
	var random [tokenBytes]byte
	if _, err := io.ReadFull(a.options.Random, random[:]); err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent has no randomness")
	}
	if _, err := io.ReadFull(a.options.Random, made.ID[:]); err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent has no randomness")
	}
	made.Token = tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	digest := tokenDigest(key, made.Token)
	now := a.options.Clock()
	a.state.mu.Lock()
	err := a.state.sessions.Room(made.ID, now)
	a.state.mu.Unlock()
	if err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_OVERLOADED, "", "too many sessions are open; try again later")
	}
	return made, a.recordSession(ctx, &writv1.SessionRecord{
		Session: made.ID[:], Event: writv1.SessionEvent_SESSION_EVENT_BEGIN, Principal: who, Label: label,
		Time: timestamppb.New(now), ExpireTime: timestamppb.New(made.ExpireTime), TokenDigest: digest[:],
	})
}

// EndSession ends a session that the principal began.
func (a *Agent) EndSession(ctx context.Context, who *writv1.Principal, token string) (*writv1.SessionSummary, *reasons.Error) {
	id, refusal := a.findSession(who, token)
	if refusal != nil {
		return nil, refusal
	}
	now := a.options.Clock()
	a.state.mu.Lock()
	summary := a.state.sessions.Summary(id, sessions.OwnerOf(who), now, nil)
	a.state.mu.Unlock()
	return summary, a.recordSession(ctx, &writv1.SessionRecord{
		Session: id[:], Event: writv1.SessionEvent_SESSION_EVENT_END, Principal: who, Time: timestamppb.New(now),
	})
}

// sessionKey returns the key of a principal's tenant, for who may have a session.
func (a *Agent) sessionKey(who *writv1.Principal) ([]byte, *reasons.Error) {
	if who.GetWorkload() == "" && who.GetUser() == "" {
		return nil, reasons.New(writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "", "present a client certificate or a token that names a workload or a user")
	}
	if a.draining.Load() {
		return nil, reasons.New(writv1.Reason_REASON_AGENT_DRAINING, "", "the agent is shutting down; try again elsewhere")
	}
	key, err := a.options.Keys.tenant(who.GetTenant())
	if err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent cannot read its keys")
	}
	return key, nil
}

// findSession returns the session that a token of the principal's names.
func (a *Agent) findSession(who *writv1.Principal, token string) (sessions.ID, *reasons.Error) {
	key, refusal := a.sessionKey(who)
	if refusal != nil {
		return sessions.ID{}, refusal
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	id, err := a.state.sessions.Find(tokenDigest(key, token), sessions.OwnerOf(who), a.options.Clock())
	if err != nil {
		return id, reasons.Wrap(err, writv1.Reason_REASON_ADMISSION_SESSION_UNKNOWN, "session", "the principal has no such session; begin one")
	}
	return id, nil
}

func (a *Agent) recordSession(ctx context.Context, record *writv1.SessionRecord) *reasons.Error {
	_, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_SESSION, Tenant: record.GetPrincipal().GetTenant(),
		BundleDigest: a.bundleDigest(), Body: record,
		Written: func(err error) {
			if err == nil {
				a.state.mu.Lock()
				defer a.state.mu.Unlock()
				a.state.session(record)
			}
		},
	}, a.options.Floor)
	if err != nil {
		return ledgerRefusal(err)
	}
	return nil
}

// place finds the session that a call belongs to: the one its token names, or the
// principal's ambient session (SEMANTICS 8).
func (a *Agent) place(ad *Admission) {
	who := ad.request.Principal
	if who.GetWorkload() == "" && who.GetUser() == "" {
		return
	}
	ad.session = ambientID(ad.tenantKey, who)
	if !strings.HasPrefix(ad.request.SessionToken, tokenPrefix) {
		return
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	if id, err := a.state.sessions.Find(tokenDigest(ad.tenantKey, ad.request.SessionToken), sessions.OwnerOf(who), ad.time); err == nil {
		ad.session = id
	}
}

// read reads the arguments, and prepares what the session is asked about them.
func (a *Agent) read(ad *Admission) {
	ad.needs = ad.bundle.Read(&ad.call)
	if ad.needs.Values {
		ad.asked = sessions.Ask(ad.hasher(), ad.needs.Leaves, ad.needs.Sink)
	}
}

// hasher makes the atoms of the call's session.
func (ad *Admission) hasher() *atoms.Hasher {
	return atoms.NewHasher(atomKey(ad.tenantKey, ad.session))
}

// decided returns the decision as the session takes it.
func (ad *Admission) decided() sessions.Decided {
	d := sessions.Decided{
		Session: ad.session, Owner: sessions.OwnerOf(ad.request.Principal), Time: ad.time, Decision: ad.id,
		Tool: ad.call.Envelope.GetToolCall().GetName(), Verdict: ad.result.Decision.GetVerdict(),
		Kept: keptOf(ad.result.Decision.GetEffects()),
	}
	if ad.result.Tool != nil {
		d.Effect = ad.result.Tool.Options.GetEffect()
	}
	return d
}

// observation returns what the session comes to know by the call; nil where nothing
// ran. A result that nobody saw may have been anything that the tool returns. Where no
// rule asks where values came from they are not observed; what was read is noted all
// the same, once, for the next bundle may ask.
func (ad *Admission) observation(outcome *writv1.OutcomeRecord) *writv1.ObservationRecord {
	if outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		return nil
	}
	tool := ad.result.Tool
	if !ad.bundle.Provenance() {
		if ad.agent.state.hasRead(ad.session, ad.bundle, tool) {
			return nil
		}
		return ad.unseen()
	}
	ad.mu.Lock()
	whole := ad.answer.whole
	ad.mu.Unlock()
	if whole == nil {
		return ad.unseen()
	}
	said := ad.agent.said(ad.session)
	hasher := ad.hasher()
	selected, named := sessions.Selects(hasher, ad.needs.Leaves, ad.facts.GetValues(), said)
	return sessions.Observation(hasher, ad.bundle.Observed(tool, sessions.Observed{
		Session: ad.session, Tenant: ad.request.Principal.GetTenant(), Time: ad.agent.options.Clock(), JSON: whole,
		Selected: selected, Named: named,
		Carried: ad.needs.Leaves, Labels: ad.facts.GetValues(),
	}), said)
}

// unseen is the observation of a result that nobody saw.
func (ad *Admission) unseen() *writv1.ObservationRecord {
	tool := ad.result.Tool
	record := &writv1.ObservationRecord{
		Session: ad.session[:], Source: sessions.ToolSource(tool.Name), Time: timestamppb.New(ad.time), AtomsVersion: atoms.Version,
	}
	record.Untrusted, record.Classification = ad.bundle.Unseen(tool)
	return record
}

// hasRead says whether a session is known to have read as much as a tool may return.
func (s *State) hasRead(id sessions.ID, bundle *policy.Bundle, tool *tools.Tool) bool {
	untrusted, class := bundle.Unseen(tool)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions.HasRead(id, untrusted, class)
}

// said asks the state what was said in a session.
func (a *Agent) said(id sessions.ID) sessions.Said {
	return func(atom uint64) (user, request bool) {
		a.state.mu.Lock()
		defer a.state.mu.Unlock()
		return a.state.sessions.Said(id, atom)
	}
}

// observe applies what a session came to know, once it is recorded.
func (s *State) observe(r *writv1.ObservationRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.Observe(r)
}

// Report is something that a planner reports to a session.
type Report struct {
	// Tool is the tool that returned JSON, when it did not run through the agent;
	// empty when Text is what somebody said.
	Tool string
	JSON []byte
	Text string
	// User says that the user is who said Text.
	User bool
}

// errUnread is the cause of a report that cannot be read.
var errUnread = errors.New("the report cannot be read")

// Observe takes what a planner reports: what the user asked for, or what a tool
// returned that the planner ran itself. It counts as what it is said to be only if
// the principal may attest it (SEMANTICS 9); else it is reported, and untrusted. The
// result says whether it counted.
func (a *Agent) Observe(ctx context.Context, who *writv1.Principal, token string, report Report) (attested bool, refusal *reasons.Error) {
	bundle := a.generation.Load()
	if bundle == nil {
		return false, reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	}
	key, refusal := a.sessionKey(who)
	if refusal != nil {
		return false, refusal
	}
	id, refusal := a.findSession(who, token)
	if refusal != nil {
		return false, refusal
	}
	in := sessions.Observed{
		Session: id, Tenant: who.GetTenant(), Source: sessions.Reported, Time: a.options.Clock(), Text: report.Text,
		Worth: func(string) sessions.Worth { return sessions.Worth{Trust: writv1.Trust_TRUST_UNTRUSTED} },
	}
	switch {
	case report.Tool != "":
		if attested, refusal = a.reportedResult(who, &in, report); refusal != nil {
			return false, refusal
		}
	case report.User && bundle.MayAttest(who, policy.AttestUser):
		attested, in.Source, in.Selected = true, sessions.User, true
		in.Worth = func(string) sessions.Worth { return sessions.Worth{Trust: writv1.Trust_TRUST_TRUSTED} }
	}
	record := sessions.Observation(atoms.NewHasher(atomKey(key, id)), in, a.said(id))
	return attested, a.recordObservation(ctx, who, record)
}

// reportedResult reads what a tool is said to have returned.
func (a *Agent) reportedResult(who *writv1.Principal, in *sessions.Observed, report Report) (bool, *reasons.Error) {
	bundle := a.generation.Load()
	tool := bundle.Tool(report.Tool)
	if tool == nil {
		return false, reasons.New(writv1.Reason_REASON_TOOL_UNKNOWN, "tool", "the bundle has no such tool; list the tools")
	}
	message, err := tool.Response.Read(report.JSON, nil, a.options.Limits.JSON)
	if err != nil {
		unread := reasons.Of(err)
		return false, reasons.Wrap(fmt.Errorf("%w: %w", errUnread, err), unread.Reason, unread.Field, "%s", unread.Message)
	}
	in.JSON = tool.Response.Append(nil, message)
	if !bundle.MayAttest(who, policy.AttestTool) {
		return false, nil
	}
	*in = bundle.Observed(tool, *in)
	return true, nil
}

func (a *Agent) recordObservation(ctx context.Context, who *writv1.Principal, record *writv1.ObservationRecord) *reasons.Error {
	_, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_OBSERVATION, Tenant: who.GetTenant(), BundleDigest: a.bundleDigest(), Body: record,
		Written: func(err error) {
			if err == nil {
				a.state.observe(record)
			}
		},
	}, a.options.Floor)
	if err != nil {
		return ledgerRefusal(err)
	}
	return nil
}
