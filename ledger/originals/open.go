// SPDX-License-Identifier: Apache-2.0

package originals

import (
	"context"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Why originals are not opened.
var (
	// ErrNone says that nothing of the record was kept out, or nothing is sealed.
	ErrNone = errors.New("no originals are sealed in the record")
	// ErrShredded says that the key was destroyed.
	ErrShredded = errors.New("the key that the originals are sealed to was shredded")
	// ErrNoKey says that the holder has no such key, and never had.
	ErrNoKey = errors.New("the originals are sealed to a key that is not held here")
	// ErrBroken says that what is sealed does not open in this record, or is not what the
	// record commits to.
	ErrBroken = errors.New("the sealed originals are not those of the record")
)

// Holder holds private keys.
type Holder interface {
	// Private returns the private key of an id, or [ErrShredded] or [ErrNoKey].
	Private(ctx context.Context, id [32]byte) (Private, error)
}

// Private is a private key with what it is of.
type Private struct {
	Tenant string
	Day    Day
	Key    hpke.PrivateKey
}

// Value is a value that was kept out of a record, with what proves it.
type Value struct {
	// Path is the commitment's.
	Path string
	// JSON is its canonical JSON.
	JSON []byte
	// Salt is that of the path: with it [ledger.VerifyDisclosure] verifies this value, and
	// no other.
	Salt []byte
}

// Opener opens originals. It may be used by several goroutines.
type Opener struct {
	holder Holder

	// mu guards data, the data keys that were opened, by digest of what they were
	// wrapped in.
	mu   sync.Mutex
	data map[[32]byte]cipher.AEAD
}

// mostData bounds the data keys that are remembered.
const mostData = 1000

// NewOpener returns an opener that has the holder's keys.
func NewOpener(holder Holder) *Opener {
	return &Opener{holder: holder, data: make(map[[32]byte]cipher.AEAD)}
}

// Open returns the values that were kept out of a record, each of which it has held
// against its commitment. Its error is one of those above where that is why.
func (o *Opener) Open(ctx context.Context, r *writv1.Record) ([]Value, error) {
	sealed := r.GetSealed()
	if len(sealed.GetCiphertext()) == 0 {
		return nil, ErrNone
	}
	if len(r.GetLogId()) != 32 || len(sealed.GetKeyId()) != 32 {
		return nil, ErrBroken
	}
	aead, err := o.dataKey(ctx, r)
	if err != nil {
		return nil, err
	}
	committed := make([]ledger.Sensitive, len(r.GetCommitments()))
	for i, c := range r.GetCommitments() {
		committed[i] = ledger.Sensitive{Path: c.GetPath(), Digest: c.GetDigest()}
	}
	plain, err := aead.Open(nil, nil, sealed.GetCiphertext(), bound([32]byte(r.GetLogId()), r.GetDecisionId(), digests(committed)))
	if err != nil {
		return nil, ErrBroken
	}
	text := &writv1.OriginalsText{}
	if err := canonical.Unmarshal(plain, text); err != nil || len(text.GetValues()) != len(committed) {
		return nil, ErrBroken
	}
	return proved(r, text)
}

// proved returns the values of a text once each is proved.
func proved(r *writv1.Record, text *writv1.OriginalsText) ([]Value, error) {
	values := make([]Value, len(text.GetValues()))
	for i, v := range text.GetValues() {
		salt, err := ledger.PathSalt(text.GetSalt(), v.GetPath())
		if err != nil {
			return nil, fmt.Errorf("derive salt: %w", err)
		}
		if v.GetPath() != r.GetCommitments()[i].GetPath() {
			return nil, fmt.Errorf("%w: %s", ErrBroken, v.GetPath())
		}
		if err := ledger.VerifyDisclosure(r, v.GetPath(), v.GetValue(), salt); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		values[i] = Value{Path: v.GetPath(), JSON: v.GetValue(), Salt: salt}
	}
	return values, nil
}

// dataKey opens the key that a record's values are encrypted with.
func (o *Opener) dataKey(ctx context.Context, r *writv1.Record) (cipher.AEAD, error) {
	sealed := r.GetSealed()
	name := sha256.Sum256(append(append([]byte(r.GetTenant()+"\x00"+sealed.GetDay()+"\x00"), sealed.GetKeyId()...), sealed.GetWrappedKey()...))
	o.mu.Lock()
	held := o.data[name]
	o.mu.Unlock()
	if held != nil {
		return held, nil
	}
	private, err := o.holder.Private(ctx, [32]byte(sealed.GetKeyId()))
	if err != nil {
		return nil, err
	}
	if private.Tenant != r.GetTenant() || string(private.Day) != sealed.GetDay() {
		return nil, ErrBroken
	}
	raw, err := hpke.Open(private.Key, kdf, hpke.AES256GCM(), keyInfo(private.Day, private.Tenant), sealed.GetWrappedKey())
	if err != nil || len(raw) != dataKeyBytes {
		return nil, ErrBroken
	}
	aead, err := dataCipher(raw)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.data) >= mostData {
		clear(o.data)
	}
	o.data[name] = aead
	return aead, nil
}
