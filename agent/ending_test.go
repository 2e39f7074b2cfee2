// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// outcomes waits for the outcome of an admission while the agent tends itself.
func (w *workshop) outcome(admission *agent.Admission) *writv1.OutcomeRecord {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer stop()
	tended := make(chan struct{})
	go func() {
		w.agent.Tend(ctx, agent.Intervals{Heartbeat: time.Hour, Sweep: time.Millisecond, Dropped: time.Hour})
		close(tended)
	}()
	defer func() { stop(); <-tended }()
	for ctx.Err() == nil {
		for _, e := range w.entries() {
			if e.outcome != nil && e.is(admission) {
				return e.outcome
			}
		}
	}
	w.t.Fatal("the outcome is never written")
	return nil
}

// agrees fails the test unless the live state is the fold of the records.
func (w *workshop) agrees() {
	w.t.Helper()
	if diff := cmp.Diff(w.folded(), w.agent.State().Dump()); diff != "" {
		w.t.Errorf("the state is not the fold of the records (-fold +state):\n%s", diff)
	}
}

func TestAnOutcomeThatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	never := agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED, Reason: writv1.Reason_REASON_EXECUTION_CANCELLED}
	cases := map[string]func(*agent.Admission) error{
		"where somebody waits for it": func(ad *agent.Admission) error { return ad.Finish(never) },
		"where nobody does":           func(ad *agent.Admission) error { return ad.FinishLater(never) },
	}
	for name, finish := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lost := make(chan error, 1)
			w := openWorkshop(t, workshopOptions{ledger: func(o *ledger.Options) {
				o.OnLost = func(_ ledger.Entry, err error) { lost <- err }
			}})
			keyed := request("workshop.make", "spoon")
			keyed.IdempotencyKey = "k"
			admission := w.allow(keyed)
			w.disk.breaks()
			if err := finish(admission); err == nil {
				if err := <-lost; !errors.Is(err, ledger.ErrUnavailable) {
					t.Fatalf("the outcome is lost by %v", err)
				}
			}
			if open := w.agent.State().Dump(); !strings.Contains(open, "open "+admission.ID()) || !strings.Contains(open, "budget") {
				t.Errorf("the state runs ahead of the records:\n%s", open)
			}
			w.disk.mend()
			if got := w.outcome(admission); got.GetState() != never.State || len(got.GetGivenBack()) == 0 {
				t.Errorf("written: %v", got)
			}
			w.agrees()
			again := request("workshop.make", "spoon")
			again.IdempotencyKey = "k"
			w.allow(again)
		})
	}
}

func TestAnOutcomeThatCouldNotBeWrittenIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	admission := w.allow(request("workshop.make", "spoon"))
	execution := admission.Run(t.Context(), nil)
	w.disk.breaks()
	if err := admission.Finish(execution.Outcome()); !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("Finish = %v, want ErrUnavailable", err)
	}
	w.disk.mend()
	for w.ledger.Status().Err != nil {
		runtime.Gosched() // the ledger mends itself at its next probe
	}
	if err := w.agent.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := w.entries()
	if len(found) != 2 || found[1].outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("records: %v, want the decision and SUCCEEDED", found)
	}
	w.agrees()
}

func TestWhatStandsInTheLedgerStandsInTheState(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{
		floor:  writv1.Durability_DURABILITY_REMOTE,
		ledger: func(o *ledger.Options) { o.AcknowledgeTimeout = time.Millisecond },
	})
	refused := w.agent.Admit(t.Context(), request("workshop.make", "spoon")).Refusal()
	if refused == nil || refused.Reason != writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED {
		t.Fatalf("refused with %v", refused)
	}
	if found := w.entries(); len(found) != 2 || found[1].outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		t.Errorf("records: %v, want an ALLOW that did not start", found)
	}
	w.agrees()
}

func TestAnOutcomeThatIsTooLargeIsRecordedWithoutItsResult(t *testing.T) {
	t.Parallel()
	secrets := `{"parts":[{}` + strings.Repeat(`,{"secret":"x"}`, 300) + `]}`
	w := openWorkshop(t, workshopOptions{craft: func(context.Context, tools.Execution) (*tools.Result, error) {
		return &tools.Result{JSON: []byte(secrets)}, nil
	}})
	for _, finish := range []func(*agent.Admission, agent.Outcome) error{(*agent.Admission).Finish, (*agent.Admission).FinishLater} {
		admission := w.allow(request("workshop.make", "spoon"))
		execution := admission.Run(t.Context(), nil)
		if execution.State != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
			t.Fatalf("the execution ended as %v: %s", execution.State, execution.Message)
		}
		if err := finish(admission, execution.Outcome()); err != nil {
			t.Fatal(err)
		}
		got := w.outcome(admission)
		if got.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || len(got.GetResult()) != 0 || len(got.GetResultDigest()) != 32 {
			t.Errorf("recorded %v with a result of %d bytes and a digest of %d", got.GetState(), len(got.GetResult()), len(got.GetResultDigest()))
		}
		w.agrees()
	}
}

func TestAHeartbeatTellsHowFarTheCollectorIsAndHowFullTheLedger(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	w.acknowledge()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	tended := make(chan struct{})
	go func() {
		w.agent.Tend(ctx, agent.Intervals{Heartbeat: time.Millisecond, Sweep: time.Hour, Dropped: time.Hour})
		close(tended)
	}()
	var beat *writv1.HeartbeatRecord
	for beat == nil && ctx.Err() == nil {
		w.records(func(r *writv1.Record) {
			if r.GetKind() == writv1.RecordKind_RECORD_KIND_HEARTBEAT {
				beat = &writv1.HeartbeatRecord{}
				if err := proto.Unmarshal(r.GetBody(), beat); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop()
	<-tended
	status := w.ledger.Status()
	if beat.GetAcknowledged() != status.Acknowledged || beat.GetLedgerBytes() == 0 || beat.GetLedgerBytes() > uint64(status.Bytes) || beat.GetLedgerMaxBytes() != uint64(status.MaxBytes) { //nolint:gosec // not negative
		t.Errorf("heartbeat %v, the ledger is %+v", beat, status)
	}
}
