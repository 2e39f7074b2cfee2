// SPDX-License-Identifier: Apache-2.0

// Package killtest kills "writ agent" with SIGKILL under load, again and again, and
// holds three lists against each other: what the clients were answered, what the
// ledger says, and what the payments service did.
//
// Everything is real: the program, an Envoy with the configuration that the program
// prints, the refund desk's payments service and its books in SQLite. Clients send
// refunds, refunds that must be denied, and reads at more than 500 a second, each
// under a traceparent of its own, which the decision's record keeps: so every answer
// is held against the one record that it may rest on. The moment of a kill is when
// the ledger was just written, and a kill counts only if it cut a call off: a
// decision is in the ledger, and its caller has no answer.
//
// With a collector the list upstream is a fourth: what a client saw succeed that waits
// for the collector is in its store, though it be killed in the middle of writing.
//
// A disk that is full is one in truth: a small one of the agent's own, in namespaces.
//
// "make test" kills a few times in every way; with $WRIT_KILLS, as in "make kill", it is
// so many times in each.
//
// The package holds tests alone. What it promises to whoever breaks writ is in
// judge_test.go, a check a line.
package killtest
