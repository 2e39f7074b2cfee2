// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// Request is a whole HTTP request as it came in.
type Request struct {
	// Method, Scheme and Authority are the pseudo headers.
	Method, Scheme, Authority string
	// Path is the raw path with its query.
	Path string
	// Headers are all others in their order, names in lower case, duplicates kept.
	Headers []Header
	// Body is the whole body.
	Body []byte
}

// Header is one header field.
type Header struct {
	// Name is in lower case.
	Name string
	// Value is as it came in.
	Value string
}

// Response is a whole HTTP response.
type Response struct {
	// Status is the HTTP status.
	Status int
	// Headers are in their order, content-length not among them.
	Headers []Header
	// Body is the whole body.
	Body []byte
}

// Sent is a request as it is sent on to the upstream.
type Sent struct {
	// Method is the HTTP method.
	Method string
	// Path is the raw path with its query.
	Path string
	// Set are headers that replace all of their name; the others stay.
	Set []Header
	// Remove are the names of headers that are not sent on.
	Remove []string
	// Body is the whole body.
	Body []byte
}

// Kind is what a request asks for.
type Kind int

const (
	// KindCall is a call of a tool: it needs a decision.
	KindCall Kind = iota
	// KindHousekeeping is what the protocol needs around calls, such as MCP's
	// "initialize" and "tools/list": it needs an authenticated principal and no
	// decision.
	KindHousekeeping
)

// Call is what was read from a request.
type Call struct {
	// Kind is what the request asks for.
	Kind Kind
	// Refusal is why the request could not be read; nil when it was.
	Refusal *reasons.Error
	// Envelope is what the planner said. Its ToolCall names the tool and claims;
	// the arguments are not in it. Never nil.
	Envelope *writv1.Envelope
	// Arguments are the proposed arguments, unread.
	Arguments tools.Arguments
	// IdempotencyKey is the caller's; empty is none. It is sent on with the request.
	IdempotencyKey string
	// SessionToken is the token of the caller's session where the body has it; empty is
	// none. The header [HeaderSession] is the other place.
	SessionToken string
	// Lists says that the response lists the upstream's tools: [Call.List] leaves
	// out what the caller may not call. Housekeeping only.
	Lists bool
	// Streams says that the response has no end of its own: it is passed on as
	// it comes. Housekeeping only.
	Streams bool

	speaker speaker
}

// speaker is the part of a call that its protocol knows.
type speaker interface {
	deny(denial *Denial) *Response
	rewrite(canonical []byte, message protoreflect.Message) (*Sent, error)
	answer(response *Response, decisionID string, validate Validate) *Answer
	list(response *Response, visible Visible) *Response
}

// Denial is why a call is not let through, as the caller is told.
type Denial struct {
	// Refusal is the reason.
	Refusal *reasons.Error
	// DecisionID is the id of the decision, 32 hexadecimal digits; empty if there
	// is none.
	DecisionID string
	// EarlierID is the id of the decision that stands in the way; empty if none does.
	EarlierID string
	// ApprovalID is the id to ask an approver for; empty if no approval is needed.
	ApprovalID string
	// Checks are the names of the checks that fail.
	Checks []string
}

// Validate types a tool's answer against the tool's response schema and returns
// it in canonical form without what must not leave.
type Validate func(body []byte) ([]byte, *reasons.Error)

// Visible says whether the caller may know of a tool, by the bundle's name.
type Visible func(tool string) bool

// Answer is a response of an upstream after it was checked.
type Answer struct {
	// Response is what the caller gets.
	Response *Response
	// Failure is why the call did not succeed; nil when it did.
	Failure *reasons.Error
}

// Deny returns the denial in the protocol of the call.
func (c *Call) Deny(denial *Denial) *Response { return c.speaker.deny(denial) }

// Rewrite returns the request as it is sent on: made again from the canonical
// arguments and the typed message, never from the bytes that came in. A nil
// message is read again from canonical.
func (c *Call) Rewrite(canonical []byte, message protoreflect.Message) (*Sent, error) {
	return c.speaker.rewrite(canonical, message)
}

// Answer returns what the caller gets for the upstream's response to a call of
// a tool: nothing of its body that validate did not see passes. The id is the
// decision's, for an answer that is a failure.
func (c *Call) Answer(response *Response, decisionID string, validate Validate) *Answer {
	return c.speaker.answer(response, decisionID, validate)
}

// List returns the response to a call that Lists, without the tools that are not
// visible and those that the bundle does not know. A failing status passes as it is.
func (c *Call) List(response *Response, visible Visible) *Response {
	return c.speaker.list(response, visible)
}

// protocol is one wire format.
type protocol interface {
	// decode reads request. It never returns nil, and a speaker is always set.
	decode(route *Route, request *Request) *Call
}

// protocols are all that a catalogue's upstream may speak.
var protocols = map[writv1.Protocol]protocol{
	writv1.Protocol_PROTOCOL_HTTP_JSON: httpJSON{},
	writv1.Protocol_PROTOCOL_MCP:       mcp{},
}

// Unrouted returns the call of a request for which there is no route: it is
// refused, in the one form that every HTTP client reads.
func Unrouted(request *Request, refusal *reasons.Error) *Call {
	return &Call{
		Refusal:  refusal,
		Envelope: &writv1.Envelope{},
		speaker:  &httpSpeaker{request: request},
	}
}
