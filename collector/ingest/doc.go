// SPDX-License-Identifier: Apache-2.0

// Package ingest takes agents' ledgers over writ.v1.LedgerService.
//
// It takes a ledger only if it knows the agent's key, and of it only what continues
// what is held: every record in its place, under a head that the key signed
// ([stream.Receiver] decides that). It acknowledges what is stored durably, and nothing
// else, with a signature of its own. A ledger that does not continue what is held
// (forged head, fork, rollback, gap) ends the stream and is kept as a finding, with both
// heads: collector/findings does that, and hears of what is taken.
//
// One stream a ledger is served at a time: a newer one ends the older, whose agent has
// lost it and does not know yet. What a stream may leave unread is bounded by gRPC's
// flow control and the largest message; a bundle is stored before the next is read.
//
// It does not look into records, and keeps no state of its own: whatever ends a stream,
// the next one goes on from the store.
//
//	server := ingest.New(ingest.Options{Store: s, Keys: keys, Findings: keeper, Signer: signer})
//	writv1.RegisterLedgerServiceServer(grpcServer, server)
package ingest
