// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"unicode/utf8"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Bounds of what the index holds, in characters, as record.proto and principal.proto
// have them. Bodies are not validated on their way in; what is longer can be asked for
// by nobody, and is not indexed.
const (
	maxTool     = 128
	maxTenant   = 128
	maxWorkload = 2048
	maxUser     = 256
)

const (
	decisionKind = int32(writv1.RecordKind_RECORD_KIND_DECISION)
	outcomeKind  = int32(writv1.RecordKind_RECORD_KIND_OUTCOME)
)

// row is what the index says of a record. Empty is NULL.
type row struct {
	Position   int64
	Time       int64
	Kind       int32
	DecisionID string
	Tenant     string
	subject
}

// subject is what an outcome has from its decision.
type subject struct {
	Tool     string
	Verdict  int32
	Workload string
	User     string
}

// subjectOf finds the subject of a decision that stands in a ledger before the record
// at hand: the first under that id.
type subjectOf func(ctx context.Context, decisionID string) (found subject, known bool, err error)

// rowOf makes the row of a record. It depends on the bytes of the ledger alone, so
// that Verify can make it again.
func rowOf(ctx context.Context, r *writv1.Record, find subjectOf) (row, error) {
	out := row{
		Position: signed(r.GetIndex()), Time: signed(r.GetTimeUnixNs()), Kind: int32(r.GetKind()),
		DecisionID: string(r.GetDecisionId()), Tenant: bounded(r.GetTenant(), maxTenant),
	}
	switch out.Kind {
	case decisionKind:
		body, err := ledger.Body(r)
		if err != nil {
			return row{}, err
		}
		if d, ok := body.(*writv1.DecisionRecord); ok {
			out.subject = subjectIn(d)
		}
	case outcomeKind:
		if out.DecisionID == "" {
			break
		}
		var err error
		if out.subject, _, err = find(ctx, out.DecisionID); err != nil {
			return row{}, err
		}
	}
	return out, nil
}

func subjectIn(d *writv1.DecisionRecord) subject {
	return subject{
		Tool: bounded(d.GetTool(), maxTool), Verdict: int32(d.GetDecision().GetVerdict()),
		Workload: bounded(d.GetPrincipal().GetWorkload(), maxWorkload), User: bounded(d.GetPrincipal().GetUser(), maxUser),
	}
}

// storedSubject is the statement behind a subjectOf that asks the index.
const storedSubject = `SELECT coalesce(tool, ''), coalesce(verdict, 0), coalesce(workload, ''), coalesce(user, '')
	FROM records WHERE decision_id = ? AND ledger = ? AND kind = 2 AND seq < ? ORDER BY seq LIMIT 1`

func scanSubject(r *sql.Row) (found subject, known bool, err error) {
	err = r.Scan(&found.Tool, &found.Verdict, &found.Workload, &found.User)
	if errors.Is(err, sql.ErrNoRows) {
		return subject{}, false, nil
	}
	return found, err == nil, err
}

// values are the columns of a row after seq and ledger, in the order of the schema.
func (r *row) values() []any {
	return []any{
		r.Position, r.Time, r.Kind, orNull([]byte(r.DecisionID), r.DecisionID == ""), orNull(r.Tool, r.Tool == ""),
		orNull(r.Verdict, r.Verdict == 0), orNull(r.Tenant, r.Tenant == ""), orNull(r.Workload, r.Workload == ""), orNull(r.User, r.User == ""),
	}
}

func orNull[T any](v T, null bool) any {
	if null {
		return nil
	}
	return v
}

func bounded(s string, most int) string {
	if utf8.RuneCountInString(s) > most {
		return ""
	}
	return s
}

// signed is a number as SQLite has it. What does not fit is the largest.
func signed(n uint64) int64 {
	return int64(min(n, math.MaxInt64)) //nolint:gosec // it fits
}
