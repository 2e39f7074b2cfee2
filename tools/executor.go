// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"context"
	"errors"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Executor runs calls of tools of one kind. It MUST be safe for use by several
// goroutines, MUST return once ctx is done, and MUST run a call at most once
// unless the tool is idempotent.
type Executor interface {
	// Execute runs one call. Its error is, or wraps, one of the errors of this
	// package. A Result beside an error tells as much as is known.
	Execute(ctx context.Context, e Execution) (*Result, error)
}

// Execution is one call to run. It was decided, and its record is durable.
type Execution struct {
	// DecisionID is the id of the decision that allows it, for the tool's own books.
	DecisionID string
	// Tool is the tool to run.
	Tool *Tool
	// Message is the typed request. Executors run from it, or from JSON, and MUST
	// NOT change it.
	Message protoreflect.Message
	// JSON is Message in canonical JSON.
	JSON []byte
	// IdempotencyKey is sent on where the tool's upstream recognises it. It may be
	// empty.
	IdempotencyKey string
	// TraceParent is the W3C traceparent that the tool gets, where it gets one; it is
	// well-formed, or empty.
	TraceParent string
	// Progress is called with each line of progress; nil if nobody listens.
	Progress func(string)
}

// DecisionHeader is the header that tells an upstream which decision let a call
// through.
const DecisionHeader = "x-writ-decision-id"

// Result is what came of a call.
type Result struct {
	// JSON is the raw output. It is not validated yet.
	JSON []byte
	// HTTPStatus is the status of the answer; zero where there is none.
	HTTPStatus int
	// RequestBytes counts what was sent.
	RequestBytes int64
	// ResponseBytes counts what came back.
	ResponseBytes int64
}

// What executors say of a call that did not succeed.
var (
	// ErrTimeout means that the tool took longer than it may.
	ErrTimeout = errors.New("the tool took longer than its timeout")
	// ErrFailed means that the tool ran, or began to, and failed.
	ErrFailed = errors.New("the tool failed")
	// ErrUpstreamUnavailable means that nothing was reached that could have run the
	// tool: it did not run.
	ErrUpstreamUnavailable = errors.New("the tool's upstream cannot be reached")
	// ErrUpstreamStatus means that the upstream answered, with a failing status.
	ErrUpstreamStatus = errors.New("the tool's upstream answered with a failing status")
	// ErrOutputInvalid means that the output cannot be read.
	ErrOutputInvalid = errors.New("the tool's output cannot be read")
	// ErrSandboxUnavailable means that the system does not give the isolation that
	// the tool demands: it did not run.
	ErrSandboxUnavailable = errors.New("the system does not give the sandbox that the tool demands")
	// ErrProgramChanged means that the program is not the one that was reviewed.
	ErrProgramChanged = errors.New("the tool's program is not the one that was reviewed")
	// ErrCancelled means that the call was given up from outside.
	ErrCancelled = errors.New("the tool was stopped")
	// ErrLimit means that the tool went over a limit; [LimitError] says which.
	ErrLimit = errors.New("the tool went over a limit")
)

// LimitError says which limit a tool went over. It is an [ErrLimit].
type LimitError struct {
	// Limit names the limit, such as "cpu" or "response_bytes".
	Limit string
}

// Error names the limit.
func (e *LimitError) Error() string { return "the tool went over its limit of " + e.Limit }

// Unwrap returns [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }
