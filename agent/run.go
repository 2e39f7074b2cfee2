// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Execution is what running a tool gave.
type Execution struct {
	// State is how it ended.
	State writv1.OutcomeState
	// Reason and Message say why, when it did not succeed.
	Reason  writv1.Reason
	Message string
	// JSON is the result in canonical JSON, with sensitive fields redacted.
	JSON []byte
	// Duration is how long the tool took.
	Duration time.Duration

	result *tools.Result
}

// Outcome returns what to finish the admission with.
func (e *Execution) Outcome() Outcome {
	outcome := Outcome{State: e.State, Reason: e.Reason, Message: e.Message, Duration: e.Duration}
	if e.result != nil {
		outcome.HTTPStatus = e.result.HTTPStatus
		outcome.RequestBytes, outcome.ResponseBytes = e.result.RequestBytes, e.result.ResponseBytes
	}
	return outcome
}

// Run releases the call and executes its tool. Progress, which may be nil, gets
// what the tool reports while it runs. A caller that goes away does not stop a
// tool that has begun: half a change is worse than one nobody waits for, and a
// repeat under the same key learns how it ended. The tool's timeout stops it.
func (ad *Admission) Run(ctx context.Context, progress func(string)) *Execution {
	if err := ad.Release(); err != nil {
		return failed(reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the call cannot be run"))
	}
	executor, refusal := ad.agent.executor(ad.result.Tool)
	if refusal != nil {
		return notStarted(refusal)
	}
	select {
	case ad.agent.executions <- struct{}{}:
		defer func() { <-ad.agent.executions }()
	default:
		return notStarted(reasons.New(writv1.Reason_REASON_AGENT_OVERLOADED, "", "too many tools are running; try again later"))
	}
	ad.running.Store(true)
	defer ad.running.Store(false)
	return ad.survive(ctx, func() *Execution { return ad.execute(ctx, executor, progress) })
}

// survive runs an execution and turns a panic into a failure, so that it costs one
// call. The tool may have had effects by then.
func (ad *Admission) survive(ctx context.Context, execute func() *Execution) (execution *Execution) {
	start := ad.agent.options.Clock()
	defer func() {
		if cause := recover(); cause != nil {
			ad.agent.options.Log.ErrorContext(ctx, "an execution failed because it panicked",
				"decision_id", ad.ID(), "tool", ad.result.Tool.Name, "error", Panicked(cause), "stack", string(debug.Stack()))
			execution = failed(reasons.New(writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it ran the tool"))
			execution.Duration = ad.agent.elapsed(start)
		}
	}()
	return execute()
}

// executor returns what runs the tool.
func (a *Agent) executor(tool *tools.Tool) (tools.Executor, *reasons.Error) {
	var executor tools.Executor
	switch tool.Options.GetExecutor().(type) {
	case *writv1.ToolOptions_Command:
		executor = a.options.Command
	case *writv1.ToolOptions_Web:
		executor = a.options.Web
	}
	if executor == nil {
		return nil, reasons.New(writv1.Reason_REASON_TOOL_NOT_EXECUTABLE, "",
			"the tool %s cannot be executed here; call it through the proxy, or authorize it", tool.Name)
	}
	return executor, nil
}

func (ad *Admission) execute(ctx context.Context, executor tools.Executor, progress func(string)) *Execution {
	timeout := policy.DefaultTimeout
	if t := ad.result.Tool.Options.GetTimeout(); t != nil {
		timeout = t.AsDuration()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	start := ad.agent.options.Clock()
	result, err := executor.Execute(ctx, tools.Execution{
		DecisionID:     ad.ID(),
		Tool:           ad.result.Tool,
		Message:        ad.result.Message,
		JSON:           ad.result.Canonical,
		IdempotencyKey: ad.request.IdempotencyKey,
		TraceParent:    ad.onward(),
		Progress:       progress,
	})
	took := ad.agent.elapsed(start)
	if err != nil {
		execution := failed(executionRefusal(err))
		execution.Duration, execution.result = took, result
		return execution
	}
	redacted, refusal := ad.Response(result.JSON)
	if refusal != nil {
		execution := failed(reasons.Wrap(refusal, writv1.Reason_REASON_EXECUTION_OUTPUT_INVALID, refusal.Field, "the tool's output does not match its schema: %s", refusal.Message))
		execution.Duration, execution.result = took, result
		return execution
	}
	return &Execution{
		State:    writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED,
		JSON:     redacted,
		Duration: took,
		result:   result,
	}
}

// Response validates what the tool answered against its response schema, redacts
// what the decision obliges to redact, and returns it in canonical JSON. What it
// returns is all that may be sent on.
func (ad *Admission) Response(body []byte) ([]byte, *reasons.Error) {
	schema := ad.result.Tool.Response
	message, err := schema.Read(body, nil, schemas.Limits{Bytes: ad.agent.options.Limits.ResponseBytes})
	if err != nil {
		refusal := reasons.Of(err)
		return nil, reasons.Wrap(err, writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, declared(refusal), "%s", refusal.Message)
	}
	if violations := schema.Validate(message); len(violations) > 0 {
		first := violations[0]
		return nil, reasons.New(writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, first.Field, "%s", first.Message)
	}
	whole := schema.Append(nil, message)
	spent := ad.bundle.Spent(ad.result.Tool, message)
	_, out, err := schema.AppendPublic(nil, message)
	if err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to read the response")
	}
	paths := schema.Redact(message, ad.pseudonym)
	redacted := schema.Append(nil, message)
	ad.mu.Lock()
	defer ad.mu.Unlock()
	ad.answer = answer{whole: whole, redacted: redacted, removed: sensitive("result.", out), paths: paths, spent: spent}
	return redacted, nil
}

// declared returns the field that a refusal of a response names, as far as the
// schema declares it: keys that the tool chose may carry what must not pass.
func declared(refusal *reasons.Error) string {
	field, _, _ := strings.Cut(refusal.Field, "[")
	if refusal.Reason != writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD {
		return field
	}
	return field[:max(0, strings.LastIndexByte(field, '.'))]
}

// pseudonym stands for a value in a response: equal for equal values of a tenant.
func (ad *Admission) pseudonym(value []byte) string {
	sum := digest(ad.tenantKey, []byte("writ/pseudonym/v1"), value)
	return "hmac-sha256:" + hexString(sum[:16])
}

// sensitive turns what was left out of a public form into what the ledger commits to.
func sensitive(prefix string, removed []schemas.Removed) []ledger.Sensitive {
	out := make([]ledger.Sensitive, 0, len(removed))
	for _, r := range removed {
		out = append(out, ledger.Sensitive{Path: prefix + r.Path, Value: r.Value})
	}
	return out
}

func failed(refusal *reasons.Error) *Execution {
	return &Execution{
		State:   writv1.OutcomeState_OUTCOME_STATE_FAILED,
		Reason:  refusal.Reason,
		Message: refusal.Message,
	}
}

func notStarted(refusal *reasons.Error) *Execution {
	execution := failed(refusal)
	execution.State = writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED
	return execution
}

// executionRefusal maps what executors say to a reason.
func executionRefusal(err error) *reasons.Error {
	var limit *tools.LimitError
	switch {
	case errors.As(err, &limit):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_LIMIT_EXCEEDED, "", "the tool exceeded its limit of %s", limit.Limit)
	case errors.Is(err, tools.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_TIMEOUT, "", "the tool took longer than its timeout")
	case errors.Is(err, tools.ErrUpstreamUnavailable):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE, "", "the tool's upstream cannot be reached")
	case errors.Is(err, tools.ErrUpstreamStatus):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS, "", "the tool's upstream answered with a failing status")
	case errors.Is(err, tools.ErrOutputInvalid):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_OUTPUT_INVALID, "", "the tool's output cannot be read")
	case errors.Is(err, tools.ErrSandboxUnavailable):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_SANDBOX_UNAVAILABLE, "", "the machine does not give the sandbox that the tool needs")
	case errors.Is(err, tools.ErrProgramChanged):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_PROGRAM_CHANGED, "", "the tool's program is not the one that was allowed")
	case errors.Is(err, tools.ErrCancelled), errors.Is(err, context.Canceled):
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_CANCELLED, "", "the tool was stopped")
	default:
		return reasons.Wrap(err, writv1.Reason_REASON_EXECUTION_FAILED, "", "the tool failed")
	}
}
