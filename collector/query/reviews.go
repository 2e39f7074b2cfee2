// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Review is a call that was put up for review, and what reviewers said of it.
type Review struct {
	// ID is the decision's, as 32 hexadecimal digits.
	ID string
	// Digest is the Merkle leaf hash of the decision's record: what a label is of.
	Digest []byte
	// Origin is that of the record's ledger.
	Origin string
	Record *writv1.Record
	Body   *writv1.DecisionRecord
	// Labels has the last label of each reviewer, in the order of their times.
	Labels []*writv1.ReviewLabel
}

// Time is when the decision was recorded.
func (r *Review) Time() time.Time { return timeOf(r.Record.GetTimeUnixNs()) }

// Verdict returns what the reviewers say should have been decided; unspecified where
// nobody says anything, or they do not agree.
func (r *Review) Verdict() writv1.Verdict {
	agreed := writv1.Verdict_VERDICT_UNSPECIFIED
	for _, label := range r.Labels {
		if agreed != writv1.Verdict_VERDICT_UNSPECIFIED && agreed != label.GetVerdict() {
			return writv1.Verdict_VERDICT_UNSPECIFIED
		}
		agreed = label.GetVerdict()
	}
	return agreed
}

// MostReviews bounds the calls that [Reviews] returns: at some 20 kB each, 2 GB.
const MostReviews = 100_000

// Reviews returns the calls among the records that a filter selects which were put up
// for review, the riskiest first, and of those with the same score the oldest. Labels of
// a call count wherever they were recorded, and later than the filter's end too. They
// count for the record that they name, of the tenant that they name, and not where the
// reviewer is who called. More than [MostReviews] are [ErrTooMany].
func Reviews(ctx context.Context, records Reader, filter *writv1.RecordFilter) ([]*Review, error) {
	q := &reviewQueue{calls: make(map[string]*Review)}
	decisions := &writv1.RecordFilter{
		StartTime: filter.GetStartTime(), EndTime: filter.GetEndTime(), Tool: filter.GetTool(), Verdict: filter.GetVerdict(),
		Tenant: filter.GetTenant(), Principal: filter.GetPrincipal(), Origin: filter.GetOrigin(),
		Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION},
	}
	if err := each(ctx, records, decisions, q.call); err != nil {
		return nil, err
	}
	labels := &writv1.RecordFilter{
		StartTime: filter.GetStartTime(), Tenant: filter.GetTenant(), Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_REVIEW},
	}
	if err := each(ctx, records, labels, q.label); err != nil {
		return nil, err
	}
	return q.ordered(), nil
}

// each gives every record that a filter selects to visit, newest first.
func each(ctx context.Context, records Reader, filter *writv1.RecordFilter, visit func(view) error) error {
	request := &writv1.ListRecordsRequest{Filter: filter, PageSize: 1000}
	for {
		page, err := records.List(ctx, request)
		if err != nil {
			return err
		}
		for _, stored := range page.GetRecords() {
			v := viewOf(stored)
			if v.err != nil {
				return v.err
			}
			if err := visit(v); err != nil {
				return err
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return nil
		}
	}
}

// reviewQueue are calls that were put up for review, by the digest of their records.
type reviewQueue struct{ calls map[string]*Review }

func (q *reviewQueue) call(v view) error {
	body := v.decision()
	if body == nil || !body.GetReview() {
		return nil
	}
	if len(q.calls) == MostReviews {
		return ErrTooMany
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(v.stored.GetRecord())
	q.calls[string(leaf)] = &Review{ID: hex.EncodeToString(v.record.GetDecisionId()), Digest: leaf, Origin: v.stored.GetOrigin(), Record: v.record, Body: body}
	return nil
}

// label takes a label. The last of a reviewer counts.
func (q *reviewQueue) label(v view) error {
	label, ok := v.body.(*writv1.ReviewLabel)
	call := q.calls[string(label.GetRecordDigest())]
	if !ok || call == nil {
		return nil
	}
	if !call.Reviewable(label.GetReviewer()) || label.GetTenant() != call.Record.GetTenant() ||
		!bytes.Equal(label.GetDecisionId(), call.Record.GetDecisionId()) {
		return nil
	}
	said := slices.IndexFunc(call.Labels, func(l *writv1.ReviewLabel) bool { return l.GetReviewer() == label.GetReviewer() })
	switch {
	case said < 0:
		call.Labels = append(call.Labels, label)
	case call.Labels[said].GetTime().AsTime().Before(label.GetTime().AsTime()):
		call.Labels[said] = label
	}
	return nil
}

// Reviewable says whether a user may review the call: nobody reviews what they did.
func (r *Review) Reviewable(user string) bool {
	return user != r.Body.GetPrincipal().GetUser() && user != r.Body.GetPrincipal().GetWorkload()
}

func (q *reviewQueue) ordered() []*Review {
	out := make([]*Review, 0, len(q.calls))
	for _, call := range q.calls {
		slices.SortStableFunc(call.Labels, func(a, b *writv1.ReviewLabel) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
		out = append(out, call)
	}
	slices.SortFunc(out, func(a, b *Review) int {
		return cmp.Or(
			cmp.Compare(b.Body.GetDecision().GetRisk().GetScore(), a.Body.GetDecision().GetRisk().GetScore()),
			a.Time().Compare(b.Time()), cmp.Compare(a.ID, b.ID))
	})
	return out
}
