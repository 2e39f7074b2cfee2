// SPDX-License-Identifier: Apache-2.0

// Package vault keeps the private keys to which originals are sealed (ledger/originals):
// one file a tenant and day, under a key encryption key, in a directory on the machine of
// whoever may open originals. No agent needs it.
//
// What it promises. A key is random, and is derived from nothing: once its file is
// deleted, what was sealed to it is unreadable to everybody, wherever its ciphertext lies.
// Everything that is done with keys is recorded, before it is done where it cannot be
// taken back, in a ledger of the vault's own, which [github.com/writ-dev/writ/ledger.Verify]
// verifies as it does an agent's. A day that was shredded gets no other key. A tenant under
// a legal hold is not shredded.
//
// What it does not do. It cannot reach copies of its files: backups of the directory, and
// what a disk keeps of a deleted file, hold wrapped keys, which whoever has the key
// encryption key can still open. It authenticates nobody: the directory's owner is trusted,
// and who is said to have acted is what the caller says.
//
// A vault is a directory: keys/, with a file named after the SHA-256 of each public key,
// and ledger/.
//
//	v, err := vault.Open(dir, kek)
//	made, err := v.Make(ctx, vault.Request{Tenant: "acme", First: "2026-01-01", Days: 31, By: "ann"})
//	n, err := v.Shred(ctx, "acme", "2026-01-15", "ann", "retention of 30 days")
package vault
