// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// AgentsFromService returns the AgentReader over a collector's service.
func AgentsFromService(client writv1.AgentServiceClient) AgentReader { return agentService{client} }

type agentService struct{ client writv1.AgentServiceClient }

// ListAgents returns a page of agents.
func (r agentService) ListAgents(ctx context.Context, req *writv1.ListAgentsRequest) (*writv1.ListAgentsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := r.client.ListAgents(ctx, req)
	return out, answered(err)
}

// GetAgent returns one agent and the findings about it.
func (r agentService) GetAgent(ctx context.Context, req *writv1.GetAgentRequest) (*writv1.GetAgentResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := r.client.GetAgent(ctx, req)
	if err = answered(err); errors.Is(err, ErrNotFound) {
		err = ErrNoAgent
	}
	return out, err
}
