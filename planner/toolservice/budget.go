// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"google.golang.org/grpc"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// budgets is writ.v1.BudgetService as this package serves it, beside ToolService.
var budgets = grpc.ServiceDesc{
	ServiceName: writv1.BudgetService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "ListBalances", Handler: unary((*Server).listBalances)},
	},
	Metadata: writv1.BudgetService_ServiceDesc.Metadata,
}

// listBalances tells the caller what is left for it.
func (s *Server) listBalances(in *incoming) (*writv1.ListBalancesResponse, error) {
	who, refusal := s.readOwn(in, &writv1.ListBalancesRequest{})
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	balances, refusal := s.agent.Balances(who, sessionToken(in.ctx))
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.ListBalancesResponse{Balances: balances}, nil
}
