// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// columns are those of fields that are compared with one value.
var columns = map[filters.Field]string{
	filters.Decision: "decision_id", filters.Tenant: "tenant", filters.Workload: "workload", filters.User: "user",
	filters.Tool: "tool", filters.Session: "session", filters.Workflow: "workflow", filters.Bundle: "bundle",
	filters.RequestID: "request_id", filters.TraceID: "trace_id",
}

// rarest are the fields whose index selects few records, the fewest first.
var rarest = []filters.Field{filters.Decision, filters.RequestID, filters.TraceID, filters.Session}

// rare are the others that have an index.
var rare = []filters.Field{filters.User, filters.Workload, filters.Tool, filters.Reason}

// within narrows a filter to the time that its expression demands, so that it bounds what
// is looked at.
func within(f *writv1.RecordFilter, e *filters.Filter) *writv1.RecordFilter {
	start, end := e.Window()
	if start == math.MinInt64 && end == math.MaxInt64 {
		return f
	}
	out := proto.CloneOf(f)
	if at := timestamppb.New(time.Unix(0, start)); start > math.MinInt64 && (f.GetStartTime() == nil || at.AsTime().After(f.GetStartTime().AsTime())) {
		out.StartTime = at
	}
	if at := timestamppb.New(time.Unix(0, end)); end < math.MaxInt64 && (f.GetEndTime() == nil || at.AsTime().Before(f.GetEndTime().AsTime())) {
		out.EndTime = at
	}
	return out
}

// demand chooses an index by what every selected record fulfils.
func (q *query) demand(e *filters.Filter, fields []filters.Field) {
	for _, field := range fields {
		for _, c := range e.Demands() {
			if c.Field != field || c.Operator != filters.Equal || q.indexed {
				continue
			}
			switch {
			case field == filters.Reason && c.Number > 1:
				// SQLite takes an index on a part only where its condition stands there.
				q.choose("reason = "+strconv.FormatInt(c.Number, 10)+" AND reason > ?", 1)
			case c.Text != "":
				q.choose(columns[field]+" = ?", value(c))
			}
		}
	}
}

// value is what a column is compared with: NULL is the empty one.
func value(c *filters.Comparison) any {
	switch c.Field {
	case filters.Decision, filters.Session, filters.Bundle, filters.TraceID:
		return blob(c.Text)
	default:
		return orNull(c.Text, c.Text == "")
	}
}

// expression is a node as SQL, which is true or false and never NULL. Its text depends on
// fields and operators, never on a value. No term of it takes an index.
func expression(n *filters.Node) (string, []any) {
	switch n.Joint {
	case filters.And:
		return joined(n.Parts, " AND ")
	case filters.Or:
		return joined(n.Parts, " OR ")
	case filters.Not:
		text, args := expression(n.Parts[0])
		return "NOT " + text, args
	default:
		return comparison(n.Comparison)
	}
}

func joined(parts []*filters.Node, joint string) (string, []any) {
	var texts []string
	var args []any
	for _, part := range parts {
		text, more := expression(part)
		texts, args = append(texts, text), append(args, more...)
	}
	return "(" + strings.Join(texts, joint) + ")", args
}

func comparison(c *filters.Comparison) (string, []any) {
	not := ""
	if c.Operator == filters.NotEqual {
		not = "NOT "
	}
	switch c.Field {
	case filters.Time:
		return "(+time " + string(c.Operator) + " ?)", []any{c.Number}
	case filters.Kind:
		return not + "(+kind = ?)", []any{c.Number}
	case filters.Verdict:
		return not + "(coalesce(verdict, 0) = ?)", []any{c.Number}
	case filters.Reason:
		return not + "(coalesce(reason, 0) = ?)", []any{c.Number}
	case filters.Origin:
		return not + "(+ledger IS (SELECT id FROM ledgers WHERE origin = ?))", []any{c.Text}
	case filters.Principal:
		return not + "(+workload IS ? OR +user IS ?)", []any{value(c), value(c)}
	case filters.Check:
		return not + "(instr(coalesce(checks, ''), ?) > 0)", []any{"\n" + c.Text + "\n"}
	default:
		return not + "(+" + columns[c.Field] + " IS ?)", []any{value(c)}
	}
}
