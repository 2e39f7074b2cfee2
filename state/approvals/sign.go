// SPDX-License-Identifier: Apache-2.0

package approvals

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Binding returns the digest of a subject that an approver signs.
func Binding(subject *writv1.ApprovalSubject) ([32]byte, error) {
	text, err := canonical.Marshal(subject)
	if err != nil {
		return [32]byte{}, fmt.Errorf("bind an approval: %w", err)
	}
	return sha256.Sum256(append([]byte("writ/approval/v1\n"), text...)), nil
}

// voteMessage returns the bytes that a vote's signature is over: the vote without
// signature and time, in canonical form after its purpose.
func voteMessage(vote *writv1.ApprovalVote) ([]byte, error) {
	signed := proto.CloneOf(vote)
	signed.Signature, signed.Time = nil, nil
	return message("writ/approval-vote/v1\n", signed)
}

// credentialMessage returns the bytes that a credential's signature is over.
func credentialMessage(c *writv1.ApproverCredential) ([]byte, error) {
	signed := proto.CloneOf(c)
	signed.Signature = nil
	return message("writ/approver/v1\n", signed)
}

func message(purpose string, signed proto.Message) ([]byte, error) {
	text, err := canonical.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("sign a message: %w", err)
	}
	return append([]byte(purpose), text...), nil
}

// VerifyVote says whether the key that a vote names signed it.
func VerifyVote(vote *writv1.ApprovalVote) bool {
	text, err := voteMessage(vote)
	return err == nil && verify(vote.GetPublicKey(), text, vote.GetSignature())
}

// VerifyCredential says whether the key that a credential names signed it.
func VerifyCredential(c *writv1.ApproverCredential) bool {
	text, err := credentialMessage(c)
	return err == nil && verify(c.GetPublicKey(), text, c.GetSignature())
}

func verify(key, text, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, text, signature)
}

// Key is an approver's private key.
type Key struct {
	// User is who it is of.
	User    string
	private ed25519.PrivateKey
}

// errKey says that a text is no key.
var errKey = errors.New("not an Ed25519 key in the form of C2SP signed-note")

// ParseKey reads a private key in the form of C2SP signed-note, as note.GenerateKey
// writes it.
func ParseKey(text string) (*Key, error) {
	text = strings.TrimSpace(text)
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, errKey
	}
	raw, err := keyBytes(text, 5, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return &Key{User: signer.Name(), private: ed25519.NewKeyFromSeed(raw)}, nil
}

// ParsePublicKey reads a public key in the vkey form of C2SP signed-note, and returns
// it with the name of the user that it is of.
func ParsePublicKey(text string) (string, ed25519.PublicKey, error) {
	text = strings.TrimSpace(text)
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return "", nil, errKey
	}
	raw, err := keyBytes(text, 3, ed25519.PublicKeySize)
	if err != nil {
		return "", nil, err
	}
	return verifier.Name(), ed25519.PublicKey(raw), nil
}

// keyBytes returns the last of a key's parts, which are joined by plus signs, without
// the byte that names the algorithm, 1 for Ed25519. The last part is base64, and may
// hold plus signs itself.
func keyBytes(text string, parts, size int) ([]byte, error) {
	split := strings.SplitN(text, "+", parts)
	raw, err := base64.StdEncoding.DecodeString(split[len(split)-1])
	if err != nil || len(split) != parts || len(raw) != 1+size || raw[0] != 1 {
		return nil, errKey
	}
	return raw[1:], nil
}

// PublicKey returns the public key.
func (k *Key) PublicKey() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Vote returns the signed vote on a subject. What is signed is the digest of the
// subject as it stands here: whoever shows it signs what was shown.
func (k *Key) Vote(subject *writv1.ApprovalSubject, choice writv1.ApprovalChoice) (*writv1.ApprovalVote, error) {
	binding, err := Binding(subject)
	if err != nil {
		return nil, err
	}
	vote := &writv1.ApprovalVote{
		ApprovalId: subject.GetApprovalId(), Approver: k.User, Choice: choice, Binding: binding[:], PublicKey: k.PublicKey(),
	}
	text, err := voteMessage(vote)
	if err != nil {
		return nil, err
	}
	vote.Signature = ed25519.Sign(k.private, text)
	return vote, nil
}

// Credential returns a credential with its signature.
func (k *Key) Credential(c *writv1.ApproverCredential) (*writv1.ApproverCredential, error) {
	c = proto.CloneOf(c)
	c.User, c.PublicKey = k.User, k.PublicKey()
	text, err := credentialMessage(c)
	if err != nil {
		return nil, err
	}
	c.Signature = ed25519.Sign(k.private, text)
	return c, nil
}
