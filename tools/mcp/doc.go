// SPDX-License-Identifier: Apache-2.0

// Package mcp looks at what MCP servers list, so that a tool whose definition
// changed after it was reviewed is held back.
//
// A bundle binds a tool of its own to a tool of an MCP server, at the digest of
// the definition that somebody read (McpBinding.definition_digest). A [Watcher]
// asks the server what it lists now, at the start and on a timer, and says of
// each bound tool whether the definition is the reviewed one. "writ tools pin"
// uses the [Client] alone, to print the digests that go into a bundle.
//
//	client := mcp.ThroughEnvoy("/run/writ/egress.sock", "repo", "/mcp")
//	definitions, err := client.List(ctx)
//
// The client speaks both generations of streamable HTTP: the stateless one of
// 2026-07-28, and the one with sessions before it. It reads strictly: one JSON
// value, no duplicate keys, no invalid UTF-8, and everything bounded; a server
// that lists two tools of one name is not believed at all. It never calls a tool,
// follows no redirect, and answers no request of the server's.
package mcp
