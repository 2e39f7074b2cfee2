// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	issuer   = "https://issuer.example"
	audience = "desk"
)

// Issuer signs the tokens of users.
type Issuer struct {
	t       testing.TB
	signer  jose.Signer
	keys    []byte
	keyFile string
}

func newIssuer(t testing.TB) *Issuer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "k1", Algorithm: string(jose.EdDSA)}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "k1", Algorithm: string(jose.EdDSA), Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	return &Issuer{t: t, signer: signer, keys: keys, keyFile: file}
}

// Token returns a token of a user with a tenant, unless it is empty, and roles,
// valid for a minute.
func (i *Issuer) Token(user, tenant string, roles ...string) string {
	return i.TokenUntil(time.Now().Add(time.Minute), user, tenant, roles...)
}

// TokenUntil returns a token that expires at the given time.
func (i *Issuer) TokenUntil(expires time.Time, user, tenant string, roles ...string) string {
	i.t.Helper()
	claims := map[string]any{
		"iss": issuer, "aud": audience, "sub": user, "roles": append([]string{}, roles...), "exp": expires.Unix(),
	}
	if tenant != "" {
		claims["tenant"] = tenant
	}
	token, err := jwt.Signed(i.signer).Claims(claims).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func newReader(body []byte) io.Reader { return bytes.NewReader(body) }
