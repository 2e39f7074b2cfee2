// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// MaxEnvelopeBytes bounds an envelope in its binary form, arguments apart, so that
// it fits a record of 65,535 bytes together with the most that a principal may be
// and what is decided. Whoever reads envelopes refuses larger ones.
const MaxEnvelopeBytes = 16 << 10

// Call is one proposed use of a tool, as a face received it.
type Call struct {
	// Principal is who asks, verified by the face; nil or empty is nobody.
	Principal *writv1.Principal
	// Envelope is what the planner says. Its ToolCall names the tool; its args are
	// not read.
	Envelope *writv1.Envelope
	// Arguments are the proposed arguments, unread.
	Arguments tools.Arguments
	// Upstream is the catalogue's upstream that the call is on its way to. Empty
	// on a face that has none: then any tool of the bundle may be named.
	Upstream string
	// Limits bounds the reading of the arguments.
	Limits schemas.Limits
	// Closed are the paths of sensitive arguments whose values are not there, in a call
	// that is decided again: the schema held with them, and what read them is witnessed
	// by the facts. A call that is decided for the first time MUST NOT have any.
	Closed []string

	// reading is what [Bundle.Read] read of them.
	reading *reading
}

// Result is a decision with what was typed on the way to it. Decisions share
// their checks and obligations with the bundle: they MUST NOT be changed.
type Result struct {
	// Decision is what was decided; never nil.
	Decision *writv1.Decision
	// Effects are the decision's, also where a human must approve the call first.
	Effects []*writv1.Effect
	// Approval is what a human is asked for, or has given; nil when none is needed.
	Approval *writv1.ApprovalRequest
	// Unbounded are the canonical arguments without the fields that Approval bounds; nil
	// where it bounds none.
	Unbounded []byte
	// Witnesses are what the facts are to say of the expressions that read a sensitive
	// argument.
	Witnesses []*writv1.Witness
	// Closed says that the decision is none: it takes a value of Call.Closed, of which the
	// facts hold no witness.
	Closed bool
	// Tool is the tool that was called; nil when the bundle has none of that name
	// on that upstream.
	Tool *tools.Tool
	// Message holds the typed arguments; nil when they could not be read.
	Message protoreflect.Message
	// Canonical is Message in canonical JSON: what is identified, recorded,
	// executed and sent on.
	Canonical []byte
}
