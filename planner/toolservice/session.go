// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// beginSession mints a session, and tells it what the user asked for.
func (s *Server) beginSession(in *incoming) (*writv1.BeginSessionResponse, error) {
	request := &writv1.BeginSessionRequest{}
	who, refusal := s.readOwn(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	made, refusal := s.agent.BeginSession(in.ctx, who, request.GetLabel(), request.GetLifetime().AsDuration())
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	response := &writv1.BeginSessionResponse{
		SessionId: made.ID.String(), Token: made.Token, ExpireTime: timestamppb.New(made.ExpireTime),
	}
	if request.GetUserRequest() == "" {
		return response, nil
	}
	response.Attested, refusal = s.agent.Observe(in.ctx, who, made.Token, agent.Report{Text: request.GetUserRequest(), User: true})
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return response, nil
}

// endSession ends the session that the token names.
func (s *Server) endSession(in *incoming) (*writv1.EndSessionResponse, error) {
	who, refusal := s.readOwn(in, &writv1.EndSessionRequest{})
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	summary, refusal := s.agent.EndSession(in.ctx, who, sessionToken(in.ctx))
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.EndSessionResponse{Summary: summary}, nil
}

// observe tells a session what the caller reports.
func (s *Server) observe(in *incoming) (*writv1.ObserveResponse, error) {
	request := &writv1.ObserveRequest{}
	who, refusal := s.readOwn(in, request)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	report := agent.Report{Text: request.GetReportedText()}
	switch observed := request.GetObservation().(type) {
	case *writv1.ObserveRequest_UserText:
		report = agent.Report{Text: observed.UserText, User: true}
	case *writv1.ObserveRequest_ToolResult:
		report = agent.Report{Tool: observed.ToolResult.GetTool(), JSON: observed.ToolResult.GetResult().GetText()}
	}
	attested, refusal := s.agent.Observe(in.ctx, who, sessionToken(in.ctx), report)
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	return &writv1.ObserveResponse{Attested: attested}, nil
}

// readOwn reads a request that proposes no call, and finds out whose it is.
func (s *Server) readOwn(in *incoming, into proto.Message) (*writv1.Principal, *reasons.Error) {
	who, refusal := s.identify(in.ctx)
	if refusal != nil {
		return nil, refusal
	}
	return who, s.read(in.data, into)
}
