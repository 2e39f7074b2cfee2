// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// authorize decides on a call that the planner carries out itself. The ALLOW
// releases it; how it ends is not seen here.
func (s *Server) authorize(in *incoming) (*writv1.AuthorizeResponse, error) {
	request := &writv1.AuthorizeRequest{}
	admission := s.admit(in, writv1.Surface_SURFACE_AUTHORIZE, func(r *agent.Request) *reasons.Error {
		return s.readProposal(in, request, r)
	})
	response := &writv1.AuthorizeResponse{
		DecisionId:        admission.ID(),
		Decision:          told(admission.Decision()),
		ApprovalId:        admission.ApprovalID(),
		RecordIndex:       admission.RecordIndex(),
		EarlierDecisionId: admission.EarlierID(),
	}
	if admission.Refusal() != nil {
		return response, nil
	}
	if err := release(admission); err != nil {
		return nil, refused(reasons.Of(err), in.details())
	}
	response.Args = &writv1.Json{Text: admission.Arguments()}
	return response, nil
}

// told returns a decision without its risk assessment: who is scored is not told the
// score, nor how often such calls are looked at.
func told(d *writv1.Decision) *writv1.Decision {
	return &writv1.Decision{
		Verdict: d.GetVerdict(), Reason: d.GetReason(), Checks: d.GetChecks(), Obligations: d.GetObligations(), Effects: d.GetEffects(),
	}
}

func release(admission *agent.Admission) error {
	if err := admission.Release(); err != nil {
		return err
	}
	return admission.FinishLater(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED})
}
