// SPDX-License-Identifier: Apache-2.0

// Package policy decides. [Decide] weighs one call under one [Bundle] and the
// facts it is given, and returns a decision: a verdict, its reason, every check
// that fired, obligations, and the changes of state that an ALLOW asks for.
//
// It promises to be a function: the same bundle, call and facts give the same
// bytes, on any machine, now or in ten years. So it reads no clock, does no I/O,
// starts nothing, draws nothing at random, and lets no order of a map through to
// a decision; internal/floors holds its imports to that. It cannot fail: what it
// does not understand is a DENY.
//
// It does not authenticate, resolve facts, apply effects, record or execute: that
// is agent's. It reads no files: that is agent/bundles'.
//
//	bundle, problems := policy.New(source)
//	...
//	result := policy.Decide(bundle, &policy.Call{Principal: who, Envelope: said, Arguments: proposed}, facts)
//	if result.Decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
//		// result.Decision.GetChecks() says why.
//	}
package policy
