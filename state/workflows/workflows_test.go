// SPDX-License-Identifier: Apache-2.0

package workflows_test

import (
	"encoding/binary"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/workflows"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func begins(session, run byte) *writv1.WorkflowRecord {
	return &writv1.WorkflowRecord{
		Run: append(make([]byte, 15), run), Session: append(make([]byte, 15), session), Event: writv1.WorkflowEvent_WORKFLOW_EVENT_BEGIN,
		Principal: &writv1.Principal{Tenant: "acme"}, Contract: "refund", Time: timestamppb.New(start), ExpireTime: timestamppb.New(start.Add(time.Hour)),
	}
}

func called(session, run, id byte, tool string, effect writv1.ToolEffect, after int) workflows.Decided {
	return workflows.Decided{
		Session: workflows.Session{15: session}, Decision: [16]byte{15: id}, Tool: tool, Effect: effect, After: after,
		Advance: &writv1.Advance{Run: append(make([]byte, 15), run), Ordered: true},
	}
}

const (
	read  = writv1.ToolEffect_TOOL_EFFECT_READ
	write = writv1.ToolEffect_TOOL_EFFECT_WRITE
)

func TestACallThatCameToNothingIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		effect writv1.ToolEffect
		state  writv1.OutcomeState
		stands bool
	}{
		"a read that failed":           {read, writv1.OutcomeState_OUTCOME_STATE_FAILED, false},
		"a read that succeeded":        {read, writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, true},
		"a write that failed":          {write, writv1.OutcomeState_OUTCOME_STATE_FAILED, true},
		"a write that never started":   {write, writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED, false},
		"a write that nobody observed": {write, writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED, true},
		"a write that nobody knows of": {write, writv1.OutcomeState_OUTCOME_STATE_UNKNOWN, true},
	} {
		m := workflows.New()
		m.Apply(begins(1, 1))
		m.Decided(called(1, 1, 1, "t", c.effect, 0))
		m.Ended([16]byte{15: 1}, &writv1.OutcomeRecord{State: c.state})
		got := m.Summary(workflows.Session{15: 1}, start)
		if stands := len(got.GetCounts()) == 1 && len(got.GetPath()) == 1; stands != c.stands {
			t.Errorf("%s: %v stands: %v", name, got, stands)
		}
	}
}

func TestCallsStandInTheOrderTheyWereDecidedIn(t *testing.T) {
	t.Parallel()
	m := workflows.New()
	m.Apply(begins(1, 1))
	// b was decided after a, and its record came first.
	m.Decided(called(1, 1, 2, "b", read, 1))
	m.Decided(called(1, 1, 1, "a", read, 0))
	if got := m.Summary(workflows.Session{15: 1}, start).GetPath(); len(got) != 2 || got[0] != "a" {
		t.Errorf("the path is %v", got)
	}
}

func TestARunIsItsSessionsAloneAndEndsByItself(t *testing.T) {
	t.Parallel()
	m := workflows.New()
	m.Apply(begins(1, 1))
	m.Decided(called(2, 1, 1, "t", write, 0))
	m.Decided(called(1, 2, 2, "t", write, 0))
	if got := m.Summary(workflows.Session{15: 1}, start); len(got.GetCounts()) != 0 {
		t.Errorf("calls of another session, or of another run, count: %v", got)
	}
	if m.Summary(workflows.Session{15: 2}, start) != nil || m.Summary(workflows.Session{15: 1}, start.Add(time.Hour)) != nil {
		t.Error("a session that is in no run has one")
	}
	workflow := workflows.Workflow{Tenant: "acme", Contract: "refund"}
	if totals, open := m.Totals(workflow, start.Add(time.Hour)); totals.GetBegun() != 1 || open != 0 {
		t.Errorf("%v, %d open", totals, open)
	}
	if totals, _ := m.Totals(workflows.Workflow{Tenant: "other", Contract: "refund"}, start); totals.GetBegun() != 0 {
		t.Errorf("another tenant's totals: %v", totals)
	}
}

// Whatever happens, in whatever order: no count is below zero or above what was called,
// a version that is read again after a change is another, and what a snapshot keeps is
// the whole.
func TestARunNeverCountsWhatDidNotHappen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := workflows.New()
		var calls, id uint64
		var open [][16]byte
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			session := rapid.ByteRange(1, 2).Draw(t, "session")
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0:
				m.Apply(begins(session, rapid.ByteRange(1, 2).Draw(t, "run")))
			case 1:
				record := begins(session, rapid.ByteRange(1, 2).Draw(t, "run"))
				record.Event, record.Result = writv1.WorkflowEvent_WORKFLOW_EVENT_END, writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED
				m.Apply(record)
			case 2, 3:
				id++
				d := called(session, rapid.ByteRange(1, 2).Draw(t, "run"), 0, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "tool"),
					rapid.SampledFrom([]writv1.ToolEffect{read, write}).Draw(t, "effect"), rapid.IntRange(0, 3).Draw(t, "after"))
				binary.BigEndian.PutUint64(d.Decision[:], id)
				before := m.Version(d.Session)
				m.Decided(d)
				open = append(open, d.Decision)
				calls++
				if run := m.Summary(d.Session, start); run != nil && run.GetId()[15] == d.Advance.GetRun()[15] && m.Version(d.Session) == before {
					t.Fatal("a call changed nothing")
				}
			default:
				if len(open) == 0 {
					continue
				}
				decision := open[0]
				open = open[1:]
				if rapid.Bool().Draw(t, "abandoned") {
					m.Abandon(decision)
					continue
				}
				m.Ended(decision, &writv1.OutcomeRecord{
					State:    writv1.OutcomeState(rapid.Int32Range(1, 5).Draw(t, "state")),
					Duration: durationpb.New(time.Second),
				})
			}
		}
		for session := byte(1); session <= 2; session++ {
			run := m.Summary(workflows.Session{15: session}, start)
			var counted uint64
			for _, count := range run.GetCounts() {
				counted += count.GetCount()
			}
			if counted > calls || uint64(len(run.GetPath())) > counted {
				t.Fatalf("%d calls, and the run says %v", calls, run)
			}
		}
		restored := workflows.New()
		for _, part := range m.Held() {
			restored.Restore(part)
		}
		if restored.Dump() != m.Dump() {
			t.Fatalf("restored:\n%s\nwas:\n%s", restored.Dump(), m.Dump())
		}
	})
}
