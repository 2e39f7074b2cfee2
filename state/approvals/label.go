// SPDX-License-Identifier: Apache-2.0

package approvals

import (
	"crypto/ed25519"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// labelMessage returns the bytes that a label's signature is over: the label without
// signature and time, in canonical form after its purpose.
func labelMessage(label *writv1.ReviewLabel) ([]byte, error) {
	signed := proto.CloneOf(label)
	signed.Signature, signed.Time = nil, nil
	return message("writ/review-label/v1\n", signed)
}

// VerifyLabel says whether the key that a label names signed it.
func VerifyLabel(label *writv1.ReviewLabel) bool {
	text, err := labelMessage(label)
	return err == nil && verify(label.GetPublicKey(), text, label.GetSignature())
}

// Label returns a label of the key's user with its signature.
func (k *Key) Label(label *writv1.ReviewLabel) (*writv1.ReviewLabel, error) {
	label = proto.CloneOf(label)
	label.Reviewer, label.PublicKey = k.User, k.PublicKey()
	text, err := labelMessage(label)
	if err != nil {
		return nil, err
	}
	label.Signature = ed25519.Sign(k.private, text)
	return label, nil
}
