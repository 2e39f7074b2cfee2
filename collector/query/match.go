// SPDX-License-Identifier: Apache-2.0

package query

import (
	"slices"
	"unique"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// matcher says which records of one ledger a filter selects. It MUST see every record
// in order: what an outcome is of stands in its decision. It agrees with the index of
// the collector's store.
type matcher struct {
	filter *writv1.RecordFilter
	origin string
	// Whether the filter asks for what stands in a decision's body.
	ofDecision bool
	// Decisions that outcomes may follow: the newer and the older half.
	newer, older map[key]about
}

// about is what of a decision an outcome is found by.
type about struct {
	tool, workload, user unique.Handle[string]
	verdict              writv1.Verdict
}

// maxAbout bounds how many decisions are remembered, twice.
const maxAbout = 1 << 20

func newMatcher(filter *writv1.RecordFilter, origin string) *matcher {
	return &matcher{
		filter: filter, origin: origin, newer: map[key]about{},
		ofDecision: filter.GetTool() != "" || filter.GetPrincipal() != "" || filter.GetVerdict() != 0,
	}
}

// match says whether the filter selects a record.
func (m *matcher) match(r *writv1.Record) (bool, error) {
	f := m.filter
	decides := true
	if m.ofDecision {
		var err error
		if decides, err = m.matchDecision(r); err != nil {
			return false, err
		}
	}
	at := timeOf(r.GetTimeUnixNs())
	switch {
	case !decides,
		f.GetOrigin() != "" && f.GetOrigin() != m.origin,
		f.GetTenant() != "" && f.GetTenant() != r.GetTenant(),
		len(f.GetKinds()) > 0 && !slices.Contains(f.GetKinds(), r.GetKind()),
		f.GetStartTime() != nil && at.Before(f.GetStartTime().AsTime()),
		f.GetEndTime() != nil && !at.Before(f.GetEndTime().AsTime()):
		return false, nil
	default:
		return true, nil
	}
}

// matchDecision holds a decision, or that of an outcome, against the filter. Where an id
// was given to two decisions the outcomes are the first one's.
func (m *matcher) matchDecision(r *writv1.Record) (bool, error) {
	id := keyOf(r.GetDecisionId())
	switch r.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		of, known := m.recall(id)
		return known && m.selects(of), nil
	default:
		return false, nil
	}
	body, err := ledger.Body(r)
	if err != nil {
		return false, err
	}
	d, _ := body.(*writv1.DecisionRecord)
	of := about{
		tool: unique.Make(d.GetTool()), verdict: d.GetDecision().GetVerdict(),
		workload: unique.Make(d.GetPrincipal().GetWorkload()), user: unique.Make(d.GetPrincipal().GetUser()),
	}
	m.remember(id, of)
	return m.selects(of), nil
}

// key is a decision's id, of at most 16 bytes, after its length.
type key [17]byte

func keyOf(id []byte) (k key) {
	k[0] = byte(copy(k[1:], id)) //nolint:gosec // at most 16
	return k
}

func (m *matcher) recall(id key) (about, bool) {
	of, known := m.newer[id]
	if !known {
		of, known = m.older[id]
	}
	return of, known
}

func (m *matcher) remember(id key, of about) {
	if _, known := m.recall(id); known || id[0] == 0 {
		return
	}
	if len(m.newer) >= maxAbout {
		m.newer, m.older = map[key]about{}, m.newer
	}
	m.newer[id] = of
}

func (m *matcher) selects(of about) bool {
	tool, who, verdict := m.filter.GetTool(), m.filter.GetPrincipal(), m.filter.GetVerdict()
	return (tool == "" || tool == of.tool.Value()) && (verdict == 0 || verdict == of.verdict) &&
		(who == "" || who == of.workload.Value() || who == of.user.Value())
}
