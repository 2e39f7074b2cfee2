// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// risk writes how risky the call was found, and whether a human is to review it.
func (s *sheet) risk(r *writv1.RiskAssessment, review bool) {
	if r == nil && !review {
		return
	}
	s.title(" risk")
	if r != nil {
		s.escaped("score", fmt.Sprintf("%d of 100", r.GetScore()))
	}
	s.line("declared", name(r.GetDeclared(), "RISK_"))
	for _, c := range r.GetContributions() {
		s.escaped("adds", fmt.Sprintf("%+d %s", c.GetScore(), word(c.GetRule())))
	}
	s.line("band", r.GetBand())
	if r.GetReviewPerMille() > 0 {
		s.escaped("reviewed", fmt.Sprintf("%d of 1000 such calls", r.GetReviewPerMille()))
	}
	if review {
		s.line("review", "a human is to review the call")
	}
}
