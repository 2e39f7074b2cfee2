// SPDX-License-Identifier: Apache-2.0

package policy

import writv1 "github.com/writ-dev/writ/proto/writ/v1"

var unapproved = failing("approval", "approved", writv1.Reason_REASON_APPROVAL_REQUIRED, "",
	"a human must approve the call first")

// approval asks for a human where a check does. No approvals are held yet
// (docs/status.md), so nothing answers it; where nothing asks it leaves no check.
func (e *evaluation) approval() {
	if e.pending != nil {
		e.checks = append(e.checks, unapproved)
	}
}
