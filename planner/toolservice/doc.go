// SPDX-License-Identifier: Apache-2.0

// Package toolservice is the planners' face over gRPC: writ.v1.ToolService, with
// health and reflection beside it.
//
// It reads each call once, asks an [Identifier] who is calling, and hands both to
// the agent. What cannot be read, or comes from nobody, is handed on as well: the
// agent refuses it and records the refusal like any other decision. The face then
// puts the answer into gRPC's words: Authorize answers OK with the verdict; a
// refused Execute is a status with google.rpc.ErrorInfo, by the table of
// proto/reasons; a tool that ran and failed is an OK answer that says so.
//
//	server, err := toolservice.NewServer(toolservice.Options{Agent: a, Identity: verifier, ...})
//	go server.Serve(listener)
//	server.Serving()
//	...
//	server.NotServing() // clients that watch health go elsewhere
//	server.Drain(ctx)   // calls in hand end, or ctx does
//
// The package promises that a panic costs one call, that a client which reads
// slowly never slows a tool (its progress is dropped instead), and that every
// message read is bounded. A request over twice the limit is refused by the
// transport, unread and so without a record. It does not authenticate, decide,
// validate arguments, or run tools.
package toolservice
