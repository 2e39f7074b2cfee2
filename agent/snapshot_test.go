// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const keptAtOnce = 100_000

// history draws records such as a ledger holds.
func history(t *rapid.T) []*writv1.Record {
	var records []*writv1.Record
	var open [][]byte
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	add := func(kind writv1.RecordKind, id []byte, body proto.Message) {
		text, err := canonical.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &writv1.Record{Index: uint64(len(records)), Tenant: "acme", Kind: kind, DecisionId: id, Body: text})
	}
	for range rapid.IntRange(0, 60).Draw(t, "records") {
		now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "hours")) * time.Hour)
		if len(open) > 0 && rapid.Bool().Draw(t, "ends") {
			at := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			add(writv1.RecordKind_RECORD_KIND_OUTCOME, open[at], outcomeDrawn(t))
			open = append(open[:at], open[at+1:]...)
			continue
		}
		switch rapid.IntRange(0, 8).Draw(t, "other") {
		case 0:
			add(writv1.RecordKind_RECORD_KIND_SESSION, nil, sessionDrawn(t, now))
		case 1:
			add(writv1.RecordKind_RECORD_KIND_OBSERVATION, nil, observationDrawn(t, now))
		case 2:
			add(writv1.RecordKind_RECORD_KIND_WORKFLOW, nil, workflowDrawn(t, now))
		case 3:
			add(writv1.RecordKind_RECORD_KIND_ALERT, nil, alertDrawn(t, now))
		case 4:
			add(writv1.RecordKind_RECORD_KIND_APPROVAL, nil, voteDrawn(t, now))
		case 5:
			add(writv1.RecordKind_RECORD_KIND_STOP, nil, stopDrawn(t, now))
		}
		id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(len(records)))
		add(writv1.RecordKind_RECORD_KIND_DECISION, id, decisionDrawn(t, now))
		open = append(open, id)
	}
	return records
}

// sessionOf is one of a few sessions, which all are of one principal.
func sessionOf(t *rapid.T) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), rapid.Uint64Range(1, 3).Draw(t, "session"))
}

// stopDrawn is an order about one of a few stops.
func stopDrawn(t *rapid.T, now time.Time) *writv1.StopOrder {
	day := now.Truncate(24 * time.Hour)
	return &writv1.StopOrder{
		Stop: &writv1.Stop{
			Scope: &writv1.StopScope{Tool: rapid.SampledFrom([]string{"a", "b.*"}).Draw(t, "stopped")},
			Time:  timestamppb.New(day), ExpireTime: timestamppb.New(day.Add(48 * time.Hour)),
		},
		Choice: writv1.StopChoice(rapid.Int32Range(1, 2).Draw(t, "choice")), Operator: "kim",
	}
}

func sessionDrawn(t *rapid.T, now time.Time) *writv1.SessionRecord {
	out := &writv1.SessionRecord{
		Session: sessionOf(t), Event: writv1.SessionEvent_SESSION_EVENT_END, Principal: &writv1.Principal{User: "ann", Tenant: "acme"}, Time: timestamppb.New(now),
	}
	if rapid.Bool().Draw(t, "begins") {
		out.Session = binary.BigEndian.AppendUint64(make([]byte, 8), rapid.Uint64Min(10).Draw(t, "new"))
		out.Event, out.ExpireTime = writv1.SessionEvent_SESSION_EVENT_BEGIN, timestamppb.New(now.Add(time.Hour))
		out.TokenDigest = append(out.GetSession(), out.GetSession()...)
	}
	return out
}

func observationDrawn(t *rapid.T, now time.Time) *writv1.ObservationRecord {
	return &writv1.ObservationRecord{
		Session: sessionOf(t), Source: rapid.SampledFrom([]string{"user", "tool:a"}).Draw(t, "source"), Time: timestamppb.New(now), AtomsVersion: 1,
		Objects: 1, Untrusted: rapid.Bool().Draw(t, "untrusted"), Groups: []*writv1.ObservedGroup{{
			Trust:      rapid.SampledFrom([]writv1.Trust{writv1.Trust_TRUST_TRUSTED, writv1.Trust_TRUST_UNTRUSTED}).Draw(t, "trust"),
			Atoms:      binary.BigEndian.AppendUint64(nil, rapid.Uint64Range(1, 5).Draw(t, "atom")),
			Restricted: rapid.Bool().Draw(t, "restricted"), Readers: binary.BigEndian.AppendUint64(nil, rapid.Uint64Range(1, 3).Draw(t, "reader")),
		}},
	}
}

// runOf is one of a few runs.
func runOf(t *rapid.T) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), rapid.Uint64Range(1, 2).Draw(t, "run"))
}

func workflowDrawn(t *rapid.T, now time.Time) *writv1.WorkflowRecord {
	out := &writv1.WorkflowRecord{
		Run: runOf(t), Session: sessionOf(t), Event: writv1.WorkflowEvent_WORKFLOW_EVENT_BEGIN, Principal: &writv1.Principal{User: "ann", Tenant: "acme"},
		Time: timestamppb.New(now), Contract: rapid.SampledFrom([]string{"refund", "report"}).Draw(t, "contract"), Intent: "i",
		Inputs: []byte(`{"a":1}`), ExpireTime: timestamppb.New(now.Add(time.Hour)),
	}
	if rapid.Bool().Draw(t, "ends") {
		out.Event, out.Result = writv1.WorkflowEvent_WORKFLOW_EVENT_END, writv1.WorkflowResult(rapid.Int32Range(1, 3).Draw(t, "result"))
	}
	return out
}

// approvalOf is one of a few approvals.
func approvalOf(t *rapid.T) string {
	return strings.Repeat(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "approval"), 32)
}

func voteDrawn(t *rapid.T, now time.Time) *writv1.ApprovalVote {
	return &writv1.ApprovalVote{
		ApprovalId: approvalOf(t), Approver: rapid.SampledFrom([]string{"ann", "bob", "kim"}).Draw(t, "approver"),
		Choice: writv1.ApprovalChoice(rapid.Int32Range(1, 2).Draw(t, "choice")), Binding: make([]byte, 32), PublicKey: make([]byte, 32),
		Signature: make([]byte, 64), Time: timestamppb.New(now),
	}
}

// askDrawn makes a decision one that waits for an approval, or uses one.
func askDrawn(t *rapid.T, now time.Time, out *writv1.DecisionRecord) {
	id := approvalOf(t)
	out.ApprovalId, out.Principal = id, &writv1.Principal{User: "ann", Tenant: "acme"}
	if rapid.Bool().Draw(t, "uses") {
		out.ApprovalId = ""
		out.Decision.Effects = append(out.Decision.Effects, &writv1.Effect{Effect: &writv1.Effect_Consume{Consume: &writv1.ConsumeApproval{Id: id}}})
		return
	}
	out.Decision.Verdict = writv1.Verdict_VERDICT_NEEDS_APPROVAL
	out.Approval = &writv1.ApprovalRequest{
		Basis: make([]byte, 32), Roles: []string{"boss"}, Quorum: 1, Key: append(make([]byte, 31), id[0]),
		ExpireTime: timestamppb.New(now.Add(time.Duration(rapid.IntRange(1, 48).Draw(t, "lasts")) * time.Hour)),
	}
}

func decisionDrawn(t *rapid.T, now time.Time) *writv1.DecisionRecord {
	out := &writv1.DecisionRecord{
		Identity: make([]byte, 32), Facts: &writv1.Facts{Time: timestamppb.New(now)},
		Decision: &writv1.Decision{Verdict: writv1.Verdict_VERDICT_ALLOW},
	}
	if rapid.Bool().Draw(t, "in a session") {
		out.Session, out.Tool, out.Principal = sessionOf(t), "t", &writv1.Principal{User: "ann", Tenant: "acme"}
		out.ToolEffect = writv1.ToolEffect(rapid.Int32Range(1, 2).Draw(t, "effect"))
		out.Decision.Effects = append(out.Decision.Effects, &writv1.Effect{Effect: &writv1.Effect_Advance{Advance: &writv1.Advance{
			Run: runOf(t), Ordered: rapid.Bool().Draw(t, "ordered"),
		}}})
	}
	if rapid.Bool().Draw(t, "keyed") {
		out.IdempotencyDigest = binary.BigEndian.AppendUint64(make([]byte, 24), rapid.Uint64Range(1, 8).Draw(t, "key"))
	}
	if rapid.IntRange(0, 3).Draw(t, "asks") == 0 {
		askDrawn(t, now, out)
	}
	for range rapid.IntRange(0, 2).Draw(t, "reserves") {
		out.Decision.Effects = append(out.Decision.Effects, &writv1.Effect{Effect: &writv1.Effect_Reserve{Reserve: reserveDrawn(t)}})
	}
	return out
}

func reserveDrawn(t *rapid.T) *writv1.Reserve {
	day := time.Date(2026, 11, rapid.IntRange(1, 3).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
	out := &writv1.Reserve{
		Budget: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "budget"), Key: []string{rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user")},
		Dimension: writv1.Dimension_DIMENSION_CALLS, Amount: rapid.Int64Range(1, 3).Draw(t, "amount"),
		WindowStart: timestamppb.New(day),
	}
	switch rapid.IntRange(0, 2).Draw(t, "kind of window") {
	case 1:
		out.Rolling = durationpb.New(48 * time.Hour)
	case 2:
		out.WindowStart, out.ExpireTime = timestamppb.New(time.Unix(0, 0)), timestamppb.New(day)
	}
	return out
}

// alertDrawn is an alert about a balance, which may be one that nothing was taken of.
func alertDrawn(t *rapid.T, now time.Time) *writv1.AlertRecord {
	of := reserveDrawn(t)
	return &writv1.AlertRecord{
		Kind: writv1.AlertKind_ALERT_KIND_THRESHOLD, Time: timestamppb.New(now), Budget: of.GetBudget(), Key: of.GetKey(), Dimension: of.GetDimension(),
		WindowStart: of.GetWindowStart(), Rolling: of.GetRolling(), Percent: rapid.SampledFrom([]uint32{50, 80}).Draw(t, "percent"),
	}
}

func outcomeDrawn(t *rapid.T) *writv1.OutcomeRecord {
	out := &writv1.OutcomeRecord{State: rapid.SampledFrom([]writv1.OutcomeState{
		writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, writv1.OutcomeState_OUTCOME_STATE_FAILED, writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED,
	}).Draw(t, "state")}
	if out.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		out.GivenBack = []*writv1.Reserve{reserveDrawn(t)}
		return out
	}
	out.Result = []byte(`{"n":1}`)
	out.Spent = []*writv1.Spending{{Dimension: writv1.Dimension(rapid.Int32Range(1, 5).Draw(t, "of")), Amount: rapid.Int64Range(1, 9).Draw(t, "spent")}}
	switch rapid.IntRange(0, 2).Draw(t, "bill") {
	case 1:
		out.GivenBack = []*writv1.Reserve{reserveDrawn(t)}
	case 2:
		out.Overrun = []*writv1.Reserve{reserveDrawn(t)}
	}
	return out
}

func foldAll(t *rapid.T, state *agent.State, records []*writv1.Record) {
	for _, record := range records {
		if err := state.Fold(record); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASnapshotAndTheRecordsAfterItAreTheWholeFold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		records := history(t)
		cut := rapid.IntRange(0, len(records)).Draw(t, "cut")
		whole, early := agent.NewState(keptAtOnce), agent.NewState(keptAtOnce)
		foldAll(t, whole, records)
		foldAll(t, early, records[:cut])
		if err := early.SaveSnapshot(dir, "origin", make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		late, err := agent.LoadSnapshot(dir, keptAtOnce)
		if err != nil {
			t.Fatal(err)
		}
		// A ledger that was not pruned yet still gives the records that are covered.
		foldAll(t, late, records[rapid.IntRange(0, cut).Draw(t, "pruned"):])
		if diff := cmp.Diff(whole.Dump(), late.Dump()); diff != "" {
			t.Fatalf("(-whole +snapshot and rest):\n%s", diff)
		}
		if diff := cmp.Diff(snapshotOf(t, whole), snapshotOf(t, late)); diff != "" {
			t.Fatalf("the next snapshot (-whole +snapshot and rest):\n%s", diff)
		}
	})
}

// snapshotOf is what Dump leaves out too.
func snapshotOf(t *rapid.T, state *agent.State) string {
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := state.SaveSnapshot(dir, "origin", make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, agent.SnapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestASnapshotThatWasChangedIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		state := agent.NewState(keptAtOnce)
		foldAll(t, state, history(t))
		if err := state.SaveSnapshot(dir, "origin", make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, agent.SnapshotFile)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			text = text[:at]
		} else {
			text[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.LoadSnapshot(dir, keptAtOnce); !errors.Is(err, agent.ErrSnapshot) {
			t.Fatalf("err = %v, want ErrSnapshot", err)
		}
	})
}

func TestRecordsThatNoSnapshotCoversMayNotBeMissing(t *testing.T) {
	t.Parallel()
	if err := agent.NewState(keptAtOnce).Fold(&writv1.Record{Index: 1}); err == nil {
		t.Error("a fold that begins with the second record is taken")
	}
}

func TestACompactedLedgerGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{ledger: func(o *ledger.Options) { o.SegmentBytes = 1 << 20 }})
	for range 6_000 {
		admission := w.allow(request("workshop.send", "x"))
		if err := admission.FinishLater(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}); err != nil {
			t.Fatal(err)
		}
	}
	left := w.allow(request("workshop.make", "open"))
	if n, err := w.agent.Compact(t.Context()); n != 0 || err != nil {
		t.Fatalf("Compact = %d, %v before anything is acknowledged", n, err)
	}
	w.acknowledge()
	n, err := w.agent.Compact(t.Context())
	if n == 0 || err != nil {
		t.Fatalf("Compact = %d, %v", n, err)
	}
	status := w.ledger.Status()
	if status.Oldest == 0 {
		t.Fatalf("status = %+v, want the first segments gone", status)
	}
	if err := left.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}); err != nil {
		t.Fatal(err)
	}
	before := w.agent.State().Dump()
	after := w.reopened()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before the restart +after):\n%s", diff)
	}
}

// acknowledge does what a collector's word does, for everything that was recorded.
func (w *workshop) acknowledge() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	reader, err := w.ledger.Reader(w.ledger.Status().Oldest)
	if err != nil {
		w.t.Fatal(err)
	}
	for size := w.ledger.Status().Size; w.ledger.Status().Acknowledged < size; {
		bundle, err := reader.Next(ctx, 1000, 1<<20)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.ledger.Acknowledge(bundle.Size, bundle.Root); err != nil {
			w.t.Fatal(err)
		}
	}
}

// reopened is the state that an agent has after a stop and a start.
func (w *workshop) reopened() string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "ledger")
	bundle := w.agent.Bundle()
	if err := errors.Join(w.agent.Close(context.Background()), w.ledger.Close(nil)); err != nil {
		w.t.Fatal(err)
	}
	state, err := agent.LoadSnapshot(dir, keptAtOnce)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.ledger, _, err = ledger.Open(ledger.Options{Dir: dir, FS: w.disk, OnRecord: state.Fold}); err != nil {
		w.t.Fatal(err)
	}
	keys, err := agent.OpenKeys(filepath.Join(w.dir, "keys"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent, err = agent.New(w.t.Context(), agent.Options{
		Bundle: bundle, Ledger: w.ledger, State: state, SnapshotDir: dir, Keys: keys, Clock: time.Now, Random: rand.Reader,
		Floor: writv1.Durability_DURABILITY_PROCESS, Start: &writv1.StartRecord{Origin: w.ledger.Origin()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return state.Dump()
}
