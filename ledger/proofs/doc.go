// SPDX-License-Identifier: Apache-2.0

// Package proofs writes and verifies proof bundles: archives that prove, to somebody who
// has nothing else but a key or a head, that records are in their ledgers.
//
// A bundle is a tar archive, as it is or compressed by gzip or zstd, that any tar takes
// apart. Its entries stand in one order, N being a ledger's number from 000000 on, by
// origin, and I the index of a record in 20 digits, ascending:
//
//	N/log.vkey        the ledger's key, a C2SP vkey; to be compared, not to be believed
//	N/checkpoint      the signed head, a C2SP checkpoint
//	N/older           where it was asked for: the text of an older head
//	N/consistency     and the body of a C2SP tlog-witness add-checkpoint request, which
//	                  shows that the ledger goes on from it
//	N/I.record        the canonical bytes of a record
//	N/I.tlog-proof    its path to the head, a C2SP tlog-proof
//	export.json       what was exported, a [Manifest]; without it a bundle is cut short
//
// What it promises. A bundle has one form: [Verify] refuses every byte that [Writer] would
// have written otherwise, in the headers of tar too. Each record is proven by itself, so
// that the first bad one is named. Everything that is read is bounded, nothing is written
// to a disk, and no name of an entry is ever used as a path.
//
// What it does not do. It proves that what is in it was recorded, not that nothing was
// left out, except of a ledger all of whose records are in it. The manifest is nobody's
// word but the exporter's. Whether there is another history under the same key only a head
// that was kept elsewhere shows.
//
//	report, err := proofs.Verify(file, proofs.Trust{Keys: keys})
package proofs
