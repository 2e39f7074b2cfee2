// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"slices"
	"unique"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// matcher says which records of one ledger a filter selects. It MUST see every record
// in order: what an outcome is of stands in its decision. It agrees with the index of
// the collector's store.
type matcher struct {
	filter     *writv1.RecordFilter
	origin     string
	expression *filters.Filter
	// Whether the filter asks for what stands in a decision's body, and for more than that.
	ofDecision, asks bool
	// Decisions that outcomes may follow: the newer and the older half.
	newer, older map[key]about
}

// about is what of a decision an outcome is found by.
type about struct {
	tool, workload, user unique.Handle[string]
	verdict              writv1.Verdict
	// recalled is what the expression must know of it.
	recalled filters.Bits
}

// maxAbout bounds how many decisions are remembered, twice.
const maxAbout = 1 << 20

func newMatcher(filter *writv1.RecordFilter, origin string) (*matcher, error) {
	expression, err := filters.Parse(filter.GetExpression())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	asks := filter.GetTool() != "" || filter.GetPrincipal() != "" || filter.GetVerdict() != 0
	return &matcher{
		filter: filter, origin: origin, expression: expression, newer: map[key]about{},
		ofDecision: asks || expression.OfDecision(), asks: asks,
	}, nil
}

// match says whether the filter selects a record.
func (m *matcher) match(r *writv1.Record) (bool, error) {
	f := m.filter
	of, err := m.subject(r)
	if err != nil {
		return false, err
	}
	at := timeOf(r.GetTimeUnixNs())
	switch {
	case m.asks && !m.selects(of),
		f.GetOrigin() != "" && f.GetOrigin() != m.origin,
		f.GetTenant() != "" && f.GetTenant() != r.GetTenant(),
		len(f.GetKinds()) > 0 && !slices.Contains(f.GetKinds(), r.GetKind()),
		f.GetStartTime() != nil && at.Before(f.GetStartTime().AsTime()),
		f.GetEndTime() != nil && !at.Before(f.GetEndTime().AsTime()):
		return false, nil
	case m.expression == nil:
		return true, nil
	}
	entry, err := filters.Read(m.origin, r)
	return err == nil && m.expression.Match(entry, of.recalled), err
}

// subject is what a decision is found by, or an outcome for its decision; of others it is
// what they say of themselves. Where an id was given to two decisions the outcomes are the
// first one's.
func (m *matcher) subject(r *writv1.Record) (about, error) {
	if !m.ofDecision {
		return about{}, nil
	}
	id := keyOf(r.GetDecisionId())
	if r.GetKind() == writv1.RecordKind_RECORD_KIND_OUTCOME {
		if of, known := m.recall(id); known {
			return of, nil
		}
		return m.about(filters.Subject{}), nil
	}
	entry, err := filters.Read(m.origin, r)
	if err != nil {
		return about{}, err
	}
	of := m.about(entry.Subject)
	if r.GetKind() == writv1.RecordKind_RECORD_KIND_DECISION {
		m.remember(id, of)
	}
	return of, nil
}

func (m *matcher) about(s filters.Subject) about {
	return about{
		tool: unique.Make(s.Tool), verdict: writv1.Verdict(s.Verdict), workload: unique.Make(s.Workload), user: unique.Make(s.User),
		recalled: m.expression.Recall(s),
	}
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
