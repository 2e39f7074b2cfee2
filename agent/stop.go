// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/state/stops"
)

// operatorRole is the role of those who may stop calls.
const operatorRole = "operator"

// operatorsAmong returns the operators among approvers.
func operatorsAmong(approvers []Approver) approvals.Operators {
	var found approvals.Operators
	for i := range approvers {
		a := &approvers[i]
		if slices.Contains(a.Roles, operatorRole) {
			found = append(found, approvals.Operator{User: a.User, Tenant: a.Tenant, AllTenants: a.AllTenants, PublicKey: a.PublicKey})
		}
	}
	return found
}

// OrderStop takes an operator's order to stop calls or to lift a stop, from whoever
// brings it: its signature says who orders. Once it returns the order is recorded, and
// calls that are received from then on are decided under it. An order that changes
// nothing is not recorded again.
func (a *Agent) OrderStop(ctx context.Context, order *writv1.StopOrder) (*writv1.HeldStop, *reasons.Error) {
	order = proto.CloneOf(order)
	if refusal := a.orderable(order); refusal != nil {
		return nil, refusal
	}
	id, err := stops.IDOf(order.GetStop())
	if err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "order.stop", "the stop cannot be named")
	}
	a.state.mu.Lock()
	changes, err := a.state.stops.Takes(order, a.options.Clock())
	a.state.mu.Unlock()
	if err != nil {
		return nil, unorderable(err)
	}
	if !changes {
		return &writv1.HeldStop{Id: id, Order: order}, nil
	}
	_, err = a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_STOP, Tenant: order.GetStop().GetScope().GetTenant(),
		BundleDigest: a.bundleDigest(), Body: order,
		Written: func(err error) {
			if err == nil {
				err = a.state.stop(order)
			}
			if err != nil {
				a.options.Log.ErrorContext(ctx, "an operator's order was not taken", "stop", id, "error", err)
			}
		},
	}, a.ownDurability())
	if err != nil {
		return nil, ledgerRefusal(err)
	}
	a.options.Log.WarnContext(ctx, "an operator's order was taken", "stop", id, "choice", order.GetChoice().String(), "operator", order.GetOperator())
	return &writv1.HeldStop{Id: id, Order: order}, nil
}

// orderable says why an order is not even looked at: it is malformed, or not one of an
// operator of these calls.
func (a *Agent) orderable(order *writv1.StopOrder) *reasons.Error {
	if err := protovalidate.Validate(order); err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_DECODE_MALFORMED, "order", "the order breaks the rules of its message: %v", err)
	}
	if !operatorsAmong(a.options.Approvers).Signed(order) {
		return reasons.New(writv1.Reason_REASON_STOP_NOT_OPERATOR, "order",
			"the order is not signed by an operator of these calls; name the operator's tenant, or register the key for all tenants")
	}
	return nil
}

// unorderable maps why an order is not taken to a reason.
func unorderable(err error) *reasons.Error {
	switch {
	case errors.Is(err, stops.ErrFull):
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_OVERLOADED, "", "%d stops are held, which is the most; order a wider one, or wait until one ends", stops.MaxHeld)
	case errors.Is(err, stops.ErrExpired), errors.Is(err, stops.ErrLifted), errors.Is(err, stops.ErrLife), errors.Is(err, stops.ErrFuture):
		return reasons.Wrap(err, writv1.Reason_REASON_STOP_OVER, "order.stop", "%v; order another one", err)
	default:
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to take the order")
	}
}

// Stops returns the stops that a viewer may order, lifted ones too, until they end:
// oldest first.
func (a *Agent) Stops(v Viewer) []*writv1.HeldStop {
	now, may := a.options.Clock(), operatorsAmong(v.approver)
	a.state.mu.Lock()
	all := a.state.stops.Held()
	a.state.mu.Unlock()
	return slices.DeleteFunc(all, func(held *writv1.HeldStop) bool {
		stop := held.GetOrder().GetStop()
		return !may.May(stop.GetScope()) || !now.Before(stop.GetExpireTime().AsTime())
	})
}

// InForce returns how many stops are in force.
func (a *Agent) InForce() int {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	return a.state.stops.InForce(a.options.Clock())
}

// stop applies an order.
func (s *State) stop(order *writv1.StopOrder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stops.Take(order)
}

// stopped returns the stops that speak of the call. The caller holds the state's lock.
func (a *Agent) stopped(ad *Admission) []*writv1.StopFact {
	if a.state.stops.Empty() {
		return nil
	}
	call := &stops.Call{
		Tool: ad.call.Envelope.GetToolCall().GetName(), Principal: ad.request.Principal,
		Model: ad.call.Envelope.GetModelRoute(), Pin: ad.call.Envelope.GetModelPin(),
	}
	if ad.session != (sessions.ID{}) {
		call.Session = ad.session.String()
	}
	return a.state.stops.Facts(call, ad.time)
}
