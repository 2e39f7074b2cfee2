// SPDX-License-Identifier: Apache-2.0

package agent

// drawn says whether a human is to review the call: its risk says at what rate.
func (ad *Admission) drawn() bool {
	rate := ad.result.Decision.GetRisk().GetReviewPerMille()
	return rate > 0 && drawnForReview(ad.tenantKey, ad.id[:], rate)
}
