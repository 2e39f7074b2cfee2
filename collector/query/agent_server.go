// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"log/slog"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// AgentServer serves agents to operators: an agent is of no tenant, and tells who else
// there is.
type AgentServer struct {
	writv1.UnimplementedAgentServiceServer

	reader AgentReader
	access Access
	log    *slog.Logger
}

// NewAgentServer returns the service over a reader. A nil log is silent.
func NewAgentServer(reader AgentReader, access Access, log *slog.Logger) *AgentServer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &AgentServer{reader: reader, access: access, log: log}
}

// ListAgents lists agents.
func (s *AgentServer) ListAgents(ctx context.Context, r *writv1.ListAgentsRequest) (*writv1.ListAgentsResponse, error) {
	if err := s.allowed(ctx); err != nil {
		return nil, err
	}
	out, err := s.reader.ListAgents(ctx, r)
	return out, statusOf(ctx, s.log, err)
}

// GetAgent returns one agent.
func (s *AgentServer) GetAgent(ctx context.Context, r *writv1.GetAgentRequest) (*writv1.GetAgentResponse, error) {
	if err := s.allowed(ctx); err != nil {
		return nil, err
	}
	out, err := s.reader.GetAgent(ctx, r)
	return out, statusOf(ctx, s.log, err)
}

func (s *AgentServer) allowed(ctx context.Context) error {
	if _, err := s.access.may(ctx, writv1.ReaderRole_READER_ROLE_OPERATOR); err != nil {
		s.log.WarnContext(ctx, "a reader of agents is refused", "error", err)
		return refused(writv1.ReaderRole_READER_ROLE_OPERATOR)
	}
	return nil
}
