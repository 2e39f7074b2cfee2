// SPDX-License-Identifier: Apache-2.0

package policy

import writv1 "github.com/writ-dev/writ/proto/writ/v1"

var (
	authenticated   = passing("principal", "authenticated")
	unauthenticated = failing("principal", "authenticated", writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "",
		"present a client certificate or a token that names a workload or a user")
	timeless = failing("principal", "facts", writv1.Reason_REASON_AGENT_INTERNAL, "",
		"the time of the decision is not known")
)

// principal passes who is authenticated: a verified source names a workload or a
// user. A tenant or a role alone is nobody.
func (e *evaluation) principal() {
	if e.facts.GetTime().CheckValid() != nil {
		e.deny(timeless)
		return
	}
	who := e.call.Principal
	if who.GetWorkload() == "" && who.GetUser() == "" {
		e.deny(unauthenticated)
		return
	}
	e.pass(authenticated)
}
