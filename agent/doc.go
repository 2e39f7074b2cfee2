// SPDX-License-Identifier: Apache-2.0

// Package agent carries one call through its life, and is the only package that
// does. It knows no transport: the faces (envoy, planner) hand it a [Request] and
// get an [Admission].
//
//	receive -> resolve -> decide -> commit -> release or run -> finish
//
// [Agent.Admit] receives the request, resolves the facts, asks [policy.Decide],
// and commits the effects and the record; when it returns, the decision is
// durable. An ALLOW is then carried out once, with [Admission.Release] (the face
// lets the call through) or [Admission.Run] (the agent executes the tool), and
// ends with exactly one [Admission.Finish]. An admission that is dropped is
// finished as UNKNOWN, or as NOT_STARTED if it was never released.
//
//	admission := a.Admit(ctx, &agent.Request{...})
//	if refusal := admission.Refusal(); refusal != nil {
//		return deny(refusal)
//	}
//	execution := admission.Run(ctx, nil)
//	if err := admission.Finish(execution.Outcome()); err != nil {
//		return unavailable(err)
//	}
//
// What the package promises: no decision leaves before its record is durable as
// asked; an idempotency key is released at most once; whatever goes wrong, a
// panic too, is a DENY with a record (where the ledger can still be written);
// state is a fold over the ledger, so that a restart after a crash at any point
// resumes with what was durable. What it does not do: authenticate (faces do),
// judge (policy does), parse bodies (wire does).
package agent
