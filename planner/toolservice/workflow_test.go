// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// letterFiles are the mail bundle with a contract: one letter to whom was looked up.
func letterFiles() map[string]string {
	files := maps.Clone(mailFiles)
	delete(files, "limits/all.yaml")
	files["contracts/all.yaml"] = `contracts:
  - name: letter
    intents: [{name: write, principals: {roles: [actor]}}]
    input: mail.v1.FindRequest
    order: book.find -> mail.send
    tools:
      - {tool: book.find, condition: args.name == inputs.name}
      - {tool: mail.send}
    success: run.called("mail.send").succeeded().any()
`
	return files
}

func TestAPlannerCarriesOutAWorkflow(t *testing.T) {
	t.Parallel()
	s := newStageOf(t, letterFiles(), book, troupe{})
	workflows := writv1.NewWorkflowServiceClient(s.conn)
	ctx := s.in("ann", s.begun("ann", "Write to Jane.").GetToken())
	if got := s.call(ctx, "book.find", `{"name":"Jane"}`); got != "CONTRACT_REQUIRED" {
		t.Errorf("outside a workflow: refused with %q", got)
	}
	begin := &writv1.BeginWorkflowRequest{Workflow: "letter", Inputs: &writv1.Json{Text: []byte(`{"name":"Jane"}`)}}
	run, err := workflows.BeginWorkflow(ctx, begin)
	if err != nil || len(run.GetRunId()) != 32 || run.GetExpireTime() == nil {
		t.Fatal(run, err)
	}
	if _, err := workflows.BeginWorkflow(ctx, begin); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a second run in the session: %v", err)
	}
	for _, step := range []struct{ tool, args, want string }{
		{"mail.send", `{"to":"jane@example.com"}`, "CONTRACT_ORDER"},
		{"book.find", `{"name":"Eve"}`, "CONTRACT_CONDITION"},
		{"book.find", `{"name":"Jane"}`, ""},
		{"mail.send", `{"to":"jane@example.com"}`, ""},
		{"mail.send", `{"to":"jane@example.com"}`, "CONTRACT_ORDER"},
	} {
		if got := s.call(ctx, step.tool, step.args); got != step.want {
			t.Errorf("%s %s: refused with %q, want %q", step.tool, step.args, got, step.want)
		}
	}
	end, err := workflows.EndWorkflow(ctx, &writv1.EndWorkflowRequest{})
	if err != nil || end.GetResult() != writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED || end.GetRunId() != run.GetRunId() || end.GetCost().GetCalls() != 2 {
		t.Errorf("the end: %v, %v", end, err)
	}
	failed := s.in("ann", s.begun("ann", "Write to Jane.").GetToken())
	if _, err := workflows.BeginWorkflow(failed, begin); err != nil {
		t.Fatal(err)
	}
	if end, err = workflows.EndWorkflow(failed, &writv1.EndWorkflowRequest{}); err != nil || end.GetResult() != writv1.WorkflowResult_WORKFLOW_RESULT_FAILED {
		t.Errorf("a run in which nothing was done: %v, %v", end, err)
	}
	report, err := workflows.GetWorkflowReport(s.as("bob"), &writv1.GetWorkflowReportRequest{Workflow: "letter"})
	if err != nil || report.GetTotals().GetBegun() != 2 || report.GetTotals().GetSucceeded() != 1 || report.GetCostPerSuccess().GetWrites() != 1 {
		t.Errorf("the report: %v, %v", report, err)
	}
}

func TestARunCostsWhatItsCallsCost(t *testing.T) {
	t.Parallel()
	files := letterFiles()
	files["protos/mail.proto"] = strings.Replace(files["protos/mail.proto"], `name: "mail.send"`, `name: "mail.send" cost: {money_nano_dollars: 2500, input_tokens: 3}`, 1)
	s := newStageOf(t, files, book, troupe{})
	workflows := writv1.NewWorkflowServiceClient(s.conn)
	for range 2 {
		ctx := s.in("ann", s.begun("ann", "Write to Jane.").GetToken())
		if _, err := workflows.BeginWorkflow(ctx, &writv1.BeginWorkflowRequest{Workflow: "letter", Inputs: &writv1.Json{Text: []byte(`{"name":"Jane"}`)}}); err != nil {
			t.Fatal(err)
		}
		s.call(ctx, "book.find", `{"name":"Jane"}`)
		if got := s.call(ctx, "mail.send", `{"to":"jane@example.com"}`); got != "" {
			t.Fatalf("refused with %q", got)
		}
		end, err := workflows.EndWorkflow(ctx, &writv1.EndWorkflowRequest{})
		if err != nil || end.GetCost().GetMoneyNanoDollars() != 2500 || end.GetCost().GetInputTokens() != 3 {
			t.Errorf("the run cost %v: %v", end.GetCost(), err)
		}
	}
	report, err := workflows.GetWorkflowReport(s.as("bob"), &writv1.GetWorkflowReportRequest{Workflow: "letter"})
	if err != nil || report.GetTotals().GetCost().GetMoneyNanoDollars() != 5000 || report.GetCostPerSuccess().GetMoneyNanoDollars() != 2500 {
		t.Errorf("the report: %v, %v", report, err)
	}
}

func TestAWorkflowIsBegunByWhomAndAsTheContractSays(t *testing.T) {
	t.Parallel()
	s := newStageOf(t, letterFiles(), book, troupe{})
	workflows := writv1.NewWorkflowServiceClient(s.conn)
	token := s.begun("ann", "").GetToken()
	for name, c := range map[string]struct {
		who, token, workflow, inputs string
		want                         codes.Code
	}{
		"inputs that the contract does not know": {"ann", token, "letter", `{"nam":"Jane"}`, codes.InvalidArgument},
		"inputs that are too long":               {"ann", token, "letter", `{"name":"` + string(make([]byte, 101)) + `"}`, codes.InvalidArgument},
		"no such workflow":                       {"ann", token, "parcel", `{}`, codes.NotFound},
		"no session":                             {"ann", "", "letter", `{}`, codes.NotFound},
		"another's session":                      {"bob", token, "letter", `{}`, codes.NotFound},
		"without a name":                         {"ann", token, "", `{}`, codes.InvalidArgument},
	} {
		_, err := workflows.BeginWorkflow(s.in(c.who, c.token), &writv1.BeginWorkflowRequest{Workflow: c.workflow, Inputs: &writv1.Json{Text: []byte(c.inputs)}})
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := workflows.EndWorkflow(s.in("ann", token), &writv1.EndWorkflowRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("ending no run: %v", err)
	}
	if _, err := workflows.GetWorkflowReport(s.as("guest"), &writv1.GetWorkflowReportRequest{Workflow: "letter"}); status.Code(err) != codes.NotFound {
		t.Errorf("the report for who may not begin it: %v", err)
	}
}
