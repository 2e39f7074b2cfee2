// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/workflows"
)

// concludeAttempts is how often a run is judged anew because a call was made in it
// meanwhile.
const concludeAttempts = 3

// advanced returns the decision as the session's run takes it.
func (ad *Admission) advanced() workflows.Decided {
	return workflows.DecidedOf(workflows.Session(ad.session), ad.id,
		ad.result.Tool.Name, ad.result.Tool.Options.GetEffect(), ad.facts, ad.result.Decision)
}

// Run is a run of a workflow that began or ended.
type Run struct {
	// ID names it in records.
	ID workflows.ID
	// ExpireTime is when it ends by itself.
	ExpireTime time.Time
	// Conclusion is how it came out, and Cost what it cost, once it has ended.
	Conclusion *policy.Conclusion
	Cost       *writv1.RunCost
}

// BeginWorkflow begins a run of a workflow in a session of the principal's. It is
// recorded as durably as the agent's floor asks before it is told.
func (a *Agent) BeginWorkflow(ctx context.Context, who *writv1.Principal, token, workflow, intent string, inputs []byte) (*Run, *reasons.Error) {
	bundle := a.generation.Load()
	if bundle == nil {
		return nil, reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	}
	id, refusal := a.findSession(who, token)
	if refusal != nil {
		return nil, refusal
	}
	begin, refusal := bundle.Begin(who, workflow, intent, inputs)
	if refusal != nil {
		return nil, refusal
	}
	leave, refusal := a.enter(id)
	if refusal != nil {
		return nil, refusal
	}
	defer leave()
	made := &Run{}
	if _, err := io.ReadFull(a.options.Random, made.ID[:]); err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent has no randomness")
	}
	now := a.options.Clock()
	a.state.mu.Lock()
	open := a.state.workflows.Summary(workflows.Session(id), now) != nil
	made.ExpireTime = earlier(now.Add(begin.Deadline), a.state.sessions.Expire(id))
	a.state.mu.Unlock()
	if open {
		return nil, reasons.New(writv1.Reason_REASON_CONTRACT_RUN, "session", "the session is in a run already; end it, or begin another session")
	}
	_, refusal = a.recordWorkflow(ctx, &writv1.WorkflowRecord{
		Run: made.ID[:], Session: id[:], Event: writv1.WorkflowEvent_WORKFLOW_EVENT_BEGIN, Principal: who, Time: timestamppb.New(now),
		Contract: begin.Contract, Feature: begin.Feature, Intent: begin.Intent, Inputs: begin.Inputs, ExpireTime: timestamppb.New(made.ExpireTime),
	})
	return made, refusal
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// enter lets one beginning or ending of a run at a time into a session.
func (a *Agent) enter(id sessions.ID) (leave func(), refusal *reasons.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.moving[id] {
		return nil, reasons.New(writv1.Reason_REASON_ADMISSION_CONTENDED, "session", "a run of the session is being begun or ended; try again")
	}
	a.moving[id] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.moving, id)
	}, nil
}

// EndWorkflow ends the run that a session of the principal's is in, and judges it by its
// contract under the bundle in force. From the moment that it is judged the session's
// calls are in no run.
func (a *Agent) EndWorkflow(ctx context.Context, who *writv1.Principal, token string, output []byte) (*Run, *reasons.Error) {
	id, refusal := a.findSession(who, token)
	if refusal != nil {
		return nil, refusal
	}
	leave, refusal := a.enter(id)
	if refusal != nil {
		return nil, refusal
	}
	defer leave()
	for range concludeAttempts {
		made, record, taken, refusal := a.conclude(who, id, output)
		if refusal != nil {
			return nil, refusal
		}
		if taken == nil {
			continue
		}
		recorded, refusal := a.recordWorkflow(ctx, record)
		if refusal != nil && !recorded {
			a.state.mu.Lock()
			a.state.workflows.PutBack(taken)
			a.state.mu.Unlock()
		}
		return made, refusal
	}
	return nil, reasons.New(writv1.Reason_REASON_ADMISSION_CONTENDED, "session", "calls are being made in the run; end it when they are done")
}

// conclude judges the session's run and takes it out of the session; taken is nil where
// something has changed in it meanwhile.
func (a *Agent) conclude(who *writv1.Principal, id sessions.ID, output []byte) (*Run, *writv1.WorkflowRecord, *workflows.Taken, *reasons.Error) {
	bundle, session, now := a.generation.Load(), workflows.Session(id), a.options.Clock()
	a.state.mu.Lock()
	run := a.state.workflows.Summary(session, now)
	version := a.state.workflows.Version(session)
	cost := a.state.workflows.Cost(session)
	facts := &writv1.Facts{Time: timestamppb.New(now)}
	facts.Session = a.state.sessions.Summary(id, sessions.OwnerOf(who), now, bundle.Concluding(run.GetContract()))
	facts.Session.Run = run
	a.state.mu.Unlock()
	if run == nil {
		return nil, nil, nil, reasons.New(writv1.Reason_REASON_CONTRACT_RUN, "session", "the session is in no run; begin one")
	}
	made := &Run{ID: workflows.ID(run.GetId()), Conclusion: policy.Conclude(bundle, who, facts, output), Cost: cost}
	record := &writv1.WorkflowRecord{
		Run: run.GetId(), Session: id[:], Event: writv1.WorkflowEvent_WORKFLOW_EVENT_END, Principal: who, Time: facts.GetTime(),
		Contract: run.GetContract(), Feature: run.GetFeature(), Intent: run.GetIntent(),
		Output: made.Conclusion.Output, Facts: facts, Result: made.Conclusion.Result, Checks: made.Conclusion.Checks, Cost: cost,
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	taken, ok := a.state.workflows.Take(session, version)
	if !ok {
		return nil, nil, nil, nil
	}
	return made, record, taken, nil
}

// recordWorkflow records a run that began or ended. A record that is not as durable as
// asked may be recorded all the same.
func (a *Agent) recordWorkflow(ctx context.Context, record *writv1.WorkflowRecord) (recorded bool, refusal *reasons.Error) {
	position, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_WORKFLOW, Tenant: record.GetPrincipal().GetTenant(),
		BundleDigest: a.bundleDigest(), Body: record,
		Written: func(err error) {
			if err == nil {
				a.state.mu.Lock()
				defer a.state.mu.Unlock()
				a.state.workflows.Apply(record)
			}
		},
	}, a.options.Floor)
	if err != nil {
		return position.Recorded, ledgerRefusal(err)
	}
	return true, nil
}

// WorkflowReport tells how the runs of a workflow came out, of the principal's tenant,
// and how many are open. Only who may begin the workflow is told.
func (a *Agent) WorkflowReport(who *writv1.Principal, workflow string) (*writv1.WorkflowTotals, uint64, *reasons.Error) {
	bundle := a.generation.Load()
	if bundle == nil {
		return nil, 0, reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle")
	}
	if !bundle.MayBegin(who, workflow) {
		return nil, 0, reasons.New(writv1.Reason_REASON_CONTRACT_UNKNOWN, "workflow", "the bundle has no such workflow that the principal may begin")
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	totals, open := a.state.workflows.Totals(workflows.Workflow{Tenant: who.GetTenant(), Contract: workflow}, a.options.Clock())
	return totals, open, nil
}
