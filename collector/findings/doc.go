// SPDX-License-Identifier: Apache-2.0

// Package findings keeps what is wrong with agents' ledgers, and tells of it: as a row of
// the store with both signed heads, in the collector's log, in its metrics, and to
// whoever [Options].Tell posts to.
//
// What does not continue a ledger (gap, fork, rollback, a key that is not known) is told
// it by collector/ingest. It finds by itself what only time tells: a ledger that has not
// ended and from which nothing has come for several heartbeats ([Silence]), and an agent
// whose wall clock moved otherwise than its monotonic one, or that runs ahead of the
// collector's ([ClockJump]).
//
// It promises that a finding is counted each time, kept before what it is about is
// acknowledged, and told once: the same one again raises a count. A finding names ledgers,
// sizes and roots, and never a tenant or what a record says.
//
// It refuses nothing: a ledger whose clock jumps is taken. It knows a ledger by what was
// stored of it; an agent that never came is nobody's silence.
//
//	keeper, err := findings.New(ctx, findings.Options{Store: s, Known: known, Clock: time.Now, Log: log})
//	go keeper.Run(ctx)
//	keeper.Keep(ctx, store.Finding{Origin: origin, Kind: "gap", Detail: "..."})
package findings
