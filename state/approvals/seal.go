// SPDX-License-Identifier: Apache-2.0

package approvals

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// The sensitive arguments of a call are sealed to its approvers with HPKE (RFC 9180),
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM in base mode: to each of them a
// key of its own under which the arguments are encrypted once, with AES-256-GCM (NIST SP
// 800-38D). Both are bound to the approval's id: they open nowhere else.

const (
	sealPurpose = "writ/approval-seal/v1\n"
	// contentKeyBytes is the length of the key under which arguments are encrypted:
	// AES-256's. It is used once, so that the nonce is zero.
	contentKeyBytes = 32
	saltBytes       = 32
	// MostSealedBytes bounds what is sealed: a record has 65,535 bytes.
	MostSealedBytes = 16 << 10
	// MostRecipients bounds to whom it is sealed, at some 150 bytes each.
	MostRecipients = 32
)

var (
	kem = hpke.DHKEM(ecdh.X25519())
	kdf = hpke.HKDFSHA256()
)

// ErrNotSealed says that nothing is sealed to the key, ErrSealBroken that what is does
// not open, or is not what it says.
var (
	ErrNotSealed  = errors.New("nothing is sealed to this key")
	ErrSealBroken = errors.New("the sealed arguments do not open")
)

// sealing returns the key that things are sealed to. It is derived from the signing key
// (HKDF, RFC 5869), so that an approver has one secret.
func (k *Key) sealing() (hpke.PrivateKey, error) {
	material, err := hkdf.Key(sha256.New, k.private.Seed(), nil, "writ/approver-seal-key/v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the approver's key: %w", err)
	}
	private, err := kem.DeriveKeyPair(material)
	if err != nil {
		return nil, fmt.Errorf("derive the approver's key: %w", err)
	}
	return private, nil
}

// SealKey returns the public key that things are sealed to, in base64.
func (k *Key) SealKey() (string, error) {
	private, err := k.sealing()
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(private.PublicKey().Bytes()), nil
}

// ParseSealKey reads what [Key.SealKey] writes.
func ParseSealKey(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		_, err = kem.NewPublicKey(raw)
	}
	if err != nil {
		return nil, errors.New("not an X25519 public key in base64")
	}
	return raw, nil
}

// Seal seals arguments for an approval to keys that [ParseSealKey] has read. It returns
// nil where there is nothing to seal, or nobody to seal it to, or too much.
func Seal(approval string, arguments []*writv1.SealedArgument, to [][]byte) (*writv1.SealedArguments, error) {
	text := &writv1.SealedText{Salt: make([]byte, saltBytes), Arguments: arguments}
	key := make([]byte, contentKeyBytes)
	if _, err := rand.Read(text.GetSalt()); err != nil {
		return nil, fmt.Errorf("seal arguments: %w", err)
	}
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("seal arguments: %w", err)
	}
	plain, err := canonical.Marshal(text)
	if err != nil {
		return nil, fmt.Errorf("seal arguments: %w", err)
	}
	if len(arguments) == 0 || len(to) == 0 || len(plain) > MostSealedBytes {
		return nil, nil
	}
	aead, err := contentCipher(key)
	if err != nil {
		return nil, err
	}
	out := &writv1.SealedArguments{
		Digest:     sealDigest(plain),
		Ciphertext: aead.Seal(nil, make([]byte, aead.NonceSize()), plain, []byte(sealPurpose+approval)),
	}
	for _, recipient := range to[:min(len(to), MostRecipients)] {
		public, err := kem.NewPublicKey(recipient)
		if err != nil {
			return nil, fmt.Errorf("seal arguments: %w", err)
		}
		sealed, err := hpke.Seal(public, kdf, hpke.AES256GCM(), []byte(sealPurpose+approval), key)
		if err != nil {
			return nil, fmt.Errorf("seal arguments: %w", err)
		}
		out.Keys = append(out.Keys, &writv1.SealedKey{Recipient: recipientOf(recipient), Sealed: sealed})
	}
	return out, nil
}

func contentCipher(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal arguments: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal arguments: %w", err)
	}
	return aead, nil
}

// sealDigest is what an approver's signature covers of the text: the salt in it keeps
// values from being guessed.
func sealDigest(plain []byte) []byte {
	sum := sha256.Sum256(append([]byte("writ/approval-arguments/v1\n"), plain...))
	return sum[:]
}

// recipientOf names a key.
func recipientOf(public []byte) []byte {
	sum := sha256.Sum256(public)
	return sum[:]
}

// Open returns the arguments that are sealed to the key, after it has held them against
// the digest that the subject has of them. Where nothing is sealed to it, it returns
// [ErrNotSealed].
func (k *Key) Open(subject *writv1.ApprovalSubject) ([]*writv1.SealedArgument, error) {
	sealed := subject.GetRequest().GetSealed()
	private, err := k.sealing()
	if err != nil {
		return nil, err
	}
	mine := recipientOf(private.PublicKey().Bytes())
	at := slices.IndexFunc(sealed.GetKeys(), func(s *writv1.SealedKey) bool { return bytes.Equal(s.GetRecipient(), mine) })
	if at < 0 {
		return nil, ErrNotSealed
	}
	purpose := []byte(sealPurpose + subject.GetApprovalId())
	key, err := hpke.Open(private, kdf, hpke.AES256GCM(), purpose, sealed.GetKeys()[at].GetSealed())
	if err != nil || len(key) != contentKeyBytes {
		return nil, ErrSealBroken
	}
	aead, err := contentCipher(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed.GetCiphertext(), purpose)
	if err != nil || !bytes.Equal(sealDigest(plain), sealed.GetDigest()) {
		return nil, ErrSealBroken
	}
	text := &writv1.SealedText{}
	if err := (proto.UnmarshalOptions{}).Unmarshal(plain, text); err != nil {
		return nil, ErrSealBroken
	}
	return text.GetArguments(), nil
}
