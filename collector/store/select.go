// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// DefaultLimit is how many records List returns where a selection has no limit.
	DefaultLimit = 100
	// MaxLimit is how many it returns at most.
	MaxLimit = 4096
	// maxOfDecision is how many records ByDecision returns at most. A decision has two.
	maxOfDecision = 1000
)

// Selection says which records List returns.
type Selection struct {
	// Filter is what they match. Nil: all do.
	Filter *writv1.RecordFilter
	// Before is the Seq that they lie before. 0: none.
	Before int64
	// After is the Seq that they lie after. 0: none.
	After int64
	// Forward says: the oldest first, not the newest.
	Forward bool
	// Limit is how many at most. 0: DefaultLimit. More than MaxLimit is MaxLimit.
	Limit int
}

// Stored is a record as the store has it.
type Stored struct {
	// Seq is its number in the order of storing, from 1, without gaps.
	Seq    int64
	Origin string
	// Raw are its canonical bytes.
	Raw         []byte
	ReceiveTime time.Time
}

// List returns the records of a selection, in the order of Seq, the newest first
// unless it says otherwise. Within a ledger that is the ledger's order. A record stored
// later has a higher Seq, so whoever lists forward after the last Seq seen misses none.
// An outcome matches by tool, verdict and principal where its decision does.
func (s *Store) List(ctx context.Context, sel Selection) ([]Stored, error) {
	asked, err := filters.Parse(sel.Filter.GetExpression())
	if err != nil {
		return nil, wrapList(err)
	}
	q := query{selection: sel, filter: within(sel.Filter, asked), expression: asked}
	if ok, err := s.bound(ctx, &q); err != nil || !ok {
		return nil, wrapList(err)
	}
	statement, args := q.statement()
	rows, err := s.read.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, wrapList(err)
	}
	seqs, err := collect(rows, scanSeq)
	if err != nil {
		return nil, wrapList(err)
	}
	out, err := s.load(ctx, seqs)
	return out, wrapList(err)
}

func wrapList(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("list records: %w", err)
}

// ByDecision returns what is recorded of a decision, ledger by ledger, in the
// ledger's order.
func (s *Store) ByDecision(ctx context.Context, decisionID []byte) ([]Stored, error) {
	if len(decisionID) == 0 {
		return nil, nil
	}
	rows, err := s.read.QueryContext(ctx, `SELECT seq FROM records WHERE decision_id = ? ORDER BY ledger, seq LIMIT ?`, decisionID, maxOfDecision)
	if err != nil {
		return nil, fmt.Errorf("records of a decision: %w", err)
	}
	seqs, err := collect(rows, scanSeq)
	if err != nil {
		return nil, fmt.Errorf("records of a decision: %w", err)
	}
	out, err := s.load(ctx, seqs)
	if err != nil {
		return nil, fmt.Errorf("records of a decision: %w", err)
	}
	return out, nil
}

func scanSeq(rows *sql.Rows) (seq int64, err error) {
	return seq, rows.Scan(&seq)
}

// query is a selection on its way to SQL.
type query struct {
	selection Selection
	filter    *writv1.RecordFilter
	// expression is the filter's, read. The filter's times are no wider than it.
	expression *filters.Filter
	terms      []string
	args       []any
	indexed    bool // a term chooses the index; the others MUST NOT
}

// bound narrows the sequence to the bundles that have records of the filter's time, so
// that no index on time is needed: clocks go about as the sequence does. It says
// whether anything is left.
func (s *Store) bound(ctx context.Context, q *query) (bool, error) {
	if start := q.filter.GetStartTime(); start != nil {
		var first sql.NullInt64
		if err := s.read.QueryRowContext(ctx, `SELECT min(seq) FROM bundles WHERE end_time >= ?`, nanoseconds(start)).Scan(&first); err != nil {
			return false, err
		}
		if !first.Valid {
			return false, nil
		}
		q.selection.After = max(q.selection.After, first.Int64-1)
		q.term("+time >= ?", nanoseconds(start))
	}
	if end := q.filter.GetEndTime(); end != nil {
		var last int64
		err := s.read.QueryRowContext(ctx, `SELECT seq + count FROM bundles WHERE +start_time < ? AND seq + count > ? ORDER BY seq DESC LIMIT 1`,
			nanoseconds(end), q.selection.After).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if q.selection.Before <= 0 || last < q.selection.Before {
			q.selection.Before = last
		}
		q.term("+time < ?", nanoseconds(end))
	}
	return true, nil
}

// statement is the SQL of a query and its arguments. Its text depends on which fields
// are set and on enums, never on strings of the caller's.
func (q *query) statement() (string, []any) {
	f := q.filter
	principal := f.GetPrincipal()
	q.indexed = principal != ""
	q.demand(q.expression, rarest)
	if v := f.GetTool(); v != "" {
		q.choose("tool = ?", v)
	}
	if v := f.GetOrigin(); v != "" {
		q.choose("ledger = (SELECT id FROM ledgers WHERE origin = ?)", v)
	}
	q.kinds(f.GetKinds())
	if v := f.GetTenant(); v != "" {
		q.choose("tenant = ?", v)
	}
	if v := f.GetVerdict(); v != writv1.Verdict_VERDICT_UNSPECIFIED {
		q.choose("verdict = ?", int32(v))
	}
	q.demand(q.expression, rare)
	if q.expression != nil {
		text, args := expression(q.expression.Root)
		q.term(text, args...)
	}
	if v := q.selection.After; v > 0 {
		q.term("seq > ?", v)
	}
	if v := q.selection.Before; v > 0 {
		q.term("seq < ?", v)
	}
	if principal == "" {
		return q.branch("")
	}
	return q.either(principal)
}

// either selects by workload or user, each by its index, and puts the two together.
func (q *query) either(principal string) (string, []any) {
	workload, args := q.branch("workload = ?")
	user, _ := q.branch("user = ?")
	all := append([]any{principal}, args...)
	all = append(append(all, all...), q.limit())
	return "SELECT seq FROM (" + workload + ") UNION SELECT seq FROM (" + user + ")" + q.order(), all
}

// branch is the statement with one more term, before the others.
func (q *query) branch(more string) (string, []any) {
	terms := q.terms
	if more != "" {
		terms = append([]string{more}, terms...)
	}
	where := ""
	if len(terms) > 0 {
		where = " WHERE " + strings.Join(terms, " AND ")
	}
	return "SELECT seq FROM records" + where + q.order(), append(slices.Clone(q.args), q.limit())
}

func (q *query) order() string {
	if q.selection.Forward {
		return " ORDER BY seq LIMIT ?"
	}
	return " ORDER BY seq DESC LIMIT ?"
}

func (q *query) limit() int {
	if q.selection.Limit <= 0 {
		return DefaultLimit
	}
	return min(q.selection.Limit, MaxLimit)
}

func (q *query) term(text string, args ...any) {
	q.terms = append(q.terms, text)
	q.args = append(q.args, args...)
}

// choose adds a term that has an index. The first one chosen uses it: it is about the
// rarest, which SQLite cannot know. A plus keeps the others from it.
func (q *query) choose(text string, arg any) {
	if q.indexed {
		text = "+" + text
	}
	q.indexed = true
	q.term(text, arg)
}

// kinds adds the kinds. For the rare ones there is an index, which SQLite takes only
// where its condition stands word for word.
func (q *query) kinds(kinds []writv1.RecordKind) {
	if len(kinds) == 0 {
		return
	}
	numbers := make([]string, len(kinds))
	rare := true
	for i, k := range kinds {
		numbers[i] = strconv.Itoa(int(k))
		rare = rare && (k == writv1.RecordKind_RECORD_KIND_START || k == writv1.RecordKind_RECORD_KIND_BUNDLE || k == writv1.RecordKind_RECORD_KIND_END)
	}
	text := "kind IN (" + strings.Join(numbers, ", ") + ")"
	if rare && !q.indexed {
		q.indexed = true
		q.term(text + " AND kind IN (1, 5, 6)")
		return
	}
	q.term("+" + text)
}

// nanoseconds is a time as the index has it. What does not fit is the nearest that does.
func nanoseconds(t *timestamppb.Timestamp) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	switch s := t.GetSeconds(); {
	case s >= most:
		return math.MaxInt64
	case s < 0:
		return math.MinInt64
	default:
		return s*int64(time.Second) + int64(t.GetNanos())
	}
}
