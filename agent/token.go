// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/hex"
	"time"

	"github.com/writ-dev/writ/ledger/token"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// tokenLifetime is the default and the most (SEMANTICS 14).
const tokenLifetime = 60 * time.Second

// bind digests the request that a token will be bound to and says how long it is
// valid, so that the record holds both.
func (a *Agent) bind(ad *Admission) *reasons.Error {
	if ad.request.Token == nil || !ad.Allowed() {
		return nil
	}
	if a.options.Tokens == nil {
		return reasons.New(writv1.Reason_REASON_AGENT_UNIMPLEMENTED, "", "the route asks for a decision token, and the agent makes none")
	}
	sum := ad.request.Token.Digest(ad.result.Canonical)
	ad.digest = sum[:]
	ad.lifetime = ad.request.Token.Lifetime
	if ad.lifetime <= 0 || ad.lifetime > tokenLifetime {
		ad.lifetime = tokenLifetime
	}
	return nil
}

// mint makes the token of a decision that is durable.
func (a *Agent) mint(ad *Admission) *reasons.Error {
	if ad.request.Token == nil || !ad.Allowed() {
		return nil
	}
	minted, err := a.options.Tokens.Mint(token.Request{
		Kind:       ad.request.Token.Kind,
		Audience:   ad.request.Token.Audience,
		Issued:     ad.time,
		Lifetime:   ad.lifetime,
		DecisionID: ad.ID(),
		Tool:       ad.result.Tool.Name,
		Tenant:     ad.request.Principal.GetTenant(),
		Digest:     [32]byte(ad.digest),
		Position:   ad.position,
	})
	if err != nil {
		return reasons.Wrap(err, writv1.Reason_REASON_AGENT_INTERNAL, "", "the agent failed to make the decision token")
	}
	ad.token = minted
	return nil
}

func hexString(b []byte) string { return hex.EncodeToString(b) }
