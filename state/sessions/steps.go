// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// summaryBytes bounds the steps, and again the labels, that one decision reads, so
// that its record has room for them. Of steps the newest are read.
const summaryBytes = 16 << 10

// steps are the calls of one tool that a session was allowed.
type steps struct {
	// count is how many there were, kept the newest of them.
	count uint64
	kept  []*step
}

// step is one of them.
type step struct {
	of       *session
	decision [16]byte
	tool     string
	time     time.Time
	// ended says that its outcome is known, succeeded that it ended well.
	ended, succeeded bool
	fields           []*writv1.KeptField
}

func (m *Machine) step(s *session, d Decided) {
	of, ok := s.steps[d.Tool]
	if !ok && len(s.steps) >= MostTools {
		s.full = true
		return
	}
	if !ok {
		of = &steps{}
		s.steps[d.Tool] = of
	}
	of.count++
	made := &step{of: s, decision: d.Decision, tool: d.Tool, time: d.Time, fields: d.Kept}
	at := len(of.kept)
	for at > 0 && made.before(of.kept[at-1]) {
		at--
	}
	of.kept = slices.Insert(of.kept, at, made)
	m.open[made.decision] = made
	if len(of.kept) > MostSteps {
		delete(m.open, of.kept[0].decision)
		of.kept = slices.Delete(of.kept, 0, 1)
	}
}

// before puts the calls of a session in the order of their time, and of their ids where
// that is one: calls that are decided at once may be recorded in another order than they
// were applied in, and a fold must come to the same.
func (made *step) before(other *step) bool {
	if c := made.time.Compare(other.time); c != 0 {
		return c < 0
	}
	return bytes.Compare(made.decision[:], other.decision[:]) < 0
}

// Ended takes the outcome of a call. It is nothing to a session that is gone.
func (m *Machine) Ended(decision [16]byte, outcome *writv1.OutcomeRecord) {
	made, ok := m.open[decision]
	if !ok {
		return
	}
	delete(m.open, decision)
	made.ended = true
	made.succeeded = outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED
	made.fields = slices.Concat(made.fields, outcome.GetKept())
	m.changed(made.of)
}

// Abandon takes back a call that was allowed and whose decision was never
// recorded.
func (m *Machine) Abandon(d Decided) {
	s, ok := m.sessions[d.Session]
	if !ok {
		return
	}
	back := func(c *counts) {
		c.calls--
		if d.Effect == writv1.ToolEffect_TOOL_EFFECT_WRITE {
			c.writes--
		}
	}
	back(&s.counts)
	if of, ok := m.owners[s.owner]; ok {
		back(&of.counts)
	}
	delete(m.open, d.Decision)
	of, ok := s.steps[d.Tool]
	if !ok {
		return
	}
	of.count--
	of.kept = slices.DeleteFunc(of.kept, func(made *step) bool { return made.decision == d.Decision })
	if of.count == 0 {
		delete(s.steps, d.Tool)
	}
}

// summary returns the steps of the tools, oldest first, and how many there were of
// each in all.
func (s *session) summary(tools []string) ([]*writv1.Step, []*writv1.StepCount) {
	var found []*step
	var totals []*writv1.StepCount
	for _, tool := range tools {
		of, ok := s.steps[tool]
		if !ok {
			continue
		}
		found = append(found, of.kept...)
		totals = append(totals, &writv1.StepCount{Tool: tool, Count: of.count})
	}
	slices.SortStableFunc(found, func(a, b *step) int { return a.time.Compare(b.time) })
	found = found[max(0, len(found)-MostSteps):]
	var out []*writv1.Step
	size := 0
	for _, made := range slices.Backward(found) {
		step := made.message()
		if size += proto.Size(step); size > summaryBytes {
			break
		}
		out = append(out, step)
	}
	slices.Reverse(out)
	return out, totals
}

func (made *step) message() *writv1.Step {
	return &writv1.Step{Tool: made.tool, Time: timestamppb.New(made.time), Succeeded: made.succeeded, Fields: made.fields}
}
