// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/sumdb/note"
)

// keyPair is a key in two files, in the form of C2SP signed-note.
type keyPair struct {
	// dir has the files, whose names are stem's with .key and .vkey.
	dir, stem string
	// name gives the key its name when it is made.
	name func() string
}

// receiptKey signs acknowledgements. It is named after the machine; agents know it by
// the whole vkey.
func receiptKey(dir string) keyPair {
	return keyPair{dir: dir, stem: "collector", name: localName}
}

// logKey signs checkpoints of the collector's own log, and nothing else: an acknowledgement
// is a checkpoint of an agent's ledger in another hand, and the two must not be taken for
// one another (docs/decisions/0011). Its name is the log's origin, which is another for
// each log that is made.
func logKey(dir, origin string) keyPair {
	return keyPair{dir: dir, stem: "log", name: func() string {
		if origin == "" {
			origin = localName()
		}
		var incarnation [16]byte
		_, _ = rand.Read(incarnation[:]) // never fails: crypto/rand ends the program instead
		return origin + "/" + hex.EncodeToString(incarnation[:])
	}}
}

func localName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return "writ.local/collector/" + host
}

func (k keyPair) path(ending string) string { return filepath.Join(k.dir, k.stem+ending) }

// open reads the key, or makes it.
func (k keyPair) open() (signer note.Signer, vkey string, err error) {
	skey, err := os.ReadFile(k.path(".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return k.make()
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the key: %w", err)
	}
	text, err := os.ReadFile(k.path(".vkey"))
	if err != nil {
		return nil, "", fmt.Errorf("read the key: %w", err)
	}
	vkey = strings.TrimSpace(string(text))
	if signer, err = note.NewSigner(strings.TrimSpace(string(skey))); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", k.path(".key"), err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", k.path(".vkey"), err)
	}
	if signer.Name() != verifier.Name() || signer.KeyHash() != verifier.KeyHash() {
		return nil, "", fmt.Errorf("%s.key and %[1]s.vkey in %s do not belong together", k.stem, k.dir)
	}
	return signer, vkey, nil
}

// make makes the key.
func (k keyPair) make() (note.Signer, string, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, k.name())
	if err != nil {
		return nil, "", fmt.Errorf("make the key: %w", err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, "", fmt.Errorf("make the key %q: %w", k.name(), err)
	}
	// The public half first: where the key is, that is.
	if err := renameio.WriteFile(k.path(".vkey"), []byte(vkey+"\n"), 0o644); err != nil {
		return nil, "", fmt.Errorf("write the key: %w", err)
	}
	if err := renameio.WriteFile(k.path(".key"), []byte(skey+"\n"), 0o600); err != nil {
		return nil, "", fmt.Errorf("write the key: %w", err)
	}
	return signer, vkey, nil
}
