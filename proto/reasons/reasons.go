// SPDX-License-Identifier: Apache-2.0

// Package reasons says what a [writv1.Reason] is on each wire, and carries one
// in a Go error.
//
// A refusal is made once, where it is found, as an [Error]; it becomes a denying
// decision in agent; and only the faces (envoy, planner, wire) look up with [On]
// what it is as a gRPC code, an HTTP status or a JSON-RPC code. The package does
// no mapping of its own beyond the table, and holds no policy.
//
//	if len(body) > limit {
//		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the body has more than %d bytes", limit)
//	}
package reasons

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Domain is the domain of every google.rpc.ErrorInfo that writ sends (AIP-193).
const Domain = "writ.dev"

// Wire is what a reason is on each wire.
type Wire struct {
	GRPC    codes.Code
	HTTP    int
	JSONRPC int
	Retry   Retry
}

// Retry says whether the same call may succeed later without anybody changing it.
type Retry int

const (
	// RetryNever means that the same call fails again.
	RetryNever Retry = iota
	// RetryLater means that the same call may succeed later.
	RetryLater
)

// On returns what reason is on each wire. A reason outside the table is
// AGENT_INTERNAL's row, so that nothing unknown looks like success.
func On(reason writv1.Reason) Wire {
	if wire, ok := table[reason]; ok {
		return wire
	}
	return table[writv1.Reason_REASON_AGENT_INTERNAL]
}

// Name returns the name of reason without its prefix, as ErrorInfo carries it.
func Name(reason writv1.Reason) string {
	return strings.TrimPrefix(reason.String(), "REASON_")
}

// Error is a refusal on its way to become a decision. Its Message and Field are
// shown to the caller: they MUST hold no sensitive value and no internal detail.
// Err, the cause, is for the log alone.
type Error struct {
	Reason  writv1.Reason
	Field   string
	Message string
	Err     error
}

// New returns an Error whose message is formatted from format and args.
func New(reason writv1.Reason, field, format string, args ...any) *Error {
	return &Error{Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an Error with a cause that is kept from the caller.
func Wrap(err error, reason writv1.Reason, field, format string, args ...any) *Error {
	return &Error{Reason: reason, Field: field, Message: fmt.Sprintf(format, args...), Err: err}
}

// Error returns reason, field and message, without the cause.
func (e *Error) Error() string {
	if e.Field == "" {
		return Name(e.Reason) + ": " + e.Message
	}
	return Name(e.Reason) + ": " + e.Field + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the Error in err's chain. An error without one is AGENT_INTERNAL
// with err as the cause; nil gives nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal
	}
	return Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed while it handled the call")
}
