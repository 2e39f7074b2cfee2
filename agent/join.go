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
// Otherwise both are refused: with the request's own refusal where it has one,
// because what cannot be read cannot be compared, and else as BODY_CHANGED. An id
// that is absent or unknown is decided on as if it had not been there.
func (a *Agent) Join(ctx context.Context, id string, request *Request) *Admission {
	held := a.joinable(id)
	switch {
	case held == nil:
		return a.Admit(ctx, request)
	case request.Refusal != nil:
		a.takeBack(ctx, held, request.Refusal)
		return a.Admit(ctx, request)
	case held.isOf(request):
		return held
	}
	changed := *request
	changed.Refusal = reasons.New(writv1.Reason_REASON_ADMISSION_BODY_CHANGED, "", "the call changed between two filters of its route")
	a.takeBack(ctx, held, changed.Refusal)
	return a.Admit(ctx, &changed)
}

// takeBack finishes an admission that is refused after all, and keeps it from
// being released.
func (a *Agent) takeBack(ctx context.Context, held *Admission, refusal *reasons.Error) {
	if !held.released.CompareAndSwap(false, true) {
		return
	}
	err := held.Finish(Outcome{
		State:   writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
		Reason:  refusal.Reason,
		Message: refusal.Message,
	})
	if err != nil {
		a.options.Log.ErrorContext(ctx, "the withdrawal of a call was not recorded", "decision_id", held.ID(), "error", err)
	}
}

// joinable returns the admission that an id names and that is now the caller's
// alone to join or to take back; nil if there is none.
func (a *Agent) joinable(id string) *Admission {
	parsed, err := admissions.ParseID(id)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	held := a.open[parsed]
	a.mu.Unlock()
	if held == nil || held.released.Load() || !held.joined.CompareAndSwap(false, true) {
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
