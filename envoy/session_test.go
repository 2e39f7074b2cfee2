// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// returns is a workflow over two calls that pass through Envoy: what was paid is given
// back, once, to the payment that was looked up.
var returns = map[string]string{
	"contracts/all.yaml": `contracts:
  - name: give_back
    intents: [{name: return, principals: {roles: [agent]}}]
    order: orders.look_up -> orders.return_money
    tools:
      - {tool: orders.look_up}
      - tool: orders.return_money
        at_most: 1
        condition: 'run.called("orders.look_up").succeeded().with({"result.payment": args.payment, "result.amount": args.amount})'
    success: run.called("orders.return_money").succeeded().any()
`,
}

// in sends a request in a session.
func in(stack *envoytest.Stack, token string, request *http.Request) *envoytest.Answer {
	if token != "" {
		request.Header.Set("x-writ-session", token)
	}
	return stack.Do(request)
}

// begin begins a session for a user of the tenant acme, with a run of the workflow if it
// is named.
func begin(t *testing.T, stack *envoytest.Stack, user, tenant, workflow string) (*writv1.Principal, string) {
	t.Helper()
	who := &writv1.Principal{User: user, Tenant: tenant, Roles: []string{"agent"}}
	session, refusal := stack.Agent.BeginSession(t.Context(), who, "", 0)
	if refusal != nil {
		t.Fatal(refusal)
	}
	if workflow != "" {
		if _, refusal := stack.Agent.BeginWorkflow(t.Context(), who, session.Token, workflow, "", nil); refusal != nil {
			t.Fatal(refusal)
		}
	}
	return who, session.Token
}

func TestARunOfAWorkflowHoldsTheCallsThatPassThroughEnvoy(t *testing.T) {
	t.Parallel()
	for _, enforcement := range []writv1.Enforcement{proc, both} {
		t.Run(strings.ToLower(enforcement.String()), func(t *testing.T) {
			t.Parallel()
			stack := envoytest.Start(t, envoytest.Options{Enforcement: enforcement, Files: returns})
			who, token := begin(t, stack, "ann", "acme", "give_back")
			_, plain := begin(t, stack, "ann", "acme", "")
			_, others := begin(t, stack, "eve", "other", "give_back")
			look := func() *http.Request {
				return stack.Request("payments", http.MethodGet, "/v1/tenants/acme/payments/p-7", "")
			}
			for _, step := range []struct {
				what, token string
				request     *http.Request
				want        string
			}{
				{"a call in no session", "", look(), "CONTRACT_REQUIRED"},
				{"a call in a session without a run", plain, look(), "CONTRACT_REQUIRED"},
				{"a call in another tenant's session", others, look(), "CONTRACT_REQUIRED"},
				{"what comes too early", token, stack.Refund(4200, "p-7"), "CONTRACT_ORDER"},
				{"the look-up", token, look(), ""},
				{"another payment", token, stack.Refund(4200, "p-8"), "CONTRACT_CONDITION"},
				{"another amount", token, stack.Refund(4100, "p-7"), "CONTRACT_CONDITION"},
				{"what was looked up", token, stack.Refund(4200, "p-7"), ""},
				{"the same again", token, stack.Refund(4200, "p-7"), "CONTRACT_"},
			} {
				answer := in(stack, step.token, step.request)
				if step.want == "" && answer.Status != http.StatusOK || step.want != "" && (answer.Status == http.StatusOK || !strings.Contains(problemOf(t, answer).Reason, step.want)) {
					t.Errorf("%s: status %d: %s, want %q", step.what, answer.Status, answer.Body, step.want)
				}
			}
			for _, seen := range stack.Payments.Seen() {
				if seen.Header.Get("x-writ-session") != "" {
					t.Errorf("the token went on to the service: %v", seen.Header)
				}
			}
			if got := len(stack.Payments.Seen()); got != 2 {
				t.Errorf("%d calls reached the service, want 2", got)
			}
			run := ended(t, stack, who, token)
			if run.Conclusion.Result != writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED || run.Cost.GetCalls() != 2 || run.Cost.GetResponseBytes() == 0 {
				t.Errorf("the run came to %v, and cost %v", run.Conclusion, run.Cost)
			}
		})
	}
}

func ended(t *testing.T, stack *envoytest.Stack, who *writv1.Principal, token string) *agent.Run {
	t.Helper()
	run, refusal := stack.Agent.EndWorkflow(t.Context(), who, token, nil)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return run
}

func TestAnApprovalLetsOneCallThroughEnvoy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		_, token := begin(t, stack, "ann", "acme", "")
		_, other := begin(t, stack, "ann", "acme", "")
		first := problemOf(t, in(stack, token, stack.Refund(6000, "p-7")))
		if first.Reason != "APPROVAL_REQUIRED" || len(first.ApprovalID) != 32 {
			t.Fatalf("the call is answered %+v", first)
		}
		if again := problemOf(t, in(stack, token, stack.Refund(6000, "p-7"))); again.ApprovalID != first.ApprovalID {
			t.Errorf("a repeat is another request: %+v", again)
		}
		if got := stack.Approve(); got != 1 {
			t.Fatalf("%d approvals wait, want 1", got)
		}
		if elsewhere := problemOf(t, in(stack, other, stack.Refund(6000, "p-7"))); elsewhere.ApprovalID == first.ApprovalID {
			t.Errorf("another session has the same approval: %+v", elsewhere)
		}
		if answer := in(stack, token, stack.Refund(6000, "p-7")); answer.Status != http.StatusOK {
			t.Errorf("the approved call: status %d: %s", answer.Status, answer.Body)
		}
		if third := problemOf(t, in(stack, token, stack.Refund(6000, "p-7"))); third.Reason != "APPROVAL_REQUIRED" || third.ApprovalID == first.ApprovalID {
			t.Errorf("a third: %+v", third)
		}
		if got := len(stack.Payments.Seen()); got != 1 {
			t.Errorf("%d calls reached the service, want 1", got)
		}
	})
}
