// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-jose/go-jose/v4"
)

// Names of the files of a token key: the key, and the public half as a JWK set for
// the services behind.
const (
	KeyFile  = "token.key"
	JWKSFile = "token.jwks"
)

// OpenKey reads the token key in a directory, or makes one: token.key, PKCS #8 in
// PEM with mode 0600, and token.jwks beside it.
func OpenKey(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, KeyFile)
	b, err := os.ReadFile(name) //nolint:gosec // the directory is the operator's
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read token key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
		return nil, fmt.Errorf("%s: not one PRIVATE KEY in PEM", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: a %T, want an Ed25519 key", name, parsed)
	}
	return key, nil
}

func makeKey(dir string) (ed25519.PrivateKey, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	set, err := json.Marshal(KeySet(public))
	if err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	// The set first: where the key is, the set is.
	if err := os.WriteFile(filepath.Join(dir, JWKSFile), append(set, '\n'), 0o644); err != nil { //nolint:gosec // public
		return nil, fmt.Errorf("write token key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	tmp := filepath.Join(dir, KeyFile+".tmp")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return nil, fmt.Errorf("write token key: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, KeyFile)); err != nil {
		return nil, fmt.Errorf("write token key: %w", err)
	}
	return key, nil
}

// KeySet is the JWK set of public token keys, as Verifier takes it and token.jwks
// holds it.
func KeySet(keys ...ed25519.PublicKey) jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k, KeyID: keyID(k), Algorithm: string(jose.EdDSA), Use: "sig"})
	}
	return set
}

// ReadKeySet reads a JWK set of Ed25519 keys.
func ReadKeySet(b []byte) (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil {
		return set, fmt.Errorf("read JWK set: %w", err)
	}
	keys := make([]ed25519.PublicKey, 0, len(set.Keys))
	for _, k := range set.Keys {
		public, ok := k.Key.(ed25519.PublicKey)
		if !ok {
			return set, fmt.Errorf("key %q is a %T, want an Ed25519 public key", k.KeyID, k.Key)
		}
		keys = append(keys, public)
	}
	return KeySet(keys...), nil
}
