// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	maxJWS     = 8 << 10
	maxReceipt = 96 << 10
	// skew is how far ahead the agent's clock may be.
	skew = 5 * time.Second
	// defaultIDs is how many unexpired ids are kept: 60 s at 1,600 calls a second.
	defaultIDs = 100_000
)

// Verifier verifies the tokens of requests to one service. Its fields MUST NOT be
// changed after the first Verify, which may be called by several goroutines. Forms of
// token for which it has no key are refused.
type Verifier struct {
	// Audience that tokens must name.
	Audience string
	// Issuer that a JWS must name: the origin of the agent's ledger. Empty: any whose
	// key is in Keys.
	Issuer string
	// Keys that a JWS may be signed with: the agent's token.jwks.
	Keys jose.JSONWebKeySet
	// Ledgers whose receipts are taken, by the keys of their heads: log.vkey.
	Ledgers []note.Verifier
	// MaxIDs bounds the ids kept. Default: 100,000. When they are all unexpired,
	// requests are refused with ErrBusy.
	MaxIDs int
	// Clock gives the time. Default: time.Now.
	Clock func() time.Time

	mu     sync.Mutex          // guards what follows
	seen   map[string]struct{} // ids in the queue
	ids    []seenID            // in order of arrival
	latest time.Time           // that was seen on the clock
}

type seenID struct {
	id      string
	expires time.Time
}

// Verify says whether the request carries a token that was made for it, is valid now
// and was not used before; it is used then. The body MUST be the request's whole body
// as it was received, which is the caller's to read and to bound.
func (v *Verifier) Verify(r *http.Request, body []byte) (*Claims, error) {
	values := r.Header.Values(Header)
	if len(values) != 1 || values[0] == "" {
		return nil, ErrMissing
	}
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // absolute form, or a request made in a test
		target = r.URL.RequestURI()
	}
	now := time.Now
	if v.Clock != nil {
		now = v.Clock
	}
	digest := RequestDigest(v.Audience, r.Method, target, body)
	return v.verify(values[0], digest, now())
}

func (v *Verifier) verify(token string, digest [32]byte, now time.Time) (claims *Claims, err error) {
	if v.Audience == "" {
		return nil, fmt.Errorf("%w: the verifier has no audience", ErrInvalid)
	}
	var bound []byte
	if strings.Count(token, ".") == 2 {
		claims, bound, err = v.readJWS(token)
	} else {
		claims, bound, err = v.readReceipt(token)
	}
	if err != nil {
		return nil, err
	}
	if len(bound) != 32 || subtle.ConstantTimeCompare(bound, digest[:]) != 1 || claims.Audience != v.Audience {
		return nil, ErrOtherRequest
	}
	lifetime := claims.Expires.Sub(claims.Issued)
	if lifetime <= 0 || lifetime > MaxLifetime || !now.Before(claims.Expires) || now.Add(skew).Before(claims.Issued) {
		return nil, ErrExpired
	}
	if err := v.use(claims.ID, claims.Expires, now); err != nil {
		return nil, err
	}
	return claims, nil
}

func (v *Verifier) readJWS(token string) (*Claims, []byte, error) {
	if len(token) > maxJWS {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(token))
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(parsed.Headers) != 1 {
		return nil, nil, fmt.Errorf("%w: no JWS", ErrInvalid)
	}
	h := parsed.Headers[0]
	keys := v.Keys.Key(h.KeyID)
	if h.ExtraHeaders[jose.HeaderType] != tokenType || h.KeyID == "" || len(keys) != 1 {
		return nil, nil, fmt.Errorf("%w: of another type or key", ErrInvalid)
	}
	var (
		c jwt.Claims
		p privateClaims
	)
	if err := parsed.Claims(keys[0].Key, &c, &p); err != nil {
		return nil, nil, fmt.Errorf("%w: signature or claims", ErrInvalid)
	}
	digest, err := base64.RawURLEncoding.Strict().DecodeString(p.Digest)
	if err != nil || len(c.Audience) != 1 || c.IssuedAt == nil || c.Expiry == nil || !isID(c.ID) || (v.Issuer != "" && c.Issuer != v.Issuer) {
		return nil, nil, fmt.Errorf("%w: claims", ErrInvalid)
	}
	return &Claims{
		Kind: writv1.DecisionTokenKind_DECISION_TOKEN_KIND_JWS, ID: c.ID, Issuer: c.Issuer, Audience: c.Audience[0],
		Tool: p.Tool, Tenant: p.Tenant, Subject: c.Subject, Issued: c.IssuedAt.Time(), Expires: c.Expiry.Time(),
	}, digest, nil
}

func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && hex.EncodeToString(b) == s
}

func (v *Verifier) readReceipt(token string) (*Claims, []byte, error) {
	if len(token) > maxReceipt {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(token))
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no base64url", ErrInvalid)
	}
	var (
		record *writv1.Record
		head   ledger.Head
	)
	err = fmt.Errorf("%w: no ledger whose receipts are taken", ErrInvalid)
	for _, l := range v.Ledgers {
		if record, head, err = ledger.VerifyReceipt(raw, l); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d := &writv1.DecisionRecord{}
	if record.GetKind() != writv1.RecordKind_RECORD_KIND_DECISION || canonical.Unmarshal(record.GetBody(), d) != nil ||
		d.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW || len(record.GetDecisionId()) != 16 {
		return nil, nil, fmt.Errorf("%w: the record is no ALLOW", ErrInvalid)
	}
	issued := time.Unix(0, int64(record.GetTimeUnixNs())) //nolint:gosec // checked against the clock
	subject := d.GetPrincipal().GetUser()
	if subject == "" {
		subject = d.GetPrincipal().GetWorkload()
	}
	return &Claims{
		Kind: writv1.DecisionTokenKind_DECISION_TOKEN_KIND_RECEIPT, ID: hex.EncodeToString(record.GetDecisionId()),
		Issuer: head.Origin, Audience: v.Audience, // it is in the digest
		Tool: d.GetTool(), Tenant: record.GetTenant(), Subject: subject,
		Issued: issued, Expires: issued.Add(d.GetTokenLifetime().AsDuration()), Index: record.GetIndex(),
	}, d.GetRequestDigest(), nil
}

// use marks an id as used, until it expires.
func (v *Verifier) use(id string, expires, now time.Time) error {
	limit := v.MaxIDs
	if limit <= 0 {
		limit = defaultIDs
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Before(v.latest) { // a clock set back must not make a forgotten id valid again
		now = v.latest
	}
	v.latest = now
	if !now.Before(expires) {
		return ErrExpired
	}
	n := 0
	for n < len(v.ids) && !now.Before(v.ids[n].expires) {
		delete(v.seen, v.ids[n].id)
		n++
	}
	v.ids = v.ids[n:]
	if _, ok := v.seen[id]; ok {
		return ErrUsed
	}
	if len(v.ids) >= limit {
		return ErrBusy
	}
	if v.seen == nil {
		v.seen = map[string]struct{}{}
	}
	v.seen[id] = struct{}{}
	v.ids = append(v.ids, seenID{id, expires})
	return nil
}
