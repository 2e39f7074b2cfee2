// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// Request is a call as a face received it.
type Request struct {
	// Surface is the face.
	Surface writv1.Surface
	// Principal is who the face verified; nil or empty is nobody.
	Principal *writv1.Principal
	// Envelope is what the planner said. Its ToolCall names the tool; its
	// arguments are in Arguments, not here.
	Envelope *writv1.Envelope
	// Arguments are the proposed arguments, unread.
	Arguments tools.Arguments
	// Refusal is set when the face could not read the call or verify who asks:
	// the admission is refused with it, and recorded.
	Refusal *reasons.Error
	// Input are the bytes that came in, for the record of a call that cannot be
	// typed. Only a keyed digest of them is kept.
	Input []byte
	// IdempotencyKey is the caller's; empty is none.
	IdempotencyKey string
	// KeyPlace says whether the upstream sees the idempotency key too.
	KeyPlace KeyPlace
	// SessionToken names a session that the agent minted; empty, or one that is not
	// the principal's, is the principal's ambient session.
	SessionToken string
	// TraceParent is the W3C traceparent of the request.
	TraceParent string
	// Upstream is the catalogue's upstream the call is on its way to; empty on
	// the planners' face.
	Upstream string
	// Token is the decision token the route asks for; nil is none.
	Token *TokenRequest
	// Generation is the bundle a stream began with; nil is the current one.
	Generation *policy.Bundle
}

// KeyPlace says who sees an idempotency key.
type KeyPlace int

const (
	// KeyKept means that the key stays in the agent.
	KeyKept KeyPlace = iota
	// KeySentOn means that the upstream gets the key with the call.
	KeySentOn
)

// TokenRequest asks for a decision token.
type TokenRequest struct {
	// Kind is the form of the token.
	Kind writv1.DecisionTokenKind
	// Audience is whom it is for.
	Audience string
	// Lifetime is how long it is valid, at most 60 s; zero is 60 s.
	Lifetime time.Duration
	// Digest returns the digest of the request as it will be sent on, given the
	// canonical arguments (ledger/token says over what).
	Digest func(canonical []byte) [32]byte
}

// Outcome is how a call that was let through or run has ended.
type Outcome struct {
	// State is how it ended.
	State writv1.OutcomeState
	// Reason is why, when it did not succeed.
	Reason writv1.Reason
	// Message is what went wrong, in words, without sensitive values.
	Message string
	// HTTPStatus is the upstream's; zero is none.
	HTTPStatus int
	// RequestBytes went to the tool, ResponseBytes came back.
	RequestBytes, ResponseBytes int64
	// Duration is how long the tool took.
	Duration time.Duration
}
