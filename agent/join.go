// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// Join is Admit for the second filter of a route (SEMANTICS 5). When id names an
// admission of this agent that is allowed, not released and not joined, and the
// request is the same call, it returns that admission: nothing is decided again.
// When the request is another call, both are refused as BODY_CHANGED. An id that
// is absent or unknown is decided on as if it had not been there.
func (a *Agent) Join(ctx context.Context, id string, request *Request) *Admission {
	held := a.joinable(id)
	if held == nil {
		return a.Admit(ctx, request)
	}
	if request.Refusal == nil && held.isOf(request) && held.joined.CompareAndSwap(false, true) {
		return held
	}
	refusal := reasons.New(writv1.Reason_REASON_ADMISSION_BODY_CHANGED, "", "the call changed between two filters of its route")
	err := held.Finish(Outcome{
		State:   writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
		Reason:  refusal.Reason,
		Message: refusal.Message,
	})
	if err != nil {
		a.options.Log.ErrorContext(ctx, "the withdrawal of a changed call was not recorded", "decision_id", held.ID(), "error", err)
	}
	changed := *request
	changed.Refusal = refusal
	return a.Admit(ctx, &changed)
}

func (a *Agent) joinable(id string) *Admission {
	parsed, err := admissions.ParseID(id)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.open[parsed]
	if held == nil || held.released.Load() {
		return nil
	}
	return held
}

// isOf says whether the request is the admission's call, by its identity.
func (ad *Admission) isOf(request *Request) bool {
	tool := ad.result.Tool
	if request.Envelope.GetToolCall().GetName() != tool.Name || request.Upstream != ad.request.Upstream {
		return false
	}
	message, err := tool.Request.Read(request.Arguments.JSON, request.Arguments.Params, ad.agent.options.Limits.JSON)
	if err != nil {
		return false
	}
	canonical := tool.Request.Append(nil, message)
	return identity(ad.tenantKey, tool, canonical, request.Principal) == ad.identity
}
