// SPDX-License-Identifier: Apache-2.0

// Package web runs tools that are HTTP APIs of the catalogue.
//
// A call goes out by one way alone: Envoy's listener for the agent, on a unix
// socket, which routes to the catalogue's upstreams and to nothing else. The
// request's Host is the upstream's name; Envoy chooses the address, adds the
// credentials and bounds the time. What is sent is rendered from the typed
// message by the tool's google.api.http binding, never from bytes that came in.
//
//	executor, err := web.New(web.Options{Listener: "unix:/run/writ/egress.sock", Catalogue: catalogue})
//	result, err := executor.Execute(ctx, execution)
//
// The package promises that a call is sent once: it is sent again only when it
// cannot have been seen (the socket refused the connection) and the tool is
// declared idempotent. It follows no redirect, asks for no compression, reads no
// more than its bounds, and takes JSON alone. It does not validate the answer
// against its schema; the agent does.
package web
