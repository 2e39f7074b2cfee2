// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// tokenType is the "typ" of a JWS: a token of another kind is not taken for one.
const tokenType = "writ-decision+jwt"

// ErrNoKey says that a JWS was asked of a Minter without a key.
var ErrNoKey = errors.New("no token key")

// Request is what a token is made of.
type Request struct {
	Kind     writv1.DecisionTokenKind
	Audience string
	Issued   time.Time
	// Lifetime is at most MaxLifetime, which zero is too. A receipt's is the
	// token_lifetime of the decision's record, from the time of the record on.
	Lifetime time.Duration
	// DecisionID is the decision's id in 32 hex digits.
	DecisionID string
	Tool       string
	Tenant     string
	Subject    string
	// Digest is RequestDigest of the request as sent on. For a receipt it MUST be the
	// request_digest of the decision's record.
	Digest [32]byte
	// Position of the decision's record; of a receipt only.
	Position ledger.Position
}

// Minter makes tokens. Its methods may be called by several goroutines.
type Minter struct {
	issuer string
	signer jose.Signer // nil without a key
}

// NewMinter returns a minter for the agent with the origin. A nil key makes receipts
// only. The key MUST NOT be a log key: whoever verifies tokens would else vouch
// for heads.
func NewMinter(origin string, key ed25519.PrivateKey) (*Minter, error) {
	m := &Minter{issuer: origin}
	if key == nil {
		return m, nil
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("token key: %w", ErrNoKey)
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.EdDSA,
		Key:       jose.JSONWebKey{Key: key, KeyID: keyID(public)},
	}, (&jose.SignerOptions{}).WithType(tokenType))
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	m.signer = signer
	return m, nil
}

// keyID is the RFC 7638 thumbprint of a key.
func keyID(k ed25519.PublicKey) string {
	sum, err := (&jose.JSONWebKey{Key: k}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "" // not an Ed25519 key: nothing will verify under it
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// privateClaims are the claims of a JWS beside the registered ones.
type privateClaims struct {
	Tool   string `json:"tool,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Digest string `json:"digest"`
}

// Mint makes a token.
func (m *Minter) Mint(r Request) (string, error) {
	switch r.Kind {
	case writv1.DecisionTokenKind_DECISION_TOKEN_KIND_RECEIPT:
		receipt, err := r.Position.Receipt()
		if err != nil {
			return "", fmt.Errorf("mint: %w", err)
		}
		return base64.RawURLEncoding.EncodeToString(receipt), nil
	case writv1.DecisionTokenKind_DECISION_TOKEN_KIND_JWS:
		return m.sign(r)
	default:
		return "", fmt.Errorf("mint: %w: kind %d", ErrInvalid, r.Kind)
	}
}

func (m *Minter) sign(r Request) (string, error) {
	if m.signer == nil {
		return "", fmt.Errorf("mint: %w", ErrNoKey)
	}
	if id, err := hex.DecodeString(r.DecisionID); err != nil || len(id) != 16 || r.Audience == "" {
		return "", fmt.Errorf("mint: %w: decision id or audience", ErrInvalid)
	}
	if r.Lifetime <= 0 || r.Lifetime > MaxLifetime {
		r.Lifetime = MaxLifetime
	}
	// Times are whole seconds (RFC 7519). Both are rounded down: a token is never
	// valid for longer than was asked.
	issued := r.Issued.Truncate(time.Second)
	out, err := jwt.Signed(m.signer).Claims(jwt.Claims{
		Issuer: m.issuer, Subject: r.Subject, Audience: jwt.Audience{r.Audience}, ID: r.DecisionID,
		IssuedAt: jwt.NewNumericDate(issued), Expiry: jwt.NewNumericDate(r.Issued.Add(r.Lifetime)),
	}).Claims(privateClaims{
		Tool: r.Tool, Tenant: r.Tenant, Digest: base64.RawURLEncoding.EncodeToString(r.Digest[:]),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("mint: %w", err)
	}
	return out, nil
}
