// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// approverMetadata has an approver's credential.
	approverMetadata = "x-writ-approver-bin"
	// approvalPage is how many approvals are listed at a time.
	approvalPage = 50
	// watchTick is how often a watch looks for what has expired.
	watchTick = time.Second
)

// approvals is writ.v1.ApprovalService as this package serves it, beside ToolService.
var approvals = grpc.ServiceDesc{
	ServiceName: writv1.ApprovalService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "ListApprovals", Handler: unary((*Server).listApprovals)},
		{MethodName: "GetApproval", Handler: unary((*Server).getApproval)},
		{MethodName: "Vote", Handler: unary((*Server).vote)},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "WatchApprovals", Handler: serveWatchApprovals, ServerStreams: true},
	},
	Metadata: writv1.ApprovalService_ServiceDesc.Metadata,
}

// view reads a request, and returns what its caller sees: an approver what it may vote
// on, anybody else what it asked for itself.
func (s *Server) view(in *incoming, into proto.Message) (agent.Viewer, *reasons.Error) {
	if refusal := s.read(in.data, into); refusal != nil {
		return agent.Viewer{}, refusal
	}
	values := metadata.ValueFromIncomingContext(in.ctx, approverMetadata)
	if len(values) == 0 {
		who, refusal := s.identify(in.ctx)
		return agent.OwnView(who), refusal
	}
	credential := &writv1.ApproverCredential{}
	if refusal := s.read([]byte(values[0]), credential); refusal != nil {
		return agent.Viewer{}, refusal
	}
	return s.agent.ApproverView(credential)
}

// listApprovals lists what the caller sees, in the states that are asked for. Its pages
// go on after the id of the last approval.
func (s *Server) listApprovals(in *incoming) (*writv1.ListApprovalsResponse, error) {
	request := &writv1.ListApprovalsRequest{}
	view, refusal := s.view(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	states := request.GetStates()
	if len(states) == 0 {
		states = []writv1.ApprovalState{writv1.ApprovalState_APPROVAL_STATE_PENDING}
	}
	all := s.agent.Approvals(view)
	if after := request.GetPageToken(); after != "" {
		at := slices.IndexFunc(all, func(a *writv1.Approval) bool { return a.GetSubject().GetApprovalId() == after })
		if at < 0 {
			return nil, refused(reasons.New(writv1.Reason_REASON_APPROVAL_UNKNOWN, "page_token", "the approval that the page goes on after is gone; list again"), details{})
		}
		all = all[at+1:]
	}
	size := int(request.GetPageSize())
	if size == 0 {
		size = approvalPage
	}
	response := &writv1.ListApprovalsResponse{}
	for _, approval := range all {
		if !slices.Contains(states, approval.GetState()) {
			continue
		}
		if len(response.GetApprovals()) == size {
			response.NextPageToken = response.GetApprovals()[size-1].GetSubject().GetApprovalId()
			break
		}
		response.Approvals = append(response.Approvals, approval)
	}
	return response, nil
}

// getApproval returns one approval.
func (s *Server) getApproval(in *incoming) (*writv1.GetApprovalResponse, error) {
	request := &writv1.GetApprovalRequest{}
	view, refusal := s.view(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	approval, refusal := s.agent.Approval(view, request.GetApprovalId())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.GetApprovalResponse{Approval: approval}, nil
}

// vote takes a vote. Its signature says who votes.
func (s *Server) vote(in *incoming) (*writv1.VoteResponse, error) {
	request := &writv1.VoteRequest{}
	if refusal := s.read(in.data, request); refusal != nil {
		return nil, refused(refusal, details{})
	}
	approval, refusal := s.agent.Vote(in.ctx, request.GetVote())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.VoteResponse{Approval: approval}, nil
}

func serveWatchApprovals(srv any, stream grpc.ServerStream) error {
	var request message
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	s, ok := srv.(*Server)
	if !ok {
		return fmt.Errorf("served by a %T", srv)
	}
	in := &incoming{ctx: stream.Context(), data: request.data}
	return s.guard(in, func() error { return s.watchApprovals(in, stream) })
}

// watchApprovals sends what the caller sees, and what changes of it, until the caller
// goes, the server drains, or the one approval that is watched has ended.
func (s *Server) watchApprovals(in *incoming, stream grpc.ServerStream) error {
	request := &writv1.WatchApprovalsRequest{}
	view, refusal := s.view(in, request)
	if refusal != nil {
		return refused(refusal, details{})
	}
	only := request.GetApprovalId()
	if only != "" {
		if _, refusal := s.agent.Approval(view, only); refusal != nil {
			return refused(refusal, details{})
		}
	}
	ctx, cancel := context.WithCancel(in.ctx)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	told := make(map[string]seen)
	for {
		change := s.agent.ApprovalsChange()
		over, err := s.tell(stream, view, only, told)
		if over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-change:
		case <-tick.C:
		}
	}
}

// seen is what a watcher was told of an approval.
type seen struct {
	state writv1.ApprovalState
	votes int
}

// tell sends what a watcher does not know yet, and says whether the one approval that it
// watches has ended.
func (s *Server) tell(stream grpc.ServerStream, view agent.Viewer, only string, told map[string]seen) (bool, error) {
	over := only != ""
	for _, approval := range s.agent.Approvals(view) {
		id, now := approval.GetSubject().GetApprovalId(), seen{approval.GetState(), len(approval.GetVotes())}
		if only != "" && id != only {
			continue
		}
		over = only != "" && now.state != writv1.ApprovalState_APPROVAL_STATE_PENDING && now.state != writv1.ApprovalState_APPROVAL_STATE_APPROVED
		if told[id] == now {
			continue
		}
		told[id] = now
		if err := stream.SendMsg(&writv1.WatchApprovalsResponse{Approval: approval}); err != nil {
			return false, err
		}
	}
	return over, nil
}
