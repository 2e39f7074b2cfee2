// SPDX-License-Identifier: Apache-2.0

package policy

import writv1 "github.com/writ-dev/writ/proto/writ/v1"

var (
	known   = passing("tool", "known")
	unknown = failing("tool", "known", writv1.Reason_REASON_TOOL_UNKNOWN, "tool_call.name",
		"the bundle has no such tool here; list the tools")
	pinned     = passing("tool", "pinned")
	pinChanged = failing("tool", "pinned", writv1.Reason_REASON_TOOL_PIN_CHANGED, "",
		"the server lists another definition of the tool than the one that was reviewed")
	pinUnseen = failing("tool", "pinned", writv1.Reason_REASON_TOOL_PIN_UNSEEN, "",
		"the server's definition of the tool has not been seen yet; try again later")
)

// knownTool passes a tool that the bundle has on the call's upstream, and whose
// definition, where a server lists it, is the one that was reviewed.
func (e *evaluation) knownTool() {
	if e.entry == nil {
		e.deny(unknown)
		return
	}
	e.pass(known)
	if e.entry.tool.Options.GetMcp() == nil {
		return
	}
	switch e.facts.GetPin().GetState() {
	case writv1.PinState_PIN_STATE_MATCHED:
		e.pass(pinned)
	case writv1.PinState_PIN_STATE_CHANGED:
		e.deny(pinChanged)
	default:
		e.deny(pinUnseen)
	}
}
