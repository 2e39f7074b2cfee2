// SPDX-License-Identifier: Apache-2.0

package policy

import writv1 "github.com/writ-dev/writ/proto/writ/v1"

// mostViolations bounds the broken rules that one decision names.
const mostViolations = 64

var valid = passing("schema", "valid")

// schema passes arguments that are of the request's type and keep its rules.
// Each broken rule is a check of its own, named by the rule.
func (e *evaluation) schema() {
	if e.refusal != nil {
		e.deny(failing("schema", "valid", e.refusal.Reason, e.refusal.Field, e.refusal.Message))
		return
	}
	if len(e.call.Closed) > 0 {
		e.closed = e.closed || e.entry.blind()
		e.pass(valid)
		return
	}
	violations := e.entry.tool.Request.Validate(e.typed)
	if len(violations) == 0 {
		e.pass(valid)
		return
	}
	for _, violation := range violations[:min(len(violations), mostViolations)] {
		e.deny(failing("schema", ruleName(violation.Rule), writv1.Reason_REASON_SCHEMA_RULE_VIOLATED, violation.Field, violation.Message))
	}
}

// ruleName is the name of the check that a broken rule leaves.
func ruleName(rule string) string {
	const most = 128
	switch {
	case rule == "":
		return "valid"
	case len(rule) > most:
		return rule[:most]
	default:
		return rule
	}
}
