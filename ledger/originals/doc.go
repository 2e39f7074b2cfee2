// SPDX-License-Identifier: Apache-2.0

// Package originals seals the values that are kept out of records, where a tool asks to
// have them kept, and opens them again for who has the private key.
//
// The key hierarchy (docs/decisions/0013): each tenant and day (UTC) has an X25519 key
// pair of its own, made at random. Agents have the public halves alone; the private ones
// lie in a vault (ledger/vault), under a key encryption key. A [Sealer] draws a data key
// for a tenant and day, seals it at once to the public key with HPKE (RFC 9180), and
// encrypts with it by AES-256-GCM, for an hour at most. What is sealed stands in the record
// whole: there is nothing beside it that could be lost, and nothing but the vault's key
// that could open it.
//
// What it promises. A [Sealer] gives values a salt that stands nowhere but in what it
// seals: once the private key is destroyed nobody can confirm a guess by the commitments
// any more, not even who holds the ledger's commit key. What is sealed opens in its own
// record alone, and [Opener.Open] gives out a value only after it has held it against its
// commitment.
//
// What it does not do. It keeps no private key, and decides on no access: who may use the
// vault may open. The data key that a process encrypts with is in its memory.
//
//	sealer := originals.NewSealer(ledger.LogID(l.Origin()))
//	sealer.Use(keys)
//	sealed, values, err := sealer.Seal("acme", decisionID, now, values)
//	opened, err := originals.NewOpener(vault).Open(ctx, record)
package originals
