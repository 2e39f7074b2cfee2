// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"github.com/writ-dev/writ/proto/reasons"
	"github.com/writ-dev/writ/tools/schemas"
)

var decoded = passing("decode", "json")

// decode reads the arguments once, strictly. Where the tool is known they are
// read against its request in the same pass, and what does not fit the request
// is kept for the stage schema; else only their syntax is judged.
func (e *evaluation) decode() {
	e.reading = e.bundle.read(e.call)
	e.index()
	switch {
	case e.entry == nil:
		e.syntax(e.call.Arguments.JSON)
		return
	case e.refusal == nil:
		e.pass(decoded)
		return
	}
	if strings.HasPrefix(reasons.Name(e.refusal.Reason), "SCHEMA_") {
		e.pass(decoded)
		return
	}
	e.deny(failing("decode", "json", e.refusal.Reason, e.refusal.Field, e.refusal.Message))
}

// syntax judges the arguments of a tool that is not known. A call may have no
// body at all.
func (e *evaluation) syntax(json []byte) {
	if len(json) > 0 {
		if err := schemas.Check(json, e.call.Limits); err != nil {
			refusal := reasons.Of(err)
			e.deny(failing("decode", "json", refusal.Reason, refusal.Field, refusal.Message))
			return
		}
	}
	e.pass(decoded)
}
