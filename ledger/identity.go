// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Names of the files beside the segments.
const (
	incarnationFile = "incarnation"
	logKeyFile      = "log.key"
	logVkeyFile     = "log.vkey"
	commitKeyFile   = "commit.key"
)

// maxOrigin bounds the first part of an origin, as LedgerConfig does.
const maxOrigin = 256

// identity is who a ledger is: its name and its keys. An incarnation begins where
// no segments are, so that a ledger that was thrown away is never taken for one
// that was rolled back.
type identity struct {
	origin    string
	logID     [32]byte
	signer    note.Signer
	verifier  note.Verifier
	vkey      string
	commitKey []byte
}

// makeIdentity makes a new incarnation with new keys, over whatever is there.
func makeIdentity(dir, base string) (*identity, error) {
	if base == "" || len(base) > maxOrigin {
		return nil, fmt.Errorf("%w: the origin must have 1 to %d bytes", ErrInvalid, maxOrigin)
	}
	var incarnation [16]byte
	var commitKey [32]byte
	_, _ = rand.Read(incarnation[:]) // never fails: crypto/rand ends the program instead
	_, _ = rand.Read(commitKey[:])
	name := hex.EncodeToString(incarnation[:])
	origin := base + "/" + name
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, fmt.Errorf("make log key: %w", err)
	}
	if _, err := note.NewSigner(skey); err != nil {
		return nil, fmt.Errorf("%w: the origin %q is no name of a key: %w", ErrInvalid, base, err)
	}
	for _, f := range []struct {
		name, text string
		perm       fs.FileMode
	}{
		{incarnationFile, origin, 0o600},
		{commitKeyFile, hex.EncodeToString(commitKey[:]), 0o600},
		{logVkeyFile, vkey, 0o644},
		{logKeyFile, skey, 0o600},
	} {
		if err := writeFile(filepath.Join(dir, f.name), f.text+"\n", f.perm); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	if err := (OS{}).SyncDir(dir); err != nil {
		return nil, fmt.Errorf("sync %s: %w", dir, err)
	}
	return readIdentity(dir, base)
}

// writeFile writes a file whole or not at all.
func writeFile(name, text string, perm fs.FileMode) error {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, perm) //nolint:gosec // the directory is the operator's
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// readIdentity reads the identity of the ledger in dir. base, if not empty, must
// be the one it was made with.
func readIdentity(dir, base string) (*identity, error) {
	var text [4]string
	for i, name := range []string{incarnationFile, logKeyFile, commitKeyFile, logVkeyFile} {
		b, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // the directory is the operator's
		if err != nil {
			return nil, fmt.Errorf("%w: segments without their identity: %w", ErrCorrupt, err)
		}
		text[i] = strings.TrimSuffix(string(b), "\n")
	}
	origin := text[0]
	signer, err := note.NewSigner(text[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, logKeyFile, err)
	}
	verifier, err := note.NewVerifier(text[3])
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, logVkeyFile, err)
	}
	commitKey, err := hex.DecodeString(text[2])
	if err != nil || len(commitKey) != 32 {
		return nil, fmt.Errorf("%w: %s is not 32 bytes in hex", ErrCorrupt, commitKeyFile)
	}
	if signer.Name() != origin || verifier.Name() != origin || signer.KeyHash() != verifier.KeyHash() {
		return nil, fmt.Errorf("%w: %s, %s and %s do not belong together", ErrCorrupt, incarnationFile, logKeyFile, logVkeyFile)
	}
	if cut := strings.LastIndexByte(origin, '/'); base != "" && (cut < 0 || origin[:cut] != base) {
		return nil, fmt.Errorf("%w: the ledger in %s is that of %s, not of %s", ErrInvalid, dir, origin, base)
	}
	return &identity{
		origin: origin, logID: LogID(origin), signer: signer, verifier: verifier, vkey: text[3], commitKey: commitKey,
	}, nil
}

// LogID is what binds a record to the ledger of an origin.
func LogID(origin string) [32]byte { return sha256.Sum256([]byte(origin)) }
