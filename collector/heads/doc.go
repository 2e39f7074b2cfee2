// SPDX-License-Identifier: Apache-2.0

// Package heads keeps the collector's own log: what it took of agents' ledgers, and what
// it refused, one entry after the other, in a C2SP tlog-tiles log that transparency
// tooling reads, checks and cosigns. The log's files are Tessera's (POSIX storage).
//
// It promises that the log is a function of the store: entry i is the store's entry i,
// which has its place from the moment it is stored. What was stored and is not in the log,
// after a crash too, is added in its place; nothing is added twice. A log that has
// something else than the store is not gone on with: somebody changed one of the two.
// Checkpoints are signed with a key of the log's own, at most one in each interval, and
// none is published without the cosignatures that the policy demands.
//
// It is never in the way of an acknowledgement: where the disk or a witness fails, the log
// falls behind, says so, and catches up. Nobody but Tessera writes the directory, and one
// process alone: the store's lock sees to that.
//
//	l, err := heads.New(heads.Options{Dir: dir, Signer: signer, Source: store, Log: log})
//	go l.Run(ctx)
//	http.Serve(listener, l.Handler())
//	report, err := heads.Verify(ctx, heads.Evidence{Dir: dir, Key: verifier, Source: store})
package heads
