// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Played is what came of a scenario.
type Played struct {
	// File and Line say where the scenario stands.
	File string
	Line int
	// Scenario is what was played.
	Scenario *writv1.Scenario
	// Calls are its calls, in order.
	Calls []PlayedCall
	// Ends are its runs of workflows that ended, in order.
	Ends []PlayedEnd
	// Differences say what came out otherwise than wanted, one a line; none means
	// that it passed.
	Differences []string
	// Harmed says that a harmful call was carried out.
	Harmed bool
	// Duration is how long it took.
	Duration time.Duration
}

// PlayedCall is one call of a scenario.
type PlayedCall struct {
	// Step is the place of the call among the scenario's steps, from 1.
	Step int
	Call *writv1.ScenarioCall
	// Facts are what was read, Result what was decided.
	Facts  *writv1.Facts
	Result *policy.Result
	// Carried says that the call was carried out: allowed, or approved.
	Carried bool
	// Differs says that it came out otherwise than wanted.
	Differs bool

	call *policy.Call
}

// Asked says whether a human was asked about the call.
func (c *PlayedCall) Asked() bool {
	return c.Result.Decision.GetVerdict() == writv1.Verdict_VERDICT_NEEDS_APPROVAL
}

// Writes says whether the call's tool changes anything.
func (c *PlayedCall) Writes() bool {
	return c.Result.Tool != nil && c.Result.Tool.Options.GetEffect() == writv1.ToolEffect_TOOL_EFFECT_WRITE
}

// telling returns the decision that tells most of the scenario; nil when it made no
// call.
func (p *Played) telling() *policy.Result {
	for i := range p.Calls {
		if p.Calls[i].Differs {
			return p.Calls[i].Result
		}
	}
	if len(p.Calls) == 0 {
		return nil
	}
	return p.Calls[len(p.Calls)-1].Result
}

// PlayAll plays the scenarios of a bundle, each from the beginning with its own
// state. Nothing is executed: what a tool returns is what the scenario says.
// Human, unless unspecified, answers every approval in place of the scenario's.
func PlayAll(bundle *policy.Bundle, plays []Play, human writv1.Human, clock func() time.Time) []Played {
	var all []Played
	for _, play := range plays {
		for i, scenario := range play.Scenarios {
			start := clock()
			p := newPlayer(bundle, scenario, human)
			p.play()
			p.played.File, p.played.Line = play.File, play.Lines[i]
			p.played.Duration = clock().Sub(start)
			all = append(all, p.played)
		}
	}
	return all
}

// player is the state that a scenario is played over: the machines of an agent,
// moved by the decisions as an agent's are.
type player struct {
	bundle    *policy.Bundle
	human     writv1.Human
	sessions  *sessions.Machine
	workflows *workflows.Machine
	budgets   budgets.Machine
	session   sessions.ID
	principal *writv1.Principal
	now       time.Time
	minted    uint64
	calls     uint64
	played    Played
}

func newPlayer(bundle *policy.Bundle, scenario *writv1.Scenario, human writv1.Human) *player {
	p := &player{
		bundle: bundle, human: human, sessions: sessions.New(), workflows: workflows.New(), principal: scenario.GetPrincipal(),
		now:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		played: Played{Scenario: scenario},
	}
	if scenario.GetStartTime() != nil {
		p.now = scenario.GetStartTime().AsTime()
	}
	p.begin("")
	return p
}

func (p *player) play() {
	for i, step := range p.played.Scenario.GetSteps() {
		// No two things happen at one instant.
		p.now = p.now.Add(time.Millisecond)
		switch step := step.GetStep().(type) {
		case *writv1.ScenarioStep_User:
			p.say(sessions.User, step.User, writv1.Trust_TRUST_TRUSTED)
		case *writv1.ScenarioStep_Reported:
			p.say(sessions.Reported, step.Reported, writv1.Trust_TRUST_UNTRUSTED)
		case *writv1.ScenarioStep_Call:
			p.call(i+1, step.Call)
		case *writv1.ScenarioStep_Advance:
			p.now = p.now.Add(step.Advance.AsDuration())
		case *writv1.ScenarioStep_Become:
			p.principal = step.Become
			p.begin("")
		case *writv1.ScenarioStep_Begin:
			p.begin(step.Begin.GetLabel())
		case *writv1.ScenarioStep_BeginWorkflow:
			p.beginWorkflow(i+1, step.BeginWorkflow)
		case *writv1.ScenarioStep_EndWorkflow:
			p.endWorkflow(i+1, step.EndWorkflow)
		}
	}
}

// begin mints a session for the principal.
func (p *player) begin(label string) {
	p.minted++
	binary.BigEndian.PutUint64(p.session[8:], p.minted)
	p.sessions.Begin(&writv1.SessionRecord{
		Session: p.session[:], Event: writv1.SessionEvent_SESSION_EVENT_BEGIN, Principal: p.principal, Label: label,
		Time: timestamppb.New(p.now), ExpireTime: timestamppb.New(p.now.Add(sessions.MostLifetime)), TokenDigest: p.session[:],
	})
}

// hasher makes the atoms of the session. A scenario has no secrets.
func (p *player) hasher() *atoms.Hasher {
	return atoms.NewHasher(sha256.Sum256(p.session[:]))
}

func (p *player) said(atom uint64) (user, request bool) { return p.sessions.Said(p.session, atom) }

func (p *player) say(source, text string, trust writv1.Trust) {
	p.sessions.Observe(sessions.Observation(p.hasher(), sessions.Observed{
		Session: p.session, Tenant: p.principal.GetTenant(), Source: source, Time: p.now, Text: text, Selected: true,
		Worth: func(string) sessions.Worth { return sessions.Worth{Trust: trust} },
	}, p.said))
}

// call decides on a call and, where it is carried out, takes what it returns.
func (p *player) call(step int, c *writv1.ScenarioCall) {
	call := CallOf(p.principal, &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: c.GetTool(), Args: c.GetArgs()}})
	needs := p.bundle.Read(call)
	hasher := p.hasher()
	facts := p.facts(call, needs, hasher)
	result := policy.Decide(p.bundle, call, facts)
	verdict := result.Decision.GetVerdict()
	human := c.GetHuman()
	if p.human != writv1.Human_HUMAN_UNSPECIFIED {
		human = p.human
	}
	made := PlayedCall{Step: step, Call: c, Facts: facts, Result: result, call: call}
	made.Carried = verdict == writv1.Verdict_VERDICT_ALLOW ||
		verdict == writv1.Verdict_VERDICT_NEEDS_APPROVAL && human == writv1.Human_HUMAN_APPROVES
	p.played.Harmed = p.played.Harmed || made.Carried && c.GetHarmful()
	made.Differs = p.want(step, c, result)
	p.decided(&made)
	if made.Carried {
		p.carryOut(&made, needs, hasher)
	}
	p.played.Calls = append(p.played.Calls, made)
}

func (p *player) facts(call *policy.Call, needs policy.Needs, hasher *atoms.Hasher) *writv1.Facts {
	facts := DefaultFacts(p.now)
	if needs.Session {
		facts.Session = p.sessions.Summary(p.session, sessions.OwnerOf(p.principal), p.now, needs.Tools)
		facts.Session.Run = p.workflows.Summary(workflows.Session(p.session), p.now)
	}
	if needs.Values {
		facts.Values = p.sessions.Values(p.session, sessions.Ask(hasher, needs.Leaves, needs.Sink))
	}
	keys := p.bundle.Balances(call, facts.GetSession())
	facts.Balances, _ = p.budgets.Read(p.now, keys)
	whole(keys, facts.Balances)
	return facts
}

// want notes where a call came out otherwise than wanted. Where nothing is said,
// work that should be done is allowed.
func (p *player) want(step int, c *writv1.ScenarioCall, result *policy.Result) bool {
	want := c.GetWant()
	if want == nil && p.played.Scenario.GetKind() == writv1.ScenarioKind_SCENARIO_KIND_BENIGN && p.human == writv1.Human_HUMAN_UNSPECIFIED {
		want = &writv1.Expectation{Verdict: writv1.Verdict_VERDICT_ALLOW}
	}
	if want == nil {
		return false
	}
	found := differences(want, result.Decision)
	for _, difference := range found {
		p.played.Differences = append(p.played.Differences, fmt.Sprintf("step %d, %s: %s%s", step, c.GetTool(), difference, why(result.Decision)))
	}
	return len(found) > 0
}

// why tells the first check that stood in the way.
func why(d *writv1.Decision) string {
	for _, check := range d.GetChecks() {
		if check.GetReason() == d.GetReason() && check.GetOutcome() != writv1.CheckOutcome_CHECK_OUTCOME_PASS {
			return fmt.Sprintf(" (%s: %s %s: %s)", reasons.Name(d.GetReason()), check.GetName(), check.GetField(), check.GetMessage())
		}
	}
	return ""
}

// decided moves the state by a decision.
func (p *player) decided(made *PlayedCall) {
	p.calls++
	d := sessions.Decided{
		Session: p.session, Owner: sessions.OwnerOf(p.principal), Time: p.now, Tool: made.Call.GetTool(),
		Verdict: made.Result.Decision.GetVerdict(),
	}
	binary.BigEndian.PutUint64(d.Decision[8:], p.calls)
	if made.Result.Tool != nil {
		d.Effect = made.Result.Tool.Options.GetEffect()
	}
	if made.Carried {
		d.Verdict = writv1.Verdict_VERDICT_ALLOW
		p.advance(made, d)
		for _, effect := range made.Result.Effects {
			if reserve := effect.GetReserve(); reserve != nil {
				p.budgets.Reserve(reserve)
			}
			if kept := effect.GetKeep(); kept != nil {
				d.Kept = append(d.Kept, kept)
			}
		}
	}
	p.sessions.Decided(d)
}

// carryOut takes what the tool returns, as far as it is what the tool may return.
func (p *player) carryOut(made *PlayedCall, needs policy.Needs, hasher *atoms.Hasher) {
	tool := made.Result.Tool
	text := made.Call.GetResult().GetText()
	if len(text) == 0 {
		text = []byte("{}")
	}
	outcome := &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}
	response, spent, refusal := p.responseOf(tool, text)
	if refusal != nil {
		p.played.Differences = append(p.played.Differences,
			fmt.Sprintf("step %d, %s: the result is not what the tool returns: %s", made.Step, made.Call.GetTool(), refusal))
		outcome.State = writv1.OutcomeState_OUTCOME_STATE_FAILED
	} else {
		outcome.Kept = p.bundle.KeptResult(tool, response)
		selected, named := sessions.Selects(hasher, needs.Leaves, made.Facts.GetValues(), p.said)
		p.sessions.Observe(sessions.Observation(hasher, p.bundle.Observed(tool, sessions.Observed{
			Session: p.session, Tenant: p.principal.GetTenant(), Time: p.now, JSON: response,
			Selected: selected, Named: named,
			Carried: needs.Leaves, Labels: made.Facts.GetValues(),
		}), p.said))
	}
	p.settle(made, policy.Bill{State: outcome.GetState(), Spent: spent, Time: p.now})
	var id [16]byte
	binary.BigEndian.PutUint64(id[8:], p.calls)
	p.sessions.Ended(id, outcome)
	p.workflows.Ended(id, outcome)
}

// settle holds what the call took against what it reserved.
func (p *player) settle(made *PlayedCall, bill policy.Bill) {
	var reserved []*writv1.Reserve
	for _, effect := range made.Result.Effects {
		if reserve := effect.GetReserve(); reserve != nil {
			reserved = append(reserved, reserve)
		}
	}
	settled := p.bundle.Settle(made.call, reserved, made.Facts, bill)
	for _, reserve := range settled.GivenBack {
		p.budgets.GiveBack(reserve)
	}
	for _, overrun := range settled.Overrun {
		p.budgets.Reserve(overrun)
	}
}

// responseOf returns a result in canonical JSON, and what it tells of what was taken.
func (p *player) responseOf(tool *tools.Tool, text []byte) ([]byte, []*writv1.Spending, error) {
	message, err := tool.Response.Read(text, nil, schemas.Limits{})
	if err != nil {
		return nil, nil, err
	}
	if violations := tool.Response.Validate(message); len(violations) > 0 {
		return nil, nil, fmt.Errorf("%s: %s", violations[0].Field, violations[0].Message)
	}
	return tool.Response.Append(nil, message), p.bundle.Spent(tool, message), nil
}
