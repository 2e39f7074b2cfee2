// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
)

// PlayedEnd is a run of a workflow that ended in a scenario.
type PlayedEnd struct {
	// Step is the place of the end among the scenario's steps, from 1.
	Step int
	// Workflow is the name of the contract.
	Workflow string
	// Conclusion is how the run came out, Cost what it cost.
	Conclusion *policy.Conclusion
	Cost       *writv1.RunCost
}

// beginWorkflow begins a run in the session, as an agent does.
func (p *player) beginWorkflow(step int, s *writv1.ScenarioWorkflow) {
	session := workflows.Session(p.session)
	begin, refusal := p.bundle.Begin(p.principal, s.GetWorkflow(), s.GetIntent(), s.GetInputs().GetText())
	if refusal == nil && p.workflows.Summary(session, p.now) != nil {
		refusal = reasons.New(writv1.Reason_REASON_CONTRACT_RUN, "", "the session is in a run already")
	}
	if got := reasonOf(refusal); got != s.GetWant() {
		p.differs("step %d, beginning %s: %s, want %s", step, s.GetWorkflow(), told(refusal), reasons.Name(s.GetWant()))
	}
	if refusal != nil {
		return
	}
	p.minted++
	var id workflows.ID
	binary.BigEndian.PutUint64(id[8:], p.minted)
	p.workflows.Apply(&writv1.WorkflowRecord{
		Run: id[:], Session: p.session[:], Event: writv1.WorkflowEvent_WORKFLOW_EVENT_BEGIN, Principal: p.principal, Time: timestamppb.New(p.now),
		Contract: begin.Contract, Feature: begin.Feature, Intent: begin.Intent, Inputs: begin.Inputs,
		ExpireTime: timestamppb.New(p.now.Add(min(begin.Deadline, sessions.MostLifetime))),
	})
}

func reasonOf(refusal *reasons.Error) writv1.Reason {
	if refusal == nil {
		return writv1.Reason_REASON_UNSPECIFIED
	}
	return refusal.Reason
}

func told(refusal *reasons.Error) string {
	if refusal == nil {
		return "it began"
	}
	return fmt.Sprintf("%s %s: %s", reasons.Name(refusal.Reason), refusal.Field, refusal.Message)
}

// endWorkflow ends the session's run and judges it, as an agent does.
func (p *player) endWorkflow(step int, s *writv1.ScenarioEnd) {
	session := workflows.Session(p.session)
	run := p.workflows.Summary(session, p.now)
	if run == nil {
		p.differs("step %d: the session is in no run that could end", step)
		return
	}
	facts := DefaultFacts(p.now)
	facts.Session = p.sessions.Summary(p.session, sessions.OwnerOf(p.principal), p.now, p.bundle.Concluding(run.GetContract()))
	facts.Session.Run = run
	end := PlayedEnd{
		Step: step, Workflow: run.GetContract(), Cost: p.workflows.Cost(session),
		Conclusion: policy.Conclude(p.bundle, p.principal, facts, s.GetOutput().GetText()),
	}
	p.played.Ends = append(p.played.Ends, end)
	result := end.Conclusion.Result
	if want := s.GetWant(); want != writv1.WorkflowResult_WORKFLOW_RESULT_UNSPECIFIED && want != result {
		p.differs("step %d, ending %s: %s, want %s%s", step, run.GetContract(), result, want, failed(end.Conclusion.Checks))
	}
	p.workflows.Apply(&writv1.WorkflowRecord{
		Run: run.GetId(), Session: p.session[:], Event: writv1.WorkflowEvent_WORKFLOW_EVENT_END, Principal: p.principal,
		Contract: run.GetContract(), Result: result,
	})
}

func (p *player) differs(format string, args ...any) {
	p.played.Differences = append(p.played.Differences, fmt.Sprintf(format, args...))
}

// failed tells the first check that did not pass.
func failed(checks []*writv1.Check) string {
	for _, check := range checks {
		if check.GetOutcome() != writv1.CheckOutcome_CHECK_OUTCOME_PASS {
			return fmt.Sprintf(" (%s %s: %s)", check.GetName(), check.GetField(), check.GetMessage())
		}
	}
	return ""
}

// advance counts a call that is carried out in the session's run.
func (p *player) advance(made *PlayedCall, d sessions.Decided) {
	p.workflows.Decided(workflows.DecidedOf(workflows.Session(p.session), d.Decision, d.Tool, d.Effect,
		made.Facts, &writv1.Decision{Effects: made.Result.Effects}))
}
