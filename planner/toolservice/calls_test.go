// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// refusal is what a status says.
type refusal struct {
	Code                codes.Code
	Reason, Tool, Field string
}

func refusalOf(t testing.TB, err error) (refusal, *errdetails.ErrorInfo) {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok || err == nil {
		t.Fatalf("%v is not a status", err)
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetDomain() != "writ.dev" {
				t.Errorf("domain %q, want writ.dev", info.GetDomain())
			}
			return refusal{s.Code(), info.GetReason(), info.GetMetadata()["tool"], info.GetMetadata()["field"]}, info
		}
	}
	return refusal{Code: s.Code()}, nil
}

func TestAuthorizeAnswersWithTheVerdict(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		who    string
		call   *writv1.Envelope
		want   writv1.Verdict
		reason writv1.Reason
	}{
		"what is granted":          {"ann", say("hello"), writv1.Verdict_VERDICT_ALLOW, writv1.Reason_REASON_GRANTED},
		"what a check denies":      {"ann", say("loud"), writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_CONDITION_CHECK_FAILED},
		"what a human must see":    {"ann", say("ask"), writv1.Verdict_VERDICT_NEEDS_APPROVAL, writv1.Reason_REASON_APPROVAL_REQUIRED},
		"what nobody granted":      {"guest", say("hello"), writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_GRANT_MISSING},
		"who is nobody":            {"", say("hello"), writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED},
		"who has a bad token":      {"forged", say("hello"), writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID},
		"a tool that is not one":   {"ann", &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "stage.sing"}}, writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_TOOL_UNKNOWN},
		"an envelope with nothing": {"ann", &writv1.Envelope{}, writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_TOOL_UNKNOWN},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, echo)
			got, err := s.client.Authorize(s.as(tc.who), &writv1.AuthorizeRequest{Envelope: tc.call})
			if err != nil {
				t.Fatal(err)
			}
			if got.GetDecision().GetVerdict() != tc.want || got.GetDecision().GetReason() != tc.reason {
				t.Errorf("decision %s %s, want %s %s", got.GetDecision().GetVerdict(), got.GetDecision().GetReason(), tc.want, tc.reason)
			}
			if (got.GetArgs() != nil) != (tc.want == writv1.Verdict_VERDICT_ALLOW) {
				t.Errorf("arguments %q with verdict %s", got.GetArgs().GetText(), tc.want)
			}
			if (got.GetApprovalId() != "") != (tc.want == writv1.Verdict_VERDICT_NEEDS_APPROVAL) {
				t.Errorf("approval id %q with verdict %s", got.GetApprovalId(), tc.want)
			}
			outcomes := 0
			if tc.want == writv1.Verdict_VERDICT_ALLOW {
				outcomes = 1
			}
			record := s.records(1, outcomes)[0]
			if record.id != got.GetDecisionId() || record.decision.GetDecision().GetReason() != tc.reason ||
				record.decision.GetSurface() != writv1.Surface_SURFACE_AUTHORIZE {
				t.Errorf("record %s is %v, want that of the answer", record.id, record.decision)
			}
			if outcomes == 1 && record.outcomes[0].GetState() != writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED {
				t.Errorf("outcome %s, want UNOBSERVED", record.outcomes[0].GetState())
			}
		})
	}
}

func TestAuthorizeReleasesAKeyOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	request := &writv1.AuthorizeRequest{Envelope: say("hello"), IdempotencyKey: "k"}
	first, err := s.client.Authorize(s.as("ann"), request)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.client.Authorize(s.as("ann"), request)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.GetDecision().GetReason(); got != writv1.Reason_REASON_ADMISSION_ALREADY_RELEASED {
		t.Errorf("the repeat is %s, want ALREADY_RELEASED", got)
	}
	if second.GetEarlierDecisionId() != first.GetDecisionId() {
		t.Errorf("the repeat names %q, want the first decision %q", second.GetEarlierDecisionId(), first.GetDecisionId())
	}
}

func TestExecuteReturnsWhatTheToolAnswered(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(ctx context.Context, x tools.Execution) (*tools.Result, error) {
		if x.IdempotencyKey != "k-1" {
			t.Errorf("the tool got the key %q, want k-1", x.IdempotencyKey)
		}
		return echo(ctx, x)
	})
	ctx := metadata.AppendToOutgoingContext(s.as("ann"), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	got, err := s.client.Execute(ctx, &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k-1"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || string(got.GetResult().GetText()) != `{"text":"hello"}` {
		t.Errorf("answer %v, want the text that was said", got)
	}
	record := s.records(1, 1)[0]
	if record.id != got.GetDecisionId() || record.outcomes[0].GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("record %v, want that of the answer", record)
	}
	if trace := record.decision.GetTraceParent(); !strings.HasPrefix(trace, "00-0af7") {
		t.Errorf("traceparent %q, want the request's", trace)
	}
	if record.decision.GetEnvelope().GetRequestId() != "r-1" || record.decision.GetSurface() != writv1.Surface_SURFACE_EXECUTE {
		t.Errorf("record %v, want the envelope of the request, and its surface", record.decision)
	}
}

func TestExecuteRefusesWithAStatusAndARecord(t *testing.T) {
	t.Parallel()
	with := func(change func(*writv1.Envelope)) *writv1.ExecuteRequest {
		envelope := say("hello")
		change(envelope)
		return &writv1.ExecuteRequest{Envelope: envelope}
	}
	args := func(text string) *writv1.ExecuteRequest {
		return with(func(e *writv1.Envelope) { e.ToolCall.Args = &writv1.Json{Text: []byte(text)} })
	}
	key := func(key string) *writv1.ExecuteRequest {
		return &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: key}
	}
	for name, tc := range map[string]struct {
		who     string
		request *writv1.ExecuteRequest
		want    refusal
	}{
		"nobody":                 {"", key(""), refusal{codes.Unauthenticated, "PRINCIPAL_UNAUTHENTICATED", "stage.say", ""}},
		"a bad token":            {"forged", key(""), refusal{codes.Unauthenticated, "PRINCIPAL_TOKEN_INVALID", "stage.say", ""}},
		"no grant":               {"guest", key(""), refusal{codes.PermissionDenied, "GRANT_MISSING", "stage.say", ""}},
		"a check":                {"ann", args(`{"text":"loud"}`), refusal{codes.PermissionDenied, "CONDITION_CHECK_FAILED", "stage.say", ""}},
		"a human must see it":    {"ann", args(`{"text":"ask"}`), refusal{codes.FailedPrecondition, "APPROVAL_REQUIRED", "stage.say", ""}},
		"an unknown tool":        {"ann", with(func(e *writv1.Envelope) { e.ToolCall.Name = "stage.sing" }), refusal{codes.NotFound, "TOOL_UNKNOWN", "stage.sing", "tool_call.name"}},
		"no call":                {"ann", with(func(e *writv1.Envelope) { e.ToolCall = nil }), refusal{codes.NotFound, "TOOL_UNKNOWN", "", "tool_call.name"}},
		"no envelope":            {"ann", &writv1.ExecuteRequest{}, refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "", "envelope"}},
		"too long a claim":       {"ann", with(func(e *writv1.Envelope) { e.UserRole = strings.Repeat("x", 129) }), refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "stage.say", "envelope.user_role"}},
		"too long a tool":        {"ann", with(func(e *writv1.Envelope) { e.ToolCall.Name = strings.Repeat("x", 129) }), refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "", "envelope.tool_call.name"}},
		"too long a key":         {"ann", key(strings.Repeat("x", 257)), refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "stage.say", "idempotency_key"}},
		"a key that is a header": {"ann", key("x\r\ny: z"), refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "stage.say", "idempotency_key"}},
		"a key beyond ASCII":     {"ann", key("schlüssel"), refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "stage.say", "idempotency_key"}},
		"no executor":            {"ann", with(func(e *writv1.Envelope) { e.ToolCall.Name = "stage.look" }), refusal{codes.FailedPrecondition, "TOOL_NOT_EXECUTABLE", "stage.look", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(context.Context, tools.Execution) (*tools.Result, error) {
				t.Error("the tool ran")
				return nil, tools.ErrFailed
			})
			_, err := s.client.Execute(s.as(tc.who), tc.request)
			got, info := refusalOf(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			outcomes := 0
			if got.Reason == "TOOL_NOT_EXECUTABLE" {
				outcomes = 1
			}
			record := s.records(1, outcomes)[0]
			if record.id != info.GetMetadata()["decision_id"] || record.decision.GetSurface() != writv1.Surface_SURFACE_EXECUTE {
				t.Errorf("record %s is %v, want that of the refusal %v", record.id, record.decision, info)
			}
			if (info.GetMetadata()["approval_id"] != "") != (got.Reason == "APPROVAL_REQUIRED") {
				t.Errorf("approval id %q with %s", info.GetMetadata()["approval_id"], got.Reason)
			}
		})
	}
}

func TestAToolThatFailsIsAnAnswer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		result *tools.Result
		err    error
		want   writv1.Reason
	}{
		"it fails":            {nil, tools.ErrFailed, writv1.Reason_REASON_EXECUTION_FAILED},
		"it is late":          {nil, tools.ErrTimeout, writv1.Reason_REASON_EXECUTION_TIMEOUT},
		"it is not the same":  {nil, tools.ErrProgramChanged, writv1.Reason_REASON_EXECUTION_PROGRAM_CHANGED},
		"it hits a limit":     {nil, &tools.LimitError{Limit: "cpu"}, writv1.Reason_REASON_EXECUTION_LIMIT_EXCEEDED},
		"it answers nonsense": {&tools.Result{JSON: []byte("{")}, nil, writv1.Reason_REASON_EXECUTION_OUTPUT_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(context.Context, tools.Execution) (*tools.Result, error) { return tc.result, tc.err })
			request := &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"}
			got, err := s.client.Execute(s.as("ann"), request)
			if err != nil {
				t.Fatal(err)
			}
			if got.GetState() != writv1.OutcomeState_OUTCOME_STATE_FAILED || got.GetReason() != tc.want || got.GetResult() != nil || got.GetMessage() == "" {
				t.Errorf("answer %v, want FAILED, %s, and words", got, tc.want)
			}
			again, err := s.client.Execute(s.as("ann"), request)
			if err != nil {
				t.Fatal(err)
			}
			if !again.GetRepeatedOutcome() || again.GetState() != got.GetState() || again.GetReason() != got.GetReason() {
				t.Errorf("the repeat is %v, want the outcome of the first %v", again, got)
			}
			second := s.records(2, 1)[1]
			if earlier := hex.EncodeToString(second.decision.GetEarlierDecisionId()); second.id != again.GetDecisionId() || earlier != got.GetDecisionId() {
				t.Errorf("the repeat's record is %s and names %q, want %s and %s", second.id, earlier, again.GetDecisionId(), got.GetDecisionId())
			}
		})
	}
}

func TestARepeatThatNeverBeganIsRefusedTheSame(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	request := &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"}
	request.Envelope.ToolCall.Name = "stage.look"
	want := refusal{codes.FailedPrecondition, "TOOL_NOT_EXECUTABLE", "stage.look", ""}
	for range 2 {
		_, err := s.client.Execute(s.as("ann"), request)
		if got, _ := refusalOf(t, err); got != want {
			t.Errorf("refusal %v, want %v", got, want)
		}
	}
}

func TestAThousandExecutesWithOneKeyRunTheToolOnce(t *testing.T) {
	t.Parallel()
	const calls = 1000
	var runs, fresh, repeats, busy atomic.Int64
	s := newStage(t, func(ctx context.Context, x tools.Execution) (*tools.Result, error) {
		runs.Add(1)
		return echo(ctx, x)
	})
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			got, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"})
			switch {
			case err != nil:
				if r, _ := refusalOf(t, err); r.Reason != "ADMISSION_IN_PROGRESS" {
					t.Errorf("refusal %v", r)
				}
				busy.Add(1)
			case got.GetRepeatedOutcome():
				repeats.Add(1)
			default:
				fresh.Add(1)
			}
			if err == nil && string(got.GetResult().GetText()) != `{"text":"hello"}` {
				t.Errorf("answer %v, want the result", got)
			}
		})
	}
	all.Wait()
	if runs.Load() != 1 || fresh.Load() != 1 || fresh.Load()+repeats.Load()+busy.Load() != calls {
		t.Errorf("%d runs, %d first answers, %d repeats, %d busy; want 1 run and %d answers", runs.Load(), fresh.Load(), repeats.Load(), busy.Load(), calls)
	}
	s.records(calls, 1)
}

func TestAKeyIsInUseWhileItsCallRuns(t *testing.T) {
	t.Parallel()
	g := newGate()
	s := newStage(t, g.play)
	request := &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"}
	first := make(chan error, 1)
	go func() {
		_, err := s.client.Execute(s.as("ann"), request)
		first <- err
	}()
	<-g.entered
	_, err := s.client.Execute(s.as("ann"), request)
	if got, _ := refusalOf(t, err); got.Reason != "ADMISSION_IN_PROGRESS" || got.Code != codes.Aborted {
		t.Errorf("refusal %v, want IN_PROGRESS", got)
	}
	_, err = s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say("other"), IdempotencyKey: "k"})
	if got, _ := refusalOf(t, err); got.Reason != "ADMISSION_KEY_REUSED" {
		t.Errorf("refusal %v, want KEY_REUSED", got)
	}
	close(g.opened)
	if err := <-first; err != nil {
		t.Errorf("the first call: %v", err)
	}
}

func TestACallerWhoLeavesDoesNotStopTheTool(t *testing.T) {
	t.Parallel()
	g := newGate()
	s := newStage(t, g.play)
	ctx, leave := context.WithCancel(s.as("ann"))
	request := &writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"}
	left := make(chan error, 1)
	go func() {
		_, err := s.client.Execute(ctx, request)
		left <- err
	}()
	<-g.entered
	leave()
	if err := <-left; status.Code(err) != codes.Canceled {
		t.Errorf("the caller got %v", err)
	}
	close(g.opened)
	record := s.records(1, 1)[0]
	if got := record.outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("outcome %s, want SUCCEEDED", got)
	}
	again, err := s.client.Execute(s.as("ann"), request)
	if err != nil || !again.GetRepeatedOutcome() {
		t.Errorf("the repeat is %v, %v, want the outcome", again, err)
	}
}

func TestAPanicCostsOneCall(t *testing.T) {
	t.Parallel()
	strike := func(context.Context, tools.Execution) (*tools.Result, error) { panic(errors.New("secret")) }
	next := func(t *testing.T, s *stage) {
		t.Helper()
		if _, err := s.client.Authorize(s.as("ann"), &writv1.AuthorizeRequest{Envelope: say("hello")}); err != nil {
			t.Errorf("the next call: %v", err)
		}
	}
	t.Run("of an executor", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, strike)
		response, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say("hello")})
		if err != nil || response.GetState() != writv1.OutcomeState_OUTCOME_STATE_FAILED ||
			response.GetReason() != writv1.Reason_REASON_AGENT_INTERNAL || strings.Contains(response.String(), "secret") {
			t.Errorf("answered %v, %v; want FAILED, AGENT_INTERNAL and no more", response, err)
		}
		record := s.records(1, 1)[0]
		if got := record.outcomes[0].GetState(); record.id != response.GetDecisionId() || got != writv1.OutcomeState_OUTCOME_STATE_FAILED {
			t.Errorf("record %s with outcome %s, want FAILED", record.id, got)
		}
		next(t, s)
	})
	t.Run("before the call could be admitted", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, strike)
		_, err := s.client.Execute(s.as("panic"), &writv1.ExecuteRequest{Envelope: say("hello")})
		got, info := refusalOf(t, err)
		if got.Code != codes.Internal || got.Reason != "AGENT_INTERNAL" || strings.Contains(err.Error(), "secret") {
			t.Errorf("refusal %v, want AGENT_INTERNAL and no more", err)
		}
		if record := s.records(1, 0)[0]; record.id != info.GetMetadata()["decision_id"] {
			t.Errorf("record %s, want that of the refusal %v", record.id, info)
		}
		next(t, s)
	})
}
