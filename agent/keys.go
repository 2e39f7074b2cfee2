// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"sync"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
)

// keyBytes is the length of a tenant's key: that of the HMAC's hash (RFC 2104, section 3).
const keyBytes = sha256.Size

// Keys holds one key a tenant, each in a file of its own that can be destroyed
// with the tenant's data. Under it calls, idempotency keys and results are
// digested (SEMANTICS 12). The keys never leave the agent.
type Keys struct {
	dir string
	// cached has the keys that were read, by tenant: map[string][]byte.
	cached sync.Map
}

// OpenKeys returns the keys in dir, which is made with mode 0700 if it is not there.
func OpenKeys(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of tenants' keys: %w", err)
	}
	return &Keys{dir: dir}, nil
}

// tenant returns the tenant's key, and makes it when the tenant is new.
func (k *Keys) tenant(name string) ([]byte, error) {
	if key, ok := k.cached.Load(name); ok {
		return key.([]byte), nil
	}
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(k.dir, hex.EncodeToString(sum[:])+".key")
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	kept, _ := k.cached.LoadOrStore(name, key)
	return kept.([]byte), nil
}

func readKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a tenant's key: %w", err)
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("a tenant's key has %d bytes, not %d: %s", len(key), keyBytes, path)
	}
	return key, nil
}

// makeKey writes a new key under a temporary name and links it to path, so that
// a key is there whole or not at all, and the first of two makers wins.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a tenant's key: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return nil, fmt.Errorf("make a tenant's key: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(key)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, fmt.Errorf("write a tenant's key: %w", err)
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep a tenant's key: %w", err)
	}
	return readKey(path)
}

// digest returns the HMAC-SHA-256 of parts under key, each part after its length,
// so that no two lists of parts are told alike. The first part is the purpose.
func digest(key []byte, parts ...[]byte) [32]byte {
	mac := hmac.New(sha256.New, key)
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write(part)
	}
	var out [32]byte
	mac.Sum(out[:0])
	return out
}

// identity returns a call's one identity (SEMANTICS 12): a keyed digest of tool,
// schema, canonical arguments, principal id (workload and user; roles are facts)
// and tenant.
func identity(key []byte, tool *tools.Tool, canonical []byte, p *writv1.Principal) [32]byte {
	return digest(key, []byte("writ/identity/v1"),
		[]byte(tool.Name), tool.SchemaDigest[:], canonical,
		[]byte(p.GetWorkload()), []byte(p.GetUser()), []byte(p.GetTenant()))
}

// boundedIdentity returns the identity of a call but for the fields that an approval
// bounds, which its canonical arguments lack (SEMANTICS 13).
func boundedIdentity(key []byte, tool *tools.Tool, canonical []byte, p *writv1.Principal) [32]byte {
	return digest(key, []byte("writ/bounded-identity/v1"),
		[]byte(tool.Name), tool.SchemaDigest[:], canonical,
		[]byte(p.GetWorkload()), []byte(p.GetUser()), []byte(p.GetTenant()))
}

// idempotencyDigest returns the digest of an idempotency key in its scope:
// tenant, principal, session and tool (SEMANTICS 4).
func idempotencyDigest(key []byte, tool string, p *writv1.Principal, session sessions.ID, idempotencyKey string) [32]byte {
	return digest(key, []byte("writ/idempotency/v2"),
		[]byte(p.GetTenant()), []byte(p.GetWorkload()), []byte(p.GetUser()),
		session[:], []byte(tool), []byte(idempotencyKey))
}

// ambientID returns the id of a principal's ambient session (SEMANTICS 8).
func ambientID(key []byte, p *writv1.Principal) sessions.ID {
	sum := digest(key, []byte("writ/ambient/v1"), []byte(p.GetTenant()), []byte(p.GetWorkload()), []byte(p.GetUser()))
	return sessions.ID(sum[:16])
}

// tokenDigest returns the digest by which a session's token is known.
func tokenDigest(key []byte, token string) sessions.Token {
	return digest(key, []byte("writ/session-token/v1"), []byte(token))
}

// atomKey returns the key of a session's atoms (SEMANTICS 10).
func atomKey(key []byte, session sessions.ID) atoms.Key {
	return digest(key, []byte("writ/atoms/v1"), session[:])
}

// drawnForReview says whether a decision is one of perMille in a thousand that a human
// reviews. Its id is chance, and the key is not known outside: nobody can tell beforehand,
// or afterwards, which calls will be looked at.
func drawnForReview(key []byte, decision []byte, perMille uint32) bool {
	const thousand = 1000
	sum := digest(key, []byte("writ/review/v1"), decision)
	place, _ := bits.Mul64(binary.BigEndian.Uint64(sum[:8]), thousand)
	return place < uint64(perMille)
}

// approvalKey returns what an approval is bound to: the call's identity, which covers
// tool, schema, arguments, principal and tenant, its session, and what the verdict
// rested on (SEMANTICS 13).
func approvalKey(key []byte, identity [32]byte, session sessions.ID, basis []byte) approvals.Bound {
	return digest(key, []byte("writ/approval-key/v1"), identity[:], session[:], basis)
}

// approvalID returns the id under which a call may be approved after the last approval
// of the same was used or has expired: the same for the same call, so that a repeat is
// not a second request.
func approvalID(key []byte, bound approvals.Bound, last approvals.ID) approvals.ID {
	sum := digest(key, []byte("writ/approval/v2"), bound[:], last[:])
	return approvals.ID(sum[:16])
}
