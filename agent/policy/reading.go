// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	"github.com/writ-dev/writ/state/atoms"
)

// reading is what a call's arguments say under a bundle.
type reading struct {
	bundle *Bundle
	entry  *entry
	// typed holds the arguments, refusal why they could not be read.
	typed   protoreflect.Message
	refusal *reasons.Error
	// canonical is typed in canonical JSON.
	canonical []byte
	// leaves are the values in it; cut says that there are more than were read.
	// They are there only where the tool's rules ask for provenance.
	leaves []atoms.Leaf
	cut    bool
	// counted is what the arguments add up to for budgets, once anything asked.
	counted *tally
}

// Needs is what facts a decision on a call will read.
type Needs struct {
	// Session is whether the session's summary is read, and Tools are the tools
	// whose steps are.
	Session bool
	Tools   []string
	// Values is whether the provenance of the values is read: of Leaves.
	Values bool
	Leaves []atoms.Leaf
	// Sink is whether what the values carry is read.
	Sink bool
}

// Read reads the arguments of a call and returns what Decide will need to know of
// it. The call keeps the reading, so that they are read once. A call whose arguments
// cannot be read needs nothing, and what nobody says is not read.
func (b *Bundle) Read(c *Call) Needs {
	if c.Principal.GetWorkload() == "" && c.Principal.GetUser() == "" {
		return Needs{}
	}
	r := b.read(c)
	c.reading = r
	if r.entry == nil {
		return Needs{}
	}
	uses := &r.entry.uses
	return Needs{
		Session: uses.session || len(b.limits) > 0,
		Tools:   uses.tools,
		Values:  uses.values && r.typed != nil,
		Leaves:  r.leaves,
		Sink:    r.entry.tool.Options.GetSink() != nil,
	}
}

// read reads the arguments against the tool's request, where the tool is known.
func (b *Bundle) read(c *Call) *reading {
	if c.reading != nil && c.reading.bundle == b {
		return c.reading
	}
	r := &reading{bundle: b, entry: b.find(c)}
	if r.entry == nil {
		return r
	}
	typed, err := r.entry.tool.Request.Read(c.Arguments.JSON, c.Arguments.Params, c.Limits)
	if err != nil {
		r.refusal = reasons.Of(err)
		return r
	}
	r.typed = typed
	// What came in is about as long as what it says.
	r.canonical = r.entry.tool.Request.Append(make([]byte, 0, len(c.Arguments.JSON)+canonicalRoom), typed)
	if !r.entry.uses.values {
		return r
	}
	if r.leaves, _, r.cut, err = atoms.Leaves(r.canonical); err != nil {
		r.leaves, r.cut = nil, true
	}
	for i := range r.leaves {
		// What can only be one of a few names says nothing of where it came from.
		r.leaves[i].Bool = r.leaves[i].Bool || r.entry.enums[r.leaves[i].Field]
		r.leaves[i].Audience = r.entry.audience[r.leaves[i].Field]
		for _, d := range r.entry.demands {
			if d.perUnit > 0 && d.field == r.leaves[i].Field {
				r.leaves[i].PerUnit = d.perUnit
			}
		}
	}
	return r
}
