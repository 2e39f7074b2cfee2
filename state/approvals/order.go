// SPDX-License-Identifier: Apache-2.0

package approvals

import (
	"crypto/ed25519"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// orderMessage returns the bytes that an order's signature is over: the order without
// signature, in canonical form after its purpose.
func orderMessage(order *writv1.StopOrder) ([]byte, error) {
	signed := proto.CloneOf(order)
	signed.Signature = nil
	return message("writ/stop-order/v1\n", signed)
}

// VerifyOrder says whether the key that an order names signed it.
func VerifyOrder(order *writv1.StopOrder) bool {
	text, err := orderMessage(order)
	return err == nil && verify(order.GetPublicKey(), text, order.GetSignature())
}

// Order returns the signed order of the key's user to stop calls or to lift a stop.
func (k *Key) Order(stop *writv1.Stop, choice writv1.StopChoice) (*writv1.StopOrder, error) {
	order := &writv1.StopOrder{Stop: stop, Choice: choice, Operator: k.User, PublicKey: k.PublicKey()}
	text, err := orderMessage(order)
	if err != nil {
		return nil, err
	}
	order.Signature = ed25519.Sign(k.private, text)
	return order, nil
}
