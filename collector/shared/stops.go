// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/stops"
)

const (
	// credential is the metadata with an operator's credential.
	credential = "x-writ-approver-bin"
	// credentialAge is how long a credential counts, before and after its time.
	credentialAge = time.Minute
)

// StopStore keeps orders. A *store.Store is one.
type StopStore interface {
	// AddStopOrder keeps an order, once.
	AddStopOrder(ctx context.Context, id string, order *writv1.StopOrder) error
	// StopOrders returns the orders of stops that end after a time, in the sequence in
	// which they were kept.
	StopOrders(ctx context.Context, after time.Time) ([]*writv1.StopOrder, error)
}

// StopOptions configures [Stops].
type StopOptions struct {
	// Store keeps the orders. It MUST be set.
	Store StopStore
	// Operators may order.
	Operators approvals.Operators
	// Connected is how many agents' streams there are. It MUST be set.
	Connected func() int
	// Clock tells the time. It MUST be set.
	Clock func() time.Time
	// Log hears of orders and of what failed. It MUST be set.
	Log *slog.Logger
}

// Stops holds which calls are stopped. It is safe for use by several goroutines.
type Stops struct {
	writv1.UnimplementedStopServiceServer
	options StopOptions

	// mu guards what follows. It is held while an order is stored: orders are few, and
	// come one after the other.
	mu      sync.Mutex
	machine *stops.Machine
	// changed is closed when an order is taken.
	changed chan struct{}
}

// NewStops reads the orders that were kept.
func NewStops(ctx context.Context, o StopOptions) (*Stops, error) {
	s := &Stops{options: o, machine: stops.New(policy.Selects), changed: make(chan struct{})}
	kept, err := o.Store.StopOrders(ctx, o.Clock())
	if err != nil {
		return nil, err
	}
	for _, order := range kept {
		if err := s.machine.Take(order); err != nil {
			return nil, fmt.Errorf("a stop that was kept: %w", err)
		}
	}
	return s, nil
}

// Orders returns the orders that hold, oldest first, and a channel that is closed when
// there are others.
func (s *Stops) Orders() ([]*writv1.StopOrder, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine.Forget(s.options.Clock())
	held := s.machine.Held()
	orders := make([]*writv1.StopOrder, len(held))
	for i := range held {
		orders[i] = held[i].GetOrder()
	}
	return orders, s.changed
}

// OrderStop takes a signed order.
func (s *Stops) OrderStop(ctx context.Context, r *writv1.OrderStopRequest) (*writv1.OrderStopResponse, error) {
	if err := protovalidate.Validate(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	order := r.GetOrder()
	if !s.options.Operators.Signed(order) {
		s.options.Log.WarnContext(ctx, "an order was refused: no operator of these calls signed it", "operator", order.GetOperator())
		return nil, status.Error(codes.PermissionDenied, "the order is not signed by an operator of these calls: name the operator's tenant, or register the key for all tenants")
	}
	id, err := stops.IDOf(order.GetStop())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the stop cannot be named")
	}
	if err := s.take(ctx, id, order); err != nil {
		return nil, err
	}
	agents := uint32(s.options.Connected()) //nolint:gosec // not that many
	return &writv1.OrderStopResponse{Stop: &writv1.HeldStop{Id: id, Order: order}, Agents: &agents}, nil
}

// take keeps an order that changes something, and tells it.
func (s *Stops) take(ctx context.Context, id string, order *writv1.StopOrder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine.Forget(s.options.Clock())
	changes, err := s.machine.Takes(order, s.options.Clock())
	switch {
	case errors.Is(err, stops.ErrFull):
		return status.Errorf(codes.ResourceExhausted, "%d stops are held, which is the most: order a wider one, or wait until one ends", stops.MaxHeld)
	case err != nil:
		return status.Errorf(codes.FailedPrecondition, "%v; order another one", err)
	case !changes:
		return nil
	}
	if err := s.options.Store.AddStopOrder(ctx, id, order); err != nil {
		s.options.Log.ErrorContext(ctx, "an order was not kept", "stop", id, "error", err)
		return status.Error(codes.Unavailable, "the collector cannot keep the order now; its log says why")
	}
	if err := s.machine.Take(order); err != nil {
		return status.Error(codes.Internal, "the collector failed to take the order")
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.options.Log.WarnContext(ctx, "an operator's order was taken", "stop", id, "choice", order.GetChoice().String(), "operator", order.GetOperator())
	return nil
}

// ListStops lists the stops that the operator may order.
func (s *Stops) ListStops(ctx context.Context, _ *writv1.ListStopsRequest) (*writv1.ListStopsResponse, error) {
	may, err := s.operator(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine.Forget(s.options.Clock())
	return &writv1.ListStopsResponse{Stops: slices.DeleteFunc(s.machine.Held(), func(held *writv1.HeldStop) bool {
		return !may.May(held.GetOrder().GetStop().GetScope())
	})}, nil
}

// operator returns what the caller is registered for.
func (s *Stops) operator(ctx context.Context) (approvals.Operators, error) {
	values := metadata.ValueFromIncomingContext(ctx, credential)
	c := &writv1.ApproverCredential{}
	if len(values) != 1 || proto.Unmarshal([]byte(values[0]), c) != nil || protovalidate.Validate(c) != nil {
		return nil, status.Errorf(codes.Unauthenticated, "stops are listed for operators: send the credential %q", credential)
	}
	may := s.options.Operators.Of(c.GetUser(), c.GetPublicKey())
	age := s.options.Clock().Sub(c.GetTime().AsTime()).Abs()
	if len(may) == 0 || age > credentialAge || !approvals.VerifyCredential(c) {
		return nil, status.Error(codes.PermissionDenied, "the credential is not a registered operator's, or older than a minute")
	}
	return may, nil
}
