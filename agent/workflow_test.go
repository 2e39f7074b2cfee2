// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// contractFiles put the workshop's work under a contract.
var contractFiles = map[string]string{
	"contracts/all.yaml": `contracts:
  - name: order
    intents: [{name: ordered, principals: {roles: [maker]}}]
    order: workshop.make -> workshop.send
    tools:
      - {tool: workshop.make}
      - {tool: workshop.send, at_most: 1, condition: 'run.called("workshop.make").succeeded().with({"result.thing": args.thing})'}
    success: run.called("workshop.send").any()
`,
}

// inRun is a request in a session with a run.
func (w *workshop) inRun() (ask func(tool, thing string) *agent.Request, token string) {
	w.t.Helper()
	who := request("workshop.make", "").Principal
	session, refusal := w.agent.BeginSession(w.t.Context(), who, "", 0)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	if _, refusal := w.agent.BeginWorkflow(w.t.Context(), who, session.Token, "order", "", nil); refusal != nil {
		w.t.Fatal(refusal)
	}
	return func(tool, thing string) *agent.Request {
		r := request(tool, thing)
		r.SessionToken = session.Token
		return r
	}, session.Token
}

func (w *workshop) carryOut(r *agent.Request) *agent.Admission {
	w.t.Helper()
	admission := w.allow(r)
	execution := admission.Run(w.t.Context(), nil)
	if err := admission.Finish(execution.Outcome()); err != nil {
		w.t.Fatal(err)
	}
	return admission
}

func (w *workshop) let(r *agent.Request) {
	w.t.Helper()
	admission := w.allow(r)
	if err := admission.Release(); err != nil {
		w.t.Fatal(err)
	}
	if err := admission.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workshop) end(token string) *agent.Run {
	w.t.Helper()
	run, refusal := w.agent.EndWorkflow(w.t.Context(), request("", "").Principal, token, nil)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	return run
}

func TestARunIsTheFoldOfItsRecords(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: contractFiles})
	ask, token := w.inRun()
	refused := func(r *agent.Request, want writv1.Reason) {
		t.Helper()
		if got := w.agent.Admit(t.Context(), r).Decision().GetReason(); got != want {
			t.Errorf("refused with %s, want %s", got, want)
		}
	}
	refused(request("workshop.make", "chair"), writv1.Reason_REASON_CONTRACT_REQUIRED)
	refused(ask("workshop.send", "chair"), writv1.Reason_REASON_CONTRACT_ORDER)
	w.carryOut(ask("workshop.make", "chair"))
	refused(ask("workshop.send", "table"), writv1.Reason_REASON_CONTRACT_CONDITION)
	claimed := ask("workshop.send", "chair")
	claimed.Envelope.Workflow = "other"
	refused(claimed, writv1.Reason_REASON_CONDITION_CLAIM_MISMATCH)
	fold := func() {
		t.Helper()
		if diff := cmp.Diff(w.agent.State().Dump(), w.folded()); diff != "" {
			t.Errorf("the live state is not the fold (-live +fold):\n%s", diff)
		}
	}
	fold()
	w.let(ask("workshop.send", "chair"))
	refused(ask("workshop.send", "chair"), writv1.Reason_REASON_CONTRACT_TOO_OFTEN)
	if run := w.end(token); run.Conclusion.Result != writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED || run.Cost.GetWrites() != 2 {
		t.Errorf("the run ended as %+v, at %v", run.Conclusion, run.Cost)
	}
	refused(ask("workshop.make", "chair"), writv1.Reason_REASON_CONTRACT_REQUIRED)
	if _, refusal := w.agent.EndWorkflow(t.Context(), request("", "").Principal, token, nil); refusal == nil || refusal.Reason != writv1.Reason_REASON_CONTRACT_RUN {
		t.Errorf("ending a run twice: %v", refusal)
	}
	fold()
	totals, open, refusal := w.agent.WorkflowReport(request("", "").Principal, "order")
	if refusal != nil || open != 0 || totals.GetBegun() != 1 || totals.GetSucceeded() != 1 || totals.GetCost().GetCalls() != 2 {
		t.Errorf("report: %v, %d open, %v", totals, open, refusal)
	}
}

func TestARunSurvivesARestart(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: contractFiles})
	ask, token := w.inRun()
	w.carryOut(ask("workshop.make", "chair"))
	before := w.agent.State().Dump()
	if diff := cmp.Diff(before, w.reopened()); diff != "" {
		t.Errorf("(-before the restart +after):\n%s", diff)
	}
	w.let(ask("workshop.send", "chair"))
	if run := w.end(token); run.Conclusion.Result != writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED {
		t.Errorf("the run ended as %+v", run.Conclusion)
	}
}

func TestWhatMayBeCalledOnceIsCalledOnceByAThousand(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: contractFiles})
	for range 20 {
		ask, _ := w.inRun()
		w.carryOut(ask("workshop.make", "chair"))
		var group sync.WaitGroup
		var allowed atomic.Int32
		together := make(chan struct{})
		for range 50 {
			group.Go(func() {
				r := ask("workshop.send", "chair")
				<-together
				if w.agent.Admit(context.Background(), r).Allowed() {
					allowed.Add(1)
				}
			})
		}
		close(together)
		group.Wait()
		if allowed.Load() != 1 {
			t.Errorf("%d calls were allowed, want 1", allowed.Load())
		}
	}
}

func TestASessionIsInOneRunAtATime(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: contractFiles})
	_, token := w.inRun()
	who := request("", "").Principal
	for name, c := range map[string]struct {
		who                     *writv1.Principal
		token, workflow, intent string
		want                    writv1.Reason
	}{
		"a second run":          {who, token, "order", "", writv1.Reason_REASON_CONTRACT_RUN},
		"no session":            {who, "", "order", "", writv1.Reason_REASON_ADMISSION_SESSION_UNKNOWN},
		"another's session":     {&writv1.Principal{User: "bob", Tenant: "acme", Roles: []string{"maker"}}, token, "order", "", writv1.Reason_REASON_ADMISSION_SESSION_UNKNOWN},
		"no such workflow":      {who, token, "theft", "", writv1.Reason_REASON_CONTRACT_UNKNOWN},
		"no such intent":        {who, token, "order", "stolen", writv1.Reason_REASON_CONTRACT_INTENT},
		"who may not begin it":  {&writv1.Principal{User: "ann", Tenant: "acme"}, token, "order", "", writv1.Reason_REASON_CONTRACT_INTENT},
		"nobody who was proved": {&writv1.Principal{}, token, "order", "", writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED},
	} {
		if _, refusal := w.agent.BeginWorkflow(t.Context(), c.who, c.token, c.workflow, c.intent, nil); refusal == nil || refusal.Reason != c.want {
			t.Errorf("%s: refused with %v, want %s", name, refusal, reasons.Name(c.want))
		}
	}
}
