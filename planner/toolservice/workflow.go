// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// workflows is writ.v1.WorkflowService as this package serves it, beside ToolService.
var workflows = grpc.ServiceDesc{
	ServiceName: writv1.WorkflowService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "BeginWorkflow", Handler: unary((*Server).beginWorkflow)},
		{MethodName: "EndWorkflow", Handler: unary((*Server).endWorkflow)},
		{MethodName: "GetWorkflowReport", Handler: unary((*Server).getWorkflowReport)},
	},
	Metadata: writv1.WorkflowService_ServiceDesc.Metadata,
}

// beginWorkflow begins a run in the session that the token names.
func (s *Server) beginWorkflow(in *incoming) (*writv1.BeginWorkflowResponse, error) {
	request := &writv1.BeginWorkflowRequest{}
	who, refusal := s.readOwn(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	made, refusal := s.agent.BeginWorkflow(in.ctx, who, sessionToken(in.ctx), request.GetWorkflow(), request.GetIntent(), request.GetInputs().GetText())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.BeginWorkflowResponse{RunId: made.ID.String(), ExpireTime: timestamppb.New(made.ExpireTime)}, nil
}

// endWorkflow ends the run of the session that the token names. A run that failed has
// ended all the same: how it came out is the answer, not an error.
func (s *Server) endWorkflow(in *incoming) (*writv1.EndWorkflowResponse, error) {
	request := &writv1.EndWorkflowRequest{}
	who, refusal := s.readOwn(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	made, refusal := s.agent.EndWorkflow(in.ctx, who, sessionToken(in.ctx), request.GetOutput().GetText())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.EndWorkflowResponse{
		RunId: made.ID.String(), Result: made.Conclusion.Result, Checks: made.Conclusion.Checks, Cost: made.Cost,
	}, nil
}

// getWorkflowReport tells how the runs of a workflow came out.
func (s *Server) getWorkflowReport(in *incoming) (*writv1.GetWorkflowReportResponse, error) {
	request := &writv1.GetWorkflowReportRequest{}
	who, refusal := s.readOwn(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	totals, open, refusal := s.agent.WorkflowReport(who, request.GetWorkflow())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	ended := totals.GetSucceeded() + totals.GetFailed() + totals.GetUnacceptable()
	return &writv1.GetWorkflowReportResponse{
		Totals: totals, Open: open, Abandoned: totals.GetBegun() - min(totals.GetBegun(), ended+open),
		CostPerSuccess: share(totals.GetCost(), totals.GetSucceeded()),
	}, nil
}

// share returns what each of so many successes cost, rounded up; nil when there is none.
func share(cost *writv1.RunCost, successes uint64) *writv1.RunCost {
	if successes == 0 {
		return nil
	}
	each := func(sum uint64) uint64 { return sum/successes + min(1, sum%successes) }
	return &writv1.RunCost{
		Calls: each(cost.GetCalls()), Writes: each(cost.GetWrites()),
		Duration:     durationpb.New(time.Duration(each(uint64(cost.GetDuration().AsDuration())))),
		RequestBytes: each(cost.GetRequestBytes()), ResponseBytes: each(cost.GetResponseBytes()),
		InputTokens: each(cost.GetInputTokens()), OutputTokens: each(cost.GetOutputTokens()), MoneyNanoDollars: each(cost.GetMoneyNanoDollars()),
	}
}
