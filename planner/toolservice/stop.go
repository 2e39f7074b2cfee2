// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// stops is writ.v1.StopService as this package serves it, beside ToolService.
var stops = grpc.ServiceDesc{
	ServiceName: writv1.StopService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "OrderStop", Handler: unary((*Server).orderStop)},
		{MethodName: "ListStops", Handler: unary((*Server).listStops)},
	},
	Metadata: writv1.StopService_ServiceDesc.Metadata,
}

// orderStop takes an order. Its signature says who orders.
func (s *Server) orderStop(in *incoming) (*writv1.OrderStopResponse, error) {
	request := &writv1.OrderStopRequest{}
	if refusal := s.read(in.data, request); refusal != nil {
		return nil, refused(refusal, details{})
	}
	held, refusal := s.agent.OrderStop(in.ctx, request.GetOrder())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.OrderStopResponse{Stop: held}, nil
}

// listStops lists the stops that an operator may order.
func (s *Server) listStops(in *incoming) (*writv1.ListStopsResponse, error) {
	request := &writv1.ListStopsRequest{}
	view, refusal := s.view(in, request)
	if refusal == nil && len(metadata.ValueFromIncomingContext(in.ctx, approverMetadata)) == 0 {
		refusal = reasons.New(writv1.Reason_REASON_STOP_NOT_OPERATOR, "", "stops are listed for operators: send the credential %q", approverMetadata)
	}
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.ListStopsResponse{Stops: s.agent.Stops(view)}, nil
}
