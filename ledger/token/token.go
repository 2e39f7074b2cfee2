// SPDX-License-Identifier: Apache-2.0

// Package token makes and verifies decision tokens: what an allowed request carries
// on, so that the service behind can tell, offline, that the decision was about this
// request and is on record.
//
// There are two forms. A `jws` is a JSON Web Token signed (EdDSA) by the agent's
// token key, which is never its log key. A `receipt` is the ledger's own proof: the
// record of the decision, its inclusion path, the signed head; no further signature
// is made. Both bind the request as it was sent on, by [RequestDigest], the audience,
// the decision's id, and a time of at most 60 s.
//
// A token is good once: the [Verifier] keeps the ids it has seen until they expire.
// Every replica of a service that must not run a call twice needs the same Verifier
// or must route by decision id. A receipt holds the whole record, non-sensitive
// arguments included: it is for services that may see them.
//
//	verifier := &token.Verifier{Audience: "payments", Issuer: origin, Keys: keys}
//	http.HandleFunc("POST /refunds", func(w http.ResponseWriter, r *http.Request) {
//		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
//		if err != nil {
//			http.Error(w, "body", http.StatusBadRequest)
//			return
//		}
//		claims, err := verifier.Verify(r, body)
//		if err != nil {
//			http.Error(w, "no decision", http.StatusForbidden)
//			return
//		}
//		refund(claims.ID, body)
//	})
package token

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Header is the request header that a token travels in.
const Header = "X-Writ-Decision-Token"

// MaxLifetime is how long a token may be valid.
const MaxLifetime = 60 * time.Second

const digestLabel = "writ/request/v1"

// What Verify fails with. Callers refuse the request on every one of them.
var (
	// ErrMissing says that there is no token, or more than one.
	ErrMissing = errors.New("no decision token")
	// ErrInvalid says that the token is not one, or not from whom it should be.
	ErrInvalid = errors.New("decision token is not valid")
	// ErrOtherRequest says that the token is for another request or audience.
	ErrOtherRequest = errors.New("decision token is for another request")
	// ErrExpired says that the token is too old, or not yet valid.
	ErrExpired = errors.New("decision token is expired")
	// ErrUsed says that the token was seen before.
	ErrUsed = errors.New("decision token was used before")
	// ErrBusy says that no more ids can be kept, so that use cannot be told from
	// a second use.
	ErrBusy = errors.New("too many decision tokens at a time")
)

// Claims are what a valid token says.
type Claims struct {
	Kind     writv1.DecisionTokenKind
	ID       string // of the decision, 32 hex digits
	Issuer   string // origin of the agent's ledger
	Audience string
	Tool     string
	Tenant   string
	Subject  string // id of the user, or of the workload where there is none
	Issued   time.Time
	Expires  time.Time
	Index    uint64 // of the record; of a receipt only
}

// RequestDigest is what a token binds: SHA-256 over "writ/request/v1", audience,
// method, path, query and body as sent, each after its length as a u64le. The target
// is the path with its query, as in the request line or ":path"; its query is hashed
// from the question mark on.
func RequestDigest(audience, method, target string, body []byte) [32]byte {
	path, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	h := sha256.New()
	var n [8]byte
	for _, part := range []string{digestLabel, audience, method, path, query} {
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	binary.LittleEndian.PutUint64(n[:], uint64(len(body)))
	h.Write(n[:])
	h.Write(body)
	return [32]byte(h.Sum(nil))
}
