// SPDX-License-Identifier: Apache-2.0

package approvals

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Operator is somebody who may stop calls.
type Operator struct {
	// User is the name in the operator's key.
	User string
	// Tenant is whose calls; empty is those without a tenant.
	Tenant string
	// AllTenants lets the operator stop the calls of every tenant.
	AllTenants bool
	// PublicKey is the key that its orders are signed with.
	PublicKey ed25519.PublicKey
}

// May says whether the operator may stop the calls of a scope.
func (o *Operator) May(scope *writv1.StopScope) bool {
	return scope != nil && (o.AllTenants || scope.Tenant != nil && scope.GetTenant() == o.Tenant)
}

// Operators are those that a configuration names.
type Operators []Operator

// Of returns the registrations of a user with a key.
func (all Operators) Of(user string, key []byte) Operators {
	return slices.DeleteFunc(slices.Clone(all), func(o Operator) bool { return o.User != user || !bytes.Equal(o.PublicKey, key) })
}

// May says whether one of them may stop the calls of a scope.
func (all Operators) May(scope *writv1.StopScope) bool {
	return slices.ContainsFunc(all, func(o Operator) bool { return o.May(scope) })
}

// Signed says whether one of them who may do so signed an order.
func (all Operators) Signed(order *writv1.StopOrder) bool {
	return all.Of(order.GetOperator(), order.GetPublicKey()).May(order.GetStop().GetScope()) && verifyOrder(order)
}

// orderMessage returns the bytes that an order's signature is over: the order without
// signature, in canonical form after its purpose.
func orderMessage(order *writv1.StopOrder) ([]byte, error) {
	signed := proto.CloneOf(order)
	signed.Signature = nil
	return message("writ/stop-order/v1\n", signed)
}

func verifyOrder(order *writv1.StopOrder) bool {
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
