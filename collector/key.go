// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/sumdb/note"
)

// Files of the collector's key, in the form of C2SP signed-note.
const (
	keyFile  = "collector.key"
	vkeyFile = "collector.vkey"
)

// openKey reads the collector's key, or makes it.
func openKey(dir string) (signer note.Signer, vkey string, err error) {
	skey, err := os.ReadFile(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(dir)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the collector's key: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, vkeyFile))
	if err != nil {
		return nil, "", fmt.Errorf("read the collector's key: %w", err)
	}
	vkey = strings.TrimSpace(string(text))
	if signer, err = note.NewSigner(strings.TrimSpace(string(skey))); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", keyFile, err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", vkeyFile, err)
	}
	if signer.Name() != verifier.Name() || signer.KeyHash() != verifier.KeyHash() {
		return nil, "", fmt.Errorf("%s and %s in %s do not belong together", keyFile, vkeyFile, dir)
	}
	return signer, vkey, nil
}

// makeKey makes the key. It is named after the machine; agents know it by the whole
// vkey.
func makeKey(dir string) (note.Signer, string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, "writ.local/collector/"+host)
	if err != nil {
		return nil, "", fmt.Errorf("make the collector's key: %w", err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, "", fmt.Errorf("make the collector's key: %w", err)
	}
	// The public half first: where the key is, that is.
	if err := renameio.WriteFile(filepath.Join(dir, vkeyFile), []byte(vkey+"\n"), 0o644); err != nil {
		return nil, "", fmt.Errorf("write the collector's key: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(dir, keyFile), []byte(skey+"\n"), 0o600); err != nil {
		return nil, "", fmt.Errorf("write the collector's key: %w", err)
	}
	return signer, vkey, nil
}
