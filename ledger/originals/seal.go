// SPDX-License-Identifier: Apache-2.0

package originals

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	keyPurpose  = "writ/originals-key/v1\n"
	textPurpose = "writ/originals/v1\n"
	// MostSealedBytes bounds what is sealed of a record, which has 65,535 bytes in all.
	MostSealedBytes = 16 << 10
	// dataKeyBytes is the length of the key that values are encrypted with: AES-256's.
	dataKeyBytes = 32
	saltBytes    = 32
	// A data key is used for an hour and a million records at most. Nonces are random: NIST
	// SP 800-38D allows 2^32 of them under a key.
	dataKeyUses = 1 << 20
	dataKeyAge  = time.Hour
)

// Sealer seals originals. It may be used by several goroutines.
type Sealer struct {
	logID [32]byte
	// keys may be nil: nothing is sealed then.
	keys atomic.Pointer[Keys]

	// mu guards data, the data keys in use, by tenant.
	mu   sync.Mutex
	data map[string]*dataKey
}

// dataKey is a key that values are encrypted with. But for uses it does not change.
type dataKey struct {
	of      PublicKey
	id      [32]byte
	wrapped []byte
	aead    cipher.AEAD
	since   time.Time
	uses    int // guarded by Sealer.mu
}

// NewSealer returns a sealer for the records of a ledger.
func NewSealer(logID [32]byte) *Sealer {
	return &Sealer{logID: logID, data: make(map[string]*dataKey)}
}

// Use has things sealed to these keys from now on.
func (s *Sealer) Use(keys *Keys) { s.keys.Store(keys) }

// Keys returns the keys that things are sealed to; nil where there are none.
func (s *Sealer) Keys() *Keys { return s.keys.Load() }

// Seal seals the values of a decision's record to the key of its tenant and day, and
// returns them sorted, with commitments to them under a salt that is sealed with them: the
// entry MUST have both. Where it seals nothing, what it returns says why, and the values
// are as they were: the ledger commits to them.
func (s *Sealer) Seal(tenant string, decision []byte, at time.Time, values []ledger.Sensitive) (*writv1.SealedOriginals, []ledger.Sensitive, error) {
	key, err := s.dataKey(tenant, at)
	if err != nil {
		return nil, nil, err
	}
	sealed := &writv1.SealedOriginals{Day: string(DayOf(at))}
	if key == nil {
		sealed.Gap = writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY
		return sealed, values, nil
	}
	text, committed, err := s.commit(values)
	if err != nil {
		return nil, nil, err
	}
	sealed.KeyId = key.id[:]
	plain, err := canonical.Marshal(text)
	if err != nil {
		return nil, nil, fmt.Errorf("seal originals: %w", err)
	}
	if len(plain) > MostSealedBytes {
		sealed.Gap = writv1.OriginalsGap_ORIGINALS_GAP_TOO_LARGE
		return sealed, values, nil
	}
	sealed.WrappedKey = key.wrapped
	sealed.Ciphertext = key.aead.Seal(nil, nil, plain, bound(s.logID, decision, digests(committed)))
	return sealed, committed, nil
}

// Forget drops the data keys that are too old to be used. Whoever keeps the time calls it
// now and then, so that one of a tenant that makes no calls does not stay.
func (s *Sealer) Forget(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tenant, key := range s.data {
		if key.stale(at) {
			delete(s.data, tenant)
		}
	}
}

// stale says whether the key is too old to be used.
func (k *dataKey) stale(at time.Time) bool { return at.Sub(k.since).Abs() > dataKeyAge }

// Held is how many data keys are in use.
func (s *Sealer) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.data)
}

// commit returns the text that is sealed, and the values with the commitments under its salt.
func (s *Sealer) commit(values []ledger.Sensitive) (*writv1.OriginalsText, []ledger.Sensitive, error) {
	text := &writv1.OriginalsText{Salt: make([]byte, saltBytes)}
	_, _ = rand.Read(text.GetSalt()) // never fails: crypto/rand ends the program instead
	committed := slices.Clone(values)
	slices.SortFunc(committed, func(a, b ledger.Sensitive) int { return strings.Compare(a.Path, b.Path) })
	for i := range committed {
		v := &committed[i]
		salt, err := ledger.PathSalt(text.GetSalt(), v.Path)
		if err != nil {
			return nil, nil, fmt.Errorf("derive salt: %w", err)
		}
		v.Digest = ledger.Commit(salt, s.logID, v.Path, v.Value)
		text.Values = append(text.Values, &writv1.OriginalValue{Path: v.Path, Value: v.Value})
	}
	return text, committed, nil
}

// dataKey returns the data key for a tenant and a time; nil where there is no public key.
func (s *Sealer) dataKey(tenant string, at time.Time) (*dataKey, error) {
	keys := s.keys.Load()
	if keys == nil {
		return nil, nil
	}
	public, ok := keys.keys[of{tenant, DayOf(at)}]
	if !ok {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.data[tenant]
	if key == nil || key.of != public || key.uses >= dataKeyUses || key.stale(at) {
		var err error
		if key, err = newDataKey(public, at); err != nil {
			return nil, err
		}
		for name, other := range s.data {
			if other.of.Day < public.Day {
				delete(s.data, name)
			}
		}
		s.data[tenant] = key
	}
	key.uses++
	return key, nil
}

func newDataKey(public PublicKey, at time.Time) (*dataKey, error) {
	to, err := kem.NewPublicKey(public.Bytes[:])
	if err != nil {
		return nil, fmt.Errorf("seal to the key of %s: %w", public.Day, err)
	}
	raw := make([]byte, dataKeyBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	defer clear(raw)
	aead, err := dataCipher(raw)
	if err != nil {
		return nil, err
	}
	wrapped, err := hpke.Seal(to, kdf, hpke.AES256GCM(), keyInfo(public.Day, public.Tenant), raw)
	if err != nil {
		return nil, fmt.Errorf("seal to the key of %s: %w", public.Day, err)
	}
	return &dataKey{of: public, id: public.ID(), wrapped: wrapped, aead: aead, since: at}, nil
}

func dataCipher(raw []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("seal originals: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal originals: %w", err)
	}
	return aead, nil
}

// keyInfo binds a data key to a tenant and day.
func keyInfo(day Day, tenant string) []byte {
	return []byte(keyPurpose + string(day) + "\n" + tenant)
}

// bound is what a sealed text is bound to: its ledger, its decision and the commitments.
func bound(logID [32]byte, decision []byte, commitments [32]byte) []byte {
	out := append([]byte(textPurpose), logID[:]...)
	out = append(binary.LittleEndian.AppendUint64(out, uint64(len(decision))), decision...)
	return append(out, commitments[:]...)
}

// digests hashes the commitments of a record, each path after its length.
func digests(values []ledger.Sensitive) [32]byte {
	hash := sha256.New()
	for i := range values {
		hash.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(values[i].Path))))
		hash.Write([]byte(values[i].Path))
		hash.Write(values[i].Digest)
	}
	return [32]byte(hash.Sum(nil))
}
