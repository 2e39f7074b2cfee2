// SPDX-License-Identifier: Apache-2.0

// Package wire reads calls out of the protocols in which they come in, and
// writes the answers back in the same: a denial speaks the caller's language.
//
// A [Route] is a way to one upstream of the catalogue; its protocol is one of a
// literal list, a file each (mcp.go, httpjson.go). [Route.Decode] reads a whole
// [Request] into a [Call], or into a Call with a Refusal. What follows is up to
// the Call: [Call.Deny] writes a denial, [Call.Rewrite] the request as it is sent
// on, [Call.Answer] the checked response.
//
//	call := route.Decode(request)
//	if call.Refusal != nil {
//		return call.Deny(&wire.Denial{Refusal: call.Refusal, DecisionID: id})
//	}
//
// What the package promises: a body is read once, strictly; what it cannot read
// in exactly one way it refuses with a [reasons.Error]; nothing of the unknown
// passes. What it does not do: authenticate, type the arguments (tools/schemas
// does), decide, or know of any transport's own messages.
package wire
