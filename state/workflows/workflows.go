// SPDX-License-Identifier: Apache-2.0

// Package workflows keeps the runs of workflows: which session is in which, what was
// called in it, and what the runs of each workflow came to and cost. It is a pure
// machine: records go in as events, the clock is a parameter, and nothing is written,
// so that a [Machine] can be folded from a ledger.
//
// It knows no contract: whether a call is permitted, and whether a run has succeeded,
// is policy's to say. It does not lock: its owner does.
package workflows

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ID names a run, and Session the session that it is in.
type (
	ID      [16]byte
	Session [16]byte
)

// String returns the id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

const (
	// mostTools bounds the tools whose calls are counted in a run
	// (RunSummary.counts in session.proto).
	mostTools = 256
	// mostPath bounds the calls of a run whose order is kept (RunSummary.path).
	mostPath = 256
)

// Workflow names the runs that are counted together.
type Workflow struct {
	Tenant, Contract string
}

// run is one carrying out of a workflow.
type run struct {
	id       ID
	session  Session
	workflow Workflow
	feature  string
	intent   string
	begin    time.Time
	expire   time.Time
	inputs   []byte

	counts map[string]uint64
	path   []*call
	cost   cost
	// version counts changes, so that a reader can tell whether what it read still
	// stands. It is not part of the folded state.
	version uint64
}

// call is one call in a run.
type call struct {
	decision [16]byte
	session  Session
	run      ID
	tool     string
	effect   writv1.ToolEffect
	ordered  bool
}

// cost is what calls cost.
type cost struct {
	calls, writes, request, response uint64
	inputTokens, outputTokens, money uint64
	duration                         time.Duration
}

func (c *cost) add(other cost) {
	c.calls += other.calls
	c.writes += other.writes
	c.request += other.request
	c.response += other.response
	c.inputTokens += other.inputTokens
	c.outputTokens += other.outputTokens
	c.money += other.money
	c.duration += other.duration
}

func (c cost) message() *writv1.RunCost {
	return &writv1.RunCost{
		Calls: c.calls, Writes: c.writes, Duration: durationpb.New(c.duration), RequestBytes: c.request, ResponseBytes: c.response,
		InputTokens: c.inputTokens, OutputTokens: c.outputTokens, MoneyNanoDollars: c.money,
	}
}

func costOf(m *writv1.RunCost) cost {
	return cost{
		calls: m.GetCalls(), writes: m.GetWrites(), duration: m.GetDuration().AsDuration(),
		request: m.GetRequestBytes(), response: m.GetResponseBytes(),
		inputTokens: m.GetInputTokens(), outputTokens: m.GetOutputTokens(), money: m.GetMoneyNanoDollars(),
	}
}

// totals are what the runs of a workflow came to.
type totals struct {
	begun, succeeded, failed, unacceptable uint64
	cost                                   cost
}

// Machine holds the runs of an agent.
type Machine struct {
	runs   map[Session]*run
	totals map[Workflow]*totals
	// open are the calls whose outcome is not known.
	open map[[16]byte]*call
	next uint64
}

// New returns a machine without runs.
func New() *Machine {
	return &Machine{
		runs: make(map[Session]*run), totals: make(map[Workflow]*totals), open: make(map[[16]byte]*call),
	}
}

// Apply takes the record of a run that began or ended.
func (m *Machine) Apply(r *writv1.WorkflowRecord) {
	session := Session(r.GetSession())
	workflow := Workflow{Tenant: r.GetPrincipal().GetTenant(), Contract: r.GetContract()}
	switch r.GetEvent() {
	case writv1.WorkflowEvent_WORKFLOW_EVENT_BEGIN:
		m.drop(session)
		made := &run{
			id: ID(r.GetRun()), session: session, workflow: workflow, feature: r.GetFeature(), intent: r.GetIntent(),
			begin: r.GetTime().AsTime(), expire: r.GetExpireTime().AsTime(), inputs: r.GetInputs(), counts: make(map[string]uint64),
		}
		m.runs[session] = made
		m.changed(made)
		m.of(workflow).begun++
	case writv1.WorkflowEvent_WORKFLOW_EVENT_END:
		m.ended(m.of(workflow), r)
		if held, ok := m.runs[session]; ok && held.id == ID(r.GetRun()) {
			m.drop(session)
		}
	}
}

func (m *Machine) ended(of *totals, r *writv1.WorkflowRecord) {
	switch r.GetResult() {
	case writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED:
		of.succeeded++
	case writv1.WorkflowResult_WORKFLOW_RESULT_FAILED:
		of.failed++
	case writv1.WorkflowResult_WORKFLOW_RESULT_UNACCEPTABLE:
		of.unacceptable++
	}
}

func (m *Machine) of(workflow Workflow) *totals {
	of, ok := m.totals[workflow]
	if !ok {
		of = &totals{}
		m.totals[workflow] = of
	}
	return of
}

func (m *Machine) changed(r *run) {
	m.next++
	r.version = m.next
}

// Drop forgets the run of a session that has ended.
func (m *Machine) Drop(session Session) { m.drop(session) }

func (m *Machine) drop(session Session) {
	held, ok := m.runs[session]
	if !ok {
		return
	}
	delete(m.runs, session)
	maps.DeleteFunc(m.open, func(_ [16]byte, c *call) bool { return c.session == session && c.run == held.id })
}

// Decided is a call that was allowed in a run.
type Decided struct {
	Session  Session
	Decision [16]byte
	Tool     string
	Effect   writv1.ToolEffect
	// Advance is the decision's effect, After how many calls were in order before it
	// by the facts that it was decided over: records of calls that are made at one time
	// may come in another order.
	Advance *writv1.Advance
	After   int
}

// DecidedOf returns a call that was allowed, by its decision and facts.
func DecidedOf(session Session, id [16]byte, tool string, effect writv1.ToolEffect, facts *writv1.Facts, decision *writv1.Decision) Decided {
	d := Decided{Session: session, Decision: id, Tool: tool, Effect: effect, After: len(facts.GetSession().GetRun().GetPath())}
	for _, e := range decision.GetEffects() {
		if e.GetAdvance() != nil {
			d.Advance = e.GetAdvance()
		}
	}
	return d
}

// Decided counts a call in the run that it names. A run that is gone counts nothing.
func (m *Machine) Decided(d Decided) {
	held, ok := m.runs[d.Session]
	if !ok || d.Advance == nil || held.id != ID(d.Advance.GetRun()) {
		return
	}
	made := &call{
		decision: d.Decision, session: d.Session, run: held.id, tool: d.Tool, effect: d.Effect,
		ordered: d.Advance.GetOrdered() && len(held.path) < mostPath,
	}
	if _, ok := held.counts[d.Tool]; ok || len(held.counts) < mostTools {
		held.counts[d.Tool]++
	}
	if made.ordered {
		held.path = slices.Insert(held.path, min(d.After, len(held.path)), made)
	}
	m.open[d.Decision] = made
	m.spend(held, oneCall(d.Effect))
}

func oneCall(effect writv1.ToolEffect) cost {
	c := cost{calls: 1}
	if effect == writv1.ToolEffect_TOOL_EFFECT_WRITE {
		c.writes = 1
	}
	return c
}

// costOfOutcome returns what a call cost beside being one.
func costOfOutcome(outcome *writv1.OutcomeRecord) cost {
	c := cost{
		duration: outcome.GetDuration().AsDuration(), request: outcome.GetRequestBytes(), response: outcome.GetResponseBytes(),
	}
	for _, spent := range outcome.GetSpent() {
		amount := uint64(max(0, spent.GetAmount()))
		switch spent.GetDimension() {
		case writv1.Dimension_DIMENSION_INPUT_TOKENS:
			c.inputTokens += amount
		case writv1.Dimension_DIMENSION_OUTPUT_TOKENS:
			c.outputTokens += amount
		case writv1.Dimension_DIMENSION_MONEY:
			c.money += amount
		}
	}
	return c
}

func (m *Machine) spend(held *run, c cost) {
	held.cost.add(c)
	m.of(held.workflow).cost.add(c)
	m.changed(held)
}

// Ended takes the outcome of a call. One that came to nothing is taken back: it never
// started, or it failed and changes nothing. A call that writes and failed may have had
// its effect, and stands.
func (m *Machine) Ended(decision [16]byte, outcome *writv1.OutcomeRecord) {
	made, ok := m.open[decision]
	if !ok {
		return
	}
	delete(m.open, decision)
	held := m.runs[made.session]
	m.spend(held, costOfOutcome(outcome))
	state := outcome.GetState()
	if state == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED ||
		state == writv1.OutcomeState_OUTCOME_STATE_FAILED && made.effect == writv1.ToolEffect_TOOL_EFFECT_READ {
		held.takeBack(made)
	}
}

// Abandon takes back a call that was allowed and whose decision was never recorded.
func (m *Machine) Abandon(decision [16]byte) {
	made, ok := m.open[decision]
	if !ok {
		return
	}
	delete(m.open, decision)
	held := m.runs[made.session]
	held.takeBack(made)
	back := oneCall(made.effect)
	of := m.of(held.workflow)
	held.cost.calls -= back.calls
	held.cost.writes -= back.writes
	of.cost.calls -= back.calls
	of.cost.writes -= back.writes
	m.changed(held)
}

func (r *run) takeBack(made *call) {
	switch r.counts[made.tool] {
	case 0:
	case 1:
		delete(r.counts, made.tool)
	default:
		r.counts[made.tool]--
	}
	r.path = slices.DeleteFunc(r.path, func(c *call) bool { return c == made })
}

// Summary returns the run that a session is in at the time; nil when it is in none.
func (m *Machine) Summary(session Session, now time.Time) *writv1.RunSummary {
	held := m.at(session, now)
	if held == nil {
		return nil
	}
	out := held.summary()
	for _, made := range held.path {
		out.Path = append(out.Path, made.tool)
	}
	return out
}

// summary returns the run but for its path.
func (r *run) summary() *writv1.RunSummary {
	out := &writv1.RunSummary{
		Id: r.id[:], Contract: r.workflow.Contract, Feature: r.feature, Intent: r.intent,
		BeginTime: timestamppb.New(r.begin), Inputs: r.inputs,
	}
	for _, tool := range slices.Sorted(maps.Keys(r.counts)) {
		out.Counts = append(out.Counts, &writv1.StepCount{Tool: tool, Count: r.counts[tool]})
	}
	return out
}

// Version tells one reading of a session's run from a later one.
func (m *Machine) Version(session Session) uint64 {
	if held, ok := m.runs[session]; ok {
		return held.version
	}
	return 0
}

// Cost returns what the calls of a session's run cost so far.
func (m *Machine) Cost(session Session) *writv1.RunCost {
	if held, ok := m.runs[session]; ok {
		return held.cost.message()
	}
	return (cost{}).message()
}

func (m *Machine) at(session Session, now time.Time) *run {
	held, ok := m.runs[session]
	if !ok || !held.expire.After(now) {
		return nil
	}
	return held
}

// Totals returns what the runs of a workflow came to, and how many are open at the time.
func (m *Machine) Totals(workflow Workflow, now time.Time) (*writv1.WorkflowTotals, uint64) {
	var open uint64
	for _, held := range m.runs {
		if held.workflow == workflow && held.expire.After(now) {
			open++
		}
	}
	of, ok := m.totals[workflow]
	if !ok {
		of = &totals{}
	}
	return of.message(workflow), open
}

func (t *totals) message(of Workflow) *writv1.WorkflowTotals {
	return &writv1.WorkflowTotals{
		Tenant: of.Tenant, Contract: of.Contract, Begun: t.begun, Succeeded: t.succeeded, Failed: t.failed,
		Unacceptable: t.unacceptable, Cost: t.cost.message(),
	}
}

// Take takes the run out of a session, if nothing in it has changed since version was
// read: what follows is in no run.
func (m *Machine) Take(session Session, version uint64) (*Taken, bool) {
	held, ok := m.runs[session]
	if !ok || held.version != version {
		return nil, false
	}
	out := &Taken{run: held}
	for _, made := range m.open {
		if made.session == session {
			out.open = append(out.open, made)
		}
	}
	m.drop(session)
	return out, true
}

// Taken is a run that was taken out of its session.
type Taken struct {
	run  *run
	open []*call
}

// PutBack undoes Take.
func (m *Machine) PutBack(t *Taken) {
	m.runs[t.run.session] = t.run
	for _, made := range t.open {
		m.open[made.decision] = made
	}
}

// Forget drops runs that have expired.
func (m *Machine) Forget(now time.Time) {
	for session, held := range m.runs {
		if !held.expire.After(now) {
			m.drop(session)
		}
	}
}
