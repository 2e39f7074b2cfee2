// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"math"
	"strings"
)

// Bits are what a filter must remember of a decision to judge its outcomes: one for each
// comparison that holds of its subject.
type Bits uint64

// Recall returns what a filter remembers of a subject.
func (f *Filter) Recall(s Subject) Bits {
	var out Bits
	if f == nil {
		return out
	}
	for _, c := range f.comparisons {
		if specs[c.Field].ofDecision && c.ofSubject(s) {
			out |= c.bit
		}
	}
	return out
}

// OfDecision says whether a filter compares what outcomes have of their decision.
func (f *Filter) OfDecision() bool {
	if f == nil {
		return false
	}
	for _, c := range f.comparisons {
		if specs[c.Field].ofDecision {
			return true
		}
	}
	return false
}

// Match says whether a filter selects a record: of itself, and of the subject that was
// recalled.
func (f *Filter) Match(e Entry, subject Bits) bool { return f == nil || f.Root.match(e, subject) }

func (n *Node) match(e Entry, subject Bits) bool {
	switch n.Joint {
	case And:
		for _, part := range n.Parts {
			if !part.match(e, subject) {
				return false
			}
		}
		return true
	case Or:
		for _, part := range n.Parts {
			if part.match(e, subject) {
				return true
			}
		}
		return false
	case Not:
		return !n.Parts[0].match(e, subject)
	default:
		if specs[n.Comparison.Field].ofDecision {
			return subject&n.Comparison.bit != 0
		}
		return n.Comparison.ofRecord(e)
	}
}

// ofSubject says whether a comparison holds of a subject.
func (c *Comparison) ofSubject(s Subject) bool {
	holds := false
	switch c.Field {
	case Principal:
		holds = s.Workload == c.Text || s.User == c.Text
	case Workload:
		holds = s.Workload == c.Text
	case User:
		holds = s.User == c.Text
	case Tool:
		holds = s.Tool == c.Text
	case Verdict:
		holds = int64(s.Verdict) == c.Number
	case Check:
		holds = strings.Contains(s.Checks, "\n"+c.Text+"\n")
	case Session:
		holds = s.Session == c.Text
	case Workflow:
		holds = s.Workflow == c.Text
	case RequestID:
		holds = s.RequestID == c.Text
	case TraceID:
		holds = s.TraceID == c.Text
	default:
	}
	return holds != (c.Operator == NotEqual)
}

// ofRecord says whether a comparison holds of a record by itself.
func (c *Comparison) ofRecord(e Entry) bool {
	holds := false
	switch c.Field {
	case Time:
		return c.ofTime(e.Time)
	case Kind:
		holds = int64(e.Kind) == c.Number
	case Reason:
		holds = int64(e.Reason) == c.Number
	case Origin:
		holds = e.Origin == c.Text
	case Decision:
		holds = e.DecisionID == c.Text
	case Tenant:
		holds = e.Tenant == c.Text
	case Bundle:
		holds = e.Bundle == c.Text
	default:
	}
	return holds != (c.Operator == NotEqual)
}

func (c *Comparison) ofTime(at int64) bool {
	switch c.Operator {
	case Equal:
		return at == c.Number
	case NotEqual:
		return at != c.Number
	case Less:
		return at < c.Number
	case LessEqual:
		return at <= c.Number
	case Greater:
		return at > c.Number
	default:
		return at >= c.Number
	}
}

// Demands are the comparisons that every selected record fulfils.
func (f *Filter) Demands() []*Comparison {
	var out []*Comparison
	switch {
	case f == nil:
	case f.Root.Joint == One:
		out = append(out, f.Root.Comparison)
	case f.Root.Joint == And:
		for _, part := range f.Root.Parts {
			if part.Joint == One {
				out = append(out, part.Comparison)
			}
		}
	}
	return out
}

// Window is the time that every selected record is of, in nanoseconds since the Unix
// epoch, its end excluded.
func (f *Filter) Window() (start, end int64) {
	start, end = math.MinInt64, math.MaxInt64
	for _, c := range f.Demands() {
		if c.Field != Time {
			continue
		}
		switch c.Operator {
		case Equal:
			start, end = max(start, c.Number), min(end, c.Number+1)
		case Less:
			end = min(end, c.Number)
		case LessEqual:
			end = min(end, c.Number+1)
		case Greater, GreaterEqual:
			start = max(start, c.Number)
		default:
		}
	}
	return start, end
}
