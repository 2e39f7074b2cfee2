// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// listener is a tracer that keeps what it hears.
type listener struct {
	mu      sync.Mutex
	decided []agent.Decided
	ended   []agent.Ended
}

// Decided keeps a decision.
func (l *listener) Decided(d agent.Decided) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decided = append(l.decided, d)
}

// Ended keeps an end.
func (l *listener) Ended(e agent.Ended) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, e)
}

// Onward tells a tool what it was asked with.
func (l *listener) Onward(decision [16]byte, parent string) string {
	return "onward " + hex.EncodeToString(decision[:]) + " " + parent
}

func TestATracerHearsOfDecisionsAndOfHowCallsEnded(t *testing.T) {
	t.Parallel()
	heard := &listener{}
	var told string
	w := openWorkshop(t, workshopOptions{tracer: heard, craft: func(_ context.Context, x tools.Execution) (*tools.Result, error) {
		told = x.TraceParent
		return nil, tools.ErrFailed
	}})
	asked := request("workshop.make", "anvil")
	asked.TraceParent = traceParent
	run := w.allow(asked)
	if err := run.Finish(run.Run(t.Context(), nil).Outcome()); err != nil {
		t.Fatal(err)
	}
	if want := "onward " + run.ID() + " " + traceParent; told != want {
		t.Errorf("the tool is told %q, want %q", told, want)
	}
	denied := request("workshop.make", "anvil")
	denied.Principal.Roles = nil
	w.agent.Admit(t.Context(), denied)
	w.agent.Admit(t.Context(), request("workshop.burn", "anvil"))
	sent := w.allow(request("workshop.send", "anvil"))
	if err := errors.Join(sent.Release(), sent.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, Duration: time.Second})); err != nil {
		t.Fatal(err)
	}
	if len(heard.decided) != 4 || len(heard.ended) != 2 {
		t.Fatalf("%d decisions and %d ends were heard of, want 4 and 2", len(heard.decided), len(heard.ended))
	}
	if d := heard.decided[0]; d.Verdict != writv1.Verdict_VERDICT_ALLOW || hex.EncodeToString(d.Decision[:]) != run.ID() || d.Parent != traceParent ||
		d.Tool != "workshop.make" || !d.Recorded || d.Index != run.RecordIndex() || d.At.Before(d.Received) || d.Failed != nil || d.Bundle == [32]byte{} {
		t.Errorf("the allowed decision: %+v", d)
	}
	if d := heard.decided[1]; d.Reason != writv1.Reason_REASON_GRANT_MISSING || !slices.Equal(d.Failed, []string{"granted"}) {
		t.Errorf("the denial: %+v", d)
	}
	if d := heard.decided[2]; d.Reason != writv1.Reason_REASON_TOOL_UNKNOWN || d.Tool != "" {
		t.Errorf("the tool that there is not: %+v", d)
	}
	if e := heard.ended[0]; e.State != writv1.OutcomeState_OUTCOME_STATE_FAILED || e.Reason != writv1.Reason_REASON_EXECUTION_FAILED || e.Decision != heard.decided[0].Decision {
		t.Errorf("the execution: %+v", e)
	}
	if e := heard.ended[1]; e.State != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || e.Took != time.Second || e.Tool != "workshop.send" {
		t.Errorf("the call that was let through: %+v", e)
	}
}

func TestATracerHearsOfADecisionThatCouldNotBeRecorded(t *testing.T) {
	t.Parallel()
	heard := &listener{}
	w := openWorkshop(t, workshopOptions{tracer: heard})
	w.disk.breaks()
	w.agent.Admit(t.Context(), request("workshop.make", "anvil"))
	w.disk.mend()
	for w.ledger.Status().Err != nil {
		runtime.Gosched() // the ledger mends itself at its next probe
	}
	if d := heard.decided[0]; d.Recorded || d.Verdict != writv1.Verdict_VERDICT_DENY || d.Reason != writv1.Reason_REASON_LEDGER_UNAVAILABLE {
		t.Errorf("the decision: %+v", d)
	}
	if len(heard.ended) > 0 {
		t.Errorf("a call that did not begin ended: %+v", heard.ended)
	}
}

func TestWithoutATracerAToolIsToldWhatTheCallCameWith(t *testing.T) {
	t.Parallel()
	var told string
	w := openWorkshop(t, workshopOptions{craft: func(_ context.Context, x tools.Execution) (*tools.Result, error) {
		told = x.TraceParent
		return &tools.Result{JSON: x.JSON}, nil
	}})
	asked := request("workshop.make", "anvil")
	asked.TraceParent = traceParent
	run := w.allow(asked)
	if err := run.Finish(run.Run(t.Context(), nil).Outcome()); err != nil {
		t.Fatal(err)
	}
	if told != traceParent {
		t.Errorf("the tool is told %q", told)
	}
}
