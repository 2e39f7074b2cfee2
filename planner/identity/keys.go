// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxKeySet and maxKeys bound the file of keys.
	maxKeySet = 1 << 20
	maxKeys   = 64
	// minRSA is the shortest RSA key that counts (NIST SP 800-131A).
	minRSA = 2048
	// keyRefresh is how old the keys may get before the file is looked at again:
	// a key that the operator took out stops counting within this time.
	keyRefresh = 10 * time.Second
)

// keys are the public keys of an issuer, read again when their file changes. A
// file that cannot be read any more leaves the last good keys standing.
type keys struct {
	file  string
	clock func() time.Time
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	set     []publicKey
	checked time.Time   // when the file was last looked at
	seen    os.FileInfo // what it looked like
}

// publicKey is one key and the one algorithm it verifies.
type publicKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       any
}

func openKeys(file string, clock func() time.Time, log *slog.Logger) (*keys, error) {
	k := &keys{file: file, clock: clock, log: log, checked: clock()}
	set, seen, err := readKeys(file)
	if err != nil {
		return nil, fmt.Errorf("keys of the token issuer: %w", err)
	}
	k.set, k.seen = set, seen
	return k, nil
}

// find returns the key that a token names. A token that names none fits only
// where there is one key of its algorithm.
func (k *keys) find(id string, algorithm jose.SignatureAlgorithm) (any, error) {
	var fitting []publicKey
	for _, key := range k.current() {
		if key.algorithm == algorithm && (id == "" || key.id == id) {
			fitting = append(fitting, key)
		}
	}
	if len(fitting) != 1 {
		return nil, fmt.Errorf("%d configured keys fit the token, not one", len(fitting))
	}
	return fitting[0].key, nil
}

func (k *keys) current() []publicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock()
	if age := now.Sub(k.checked); age >= 0 && age < keyRefresh {
		return k.set
	}
	k.checked = now
	info, err := os.Stat(k.file)
	if err == nil && unchanged(info, k.seen) {
		return k.set
	}
	set, seen, err := readKeys(k.file)
	if err != nil {
		k.log.Error("the token issuer's keys could not be read again; the last good ones stand", "error", err)
		return k.set
	}
	k.set, k.seen = set, seen
	return k.set
}

func readKeys(file string) ([]publicKey, os.FileInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeySet+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxKeySet {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", file, maxKeySet)
	}
	set, err := parseKeys(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return set, info, nil
}

// parseKeys reads a JSON Web Key Set (RFC 7517). Keys that do not verify
// signatures, or of kinds that no token may use, are passed over; a secret key in
// the file is an error, for it must not lie there.
func parseKeys(data []byte) ([]publicKey, error) {
	var file struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(file.Keys) > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	var set []publicKey
	for i, raw := range file.Keys {
		key, err := parseKey(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if key == nil {
			continue
		}
		for _, other := range set {
			if other.id == key.id && other.algorithm == key.algorithm {
				return nil, fmt.Errorf("key %d: another key has the same kid", i)
			}
		}
		set = append(set, *key)
	}
	if len(set) == 0 {
		return nil, errors.New("no key that could verify a token (RS256, ES256, EdDSA)")
	}
	return set, nil
}

// parseKey returns nil for a key of no use here.
func parseKey(raw jsontext.Value) (*publicKey, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	for _, secret := range []string{"d", "k", "p", "q"} {
		if _, found := members[secret]; found {
			return nil, errors.New("a secret key; put only the public part here")
		}
	}
	var key jose.JSONWebKey
	unknown := key.UnmarshalJSON(raw) != nil // RFC 7517, section 5: to be ignored
	algorithm := algorithmOf(key.Key)
	wanted := !unknown && algorithm != "" && (key.Use == "" || key.Use == "sig") && (key.Algorithm == "" || key.Algorithm == string(algorithm))
	if !wanted {
		return nil, nil
	}
	return &publicKey{id: key.KeyID, algorithm: algorithm, key: key.Key}, nil
}

// algorithmOf returns the algorithm that a key is for; empty for none. One key,
// one algorithm: a token cannot choose how a key is used.
func algorithmOf(key any) jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() >= minRSA {
			return jose.RS256
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return jose.ES256
		}
	case ed25519.PublicKey:
		return jose.EdDSA
	}
	return ""
}
