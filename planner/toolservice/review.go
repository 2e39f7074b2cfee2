// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"google.golang.org/grpc"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reviews is writ.v1.ReviewService as this package serves it, beside ToolService.
var reviews = grpc.ServiceDesc{
	ServiceName: writv1.ReviewService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "LabelCall", Handler: unary((*Server).labelCall)},
	},
	Metadata: writv1.ReviewService_ServiceDesc.Metadata,
}

// labelCall takes a label. Its signature says who labels.
func (s *Server) labelCall(in *incoming) (*writv1.LabelCallResponse, error) {
	request := &writv1.LabelCallRequest{}
	if refusal := s.read(in.data, request); refusal != nil {
		return nil, refused(refusal, details{})
	}
	label, refusal := s.agent.Label(in.ctx, request.GetLabel())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.LabelCallResponse{Label: label}, nil
}
