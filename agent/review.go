// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

// reviewerRole is the role of those who may label calls.
const reviewerRole = "reviewer"

// drawn says whether a human is to review the call: its risk says at what rate.
func (ad *Admission) drawn() bool {
	rate := ad.result.Decision.GetRisk().GetReviewPerMille()
	return rate > 0 && drawnForReview(ad.tenantKey, ad.id[:], rate)
}

// Label records a reviewer's label, and returns it with the time at which it was taken.
// That its call is there, and is of the tenant that the label names, is held against the
// records by whoever reads them: the agent may have pruned it.
func (a *Agent) Label(ctx context.Context, label *writv1.ReviewLabel) (*writv1.ReviewLabel, *reasons.Error) {
	label = proto.CloneOf(label)
	label.Time = timestamppb.New(a.options.Clock())
	may := slices.ContainsFunc(a.approversOf(label.GetReviewer(), label.GetPublicKey()), func(r Approver) bool {
		return r.Tenant == label.GetTenant() && !r.AllTenants && slices.Contains(r.Roles, reviewerRole)
	})
	if !may || !approvals.VerifyLabel(label) {
		return nil, reasons.New(writv1.Reason_REASON_REVIEW_NOT_REVIEWER, "label",
			"the label is not signed by somebody who may review calls of the tenant")
	}
	_, err := a.options.Ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_REVIEW, Tenant: label.GetTenant(), DecisionID: label.GetDecisionId(),
		BundleDigest: a.bundleDigest(), Body: label,
	}, a.options.Floor)
	if err != nil {
		return nil, ledgerRefusal(err)
	}
	return label, nil
}
