// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
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
	Reason     int32
	Bundle     string
	subject
}

// subject is what an outcome has from its decision.
type subject = filters.Subject

// subjectOf finds the subject of a decision that stands in a ledger before the record
// at hand: the first under that id.
type subjectOf func(ctx context.Context, decisionID string) (found subject, known bool, err error)

// rowOf makes the row of a record. It depends on the bytes of the ledger alone, so
// that Verify can make it again.
func rowOf(ctx context.Context, r *writv1.Record, find subjectOf) (row, error) {
	e, err := filters.Read("", r)
	if err != nil {
		return row{}, err
	}
	out := row{
		Position: signed(r.GetIndex()), Time: e.Time, Kind: int32(e.Kind), DecisionID: e.DecisionID,
		Tenant: e.Tenant, Reason: int32(e.Reason), Bundle: e.Bundle, subject: e.Subject,
	}
	if out.Kind == outcomeKind && out.DecisionID != "" {
		if out.subject, _, err = find(ctx, out.DecisionID); err != nil {
			return row{}, err
		}
	}
	return out, nil
}

// subjectColumns are the columns of a subject, as scanSubject reads them.
const subjectColumns = `coalesce(tool, ''), coalesce(verdict, 0), coalesce(workload, ''), coalesce(user, ''),
	coalesce(session, x''), coalesce(workflow, ''), coalesce(request_id, ''), coalesce(trace_id, x''), coalesce(checks, '')`

// storedSubject is the statement behind a subjectOf that asks the index.
const storedSubject = `SELECT ` + subjectColumns + `
	FROM records WHERE decision_id = ? AND ledger = ? AND kind = 2 AND seq < ? ORDER BY seq LIMIT 1`

func scanSubject(r *sql.Row) (found subject, known bool, err error) {
	err = r.Scan(subjectFields(&found)...)
	if errors.Is(err, sql.ErrNoRows) {
		return subject{}, false, nil
	}
	return found, err == nil, err
}

func subjectFields(s *subject) []any {
	return []any{&s.Tool, &s.Verdict, &s.Workload, &s.User, &s.Session, &s.Workflow, &s.RequestID, &s.TraceID, &s.Checks}
}

// values are the columns of a row after seq and ledger, in the order of the schema.
func (r *row) values() []any {
	return []any{
		r.Position, r.Time, r.Kind, blob(r.DecisionID), orNull(r.Tool, r.Tool == ""),
		orNull(r.Verdict, r.Verdict == 0), orNull(r.Tenant, r.Tenant == ""), orNull(r.Workload, r.Workload == ""), orNull(r.User, r.User == ""),
		orNull(r.Reason, r.Reason == 0), blob(r.Bundle), blob(r.Session), orNull(r.Workflow, r.Workflow == ""),
		orNull(r.RequestID, r.RequestID == ""), blob(r.TraceID), orNull(r.Checks, r.Checks == ""),
	}
}

func blob(b string) any { return orNull([]byte(b), b == "") }

func orNull[T any](v T, null bool) any {
	if null {
		return nil
	}
	return v
}

// signed is a number as SQLite has it. What does not fit is the largest.
func signed(n uint64) int64 {
	return int64(min(n, math.MaxInt64)) //nolint:gosec // it fits
}
