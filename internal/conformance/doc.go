// SPDX-License-Identifier: Apache-2.0

// Package conformance gives one table of calls to every face of the agent, and
// expects one verdict, one admission, one record with the same content.
//
// The faces are ext_authz, ext_proc and both together, through a real Envoy, and
// ToolService.Authorize over gRPC. What only HTTP can say (a content encoding, a
// path) is given to the first three. The package holds tests alone.
package conformance
