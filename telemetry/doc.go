// SPDX-License-Identifier: Apache-2.0

// Package telemetry shows what an agent did as OpenTelemetry traces and metrics: one
// span a decision, one span an execution, under the semantic conventions for generative
// AI and MCP where they have a name, and under "writ." where not. names.go is the whole
// vocabulary.
//
//	tracer, err := telemetry.New(ctx, telemetry.Options{Config: config.GetTelemetry().GetOtlp(), ...})
//	agent.New(ctx, agent.Options{Tracer: tracer, ...})
//	...
//	err = tracer.Close(ctx) // after the agent's
//
// What the package promises: it never keeps a call waiting. The agent's calls put a
// small copy into a bounded queue and return; when it is full what came is dropped and
// counted. Spans are built and sent by one goroutine, which waits for nobody but the
// receiver. What the agent hands over has no content, so none can be sent: no arguments,
// no results, no messages, no identities.
//
// What it does not do: it is no audit log. Whoever calls can ask not to be sampled, a
// receiver that is away loses spans, and what an agent left open when it was killed ends
// without one. The ledger has them all.
package telemetry
