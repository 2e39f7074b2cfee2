// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	process = writv1.Durability_DURABILITY_PROCESS
	node    = writv1.Durability_DURABILITY_NODE
	remote  = writv1.Durability_DURABILITY_REMOTE
)

func options(dir string) ledger.Options {
	return ledger.Options{Dir: dir, Origin: "test.example/agent/desk"}
}

func open(t testing.TB, o ledger.Options) (*ledger.Ledger, ledger.Recovery) {
	t.Helper()
	l, r, err := ledger.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	return l, r
}

func decision(n int) ledger.Entry {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id, uint64(n))
	return ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: id,
		BundleDigest: bytes.Repeat([]byte{7}, 32),
		Body:         &writv1.DecisionRecord{Tool: fmt.Sprintf("tool-%d", n), Arguments: bytes.Repeat([]byte("a"), 700)},
	}
}

func appendN(t testing.TB, l *ledger.Ledger, from, n int, d writv1.Durability) {
	t.Helper()
	for i := from; i < from+n; i++ {
		p, err := l.Append(t.Context(), decision(i), d)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Recorded {
			t.Fatal("an answered position is not recorded")
		}
	}
}

func verifier(t testing.TB, vkey string) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestALedgerKeepsItsRecordsOverARestart(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	l, r := open(t, o)
	if !r.Fresh || r.Epoch != 1 || r.Size != 0 || !strings.HasPrefix(r.Origin, "test.example/agent/desk/") {
		t.Fatalf("first recovery = %+v", r)
	}
	var at []ledger.Position
	for i := range 100 {
		e := decision(i)
		e.Sensitive = []ledger.Sensitive{{Path: "arguments.z", Value: []byte(`"z"`)}, {Path: "arguments.iban", Value: []byte(`"DE02"`)}}
		p, err := l.Append(t.Context(), e, node)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
	}
	salt, err := l.Disclose(3, "arguments.iban")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(&writv1.EndRecord{OpenAdmissions: 2}); err != nil {
		t.Fatal(err)
	}

	var records []*writv1.Record
	o.Origin = ""
	o.OnRecord = func(r *writv1.Record) error { records = append(records, r); return nil }
	l2, r2 := open(t, o)
	if r2.Fresh || r2.Epoch != 2 || r2.Size != 101 || r2.LostBytes != 0 || !r2.Clean || r2.Origin != r.Origin {
		t.Errorf("second recovery = %+v", r2)
	}
	if len(records) != 101 {
		t.Fatalf("folded %d records, want 101", len(records))
	}
	for i, rec := range records[:100] {
		want := decision(i)
		body := &writv1.DecisionRecord{}
		if err := canonical.Unmarshal(rec.GetBody(), body); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Body, body, protocmp.Transform()); diff != "" {
			t.Fatalf("body of %d (-want +got):\n%s", i, diff)
		}
		if rec.GetIndex() != uint64(i) || rec.GetEpoch() != 1 || rec.GetTenant() != "acme" || !bytes.Equal(rec.GetDecisionId(), want.DecisionID) {
			t.Fatalf("record %d = %v", i, rec)
		}
		got, head, err := ledger.VerifyReceipt(receipt(t, at[i]), verifier(t, l2.VerifierKey()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rec, got, protocmp.Transform()); diff != "" || head.Origin != r.Origin {
			t.Fatalf("receipt of %d (-want +got):\n%s", i, diff)
		}
	}
	if err := ledger.VerifyDisclosure(records[3], "arguments.iban", []byte(`"DE02"`), salt); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct{ path, value string }{{"arguments.iban", `"DE03"`}, {"arguments.z", `"z"`}, {"arguments.none", "1"}} {
		if err := ledger.VerifyDisclosure(records[3], tc.path, []byte(tc.value), salt); !errors.Is(err, ledger.ErrDisclosure) {
			t.Errorf("VerifyDisclosure(%s, %s) = %v, want ErrDisclosure", tc.path, tc.value, err)
		}
	}
	if err := ledger.VerifyDisclosure(records[4], "arguments.iban", []byte(`"DE02"`), salt); !errors.Is(err, ledger.ErrDisclosure) {
		t.Errorf("the salt of one record opened another: %v", err)
	}
}

func receipt(t testing.TB, p ledger.Position) []byte {
	t.Helper()
	b, err := p.Receipt()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordsOfManyWritersAreInOneOrder(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.SegmentBytes = 64 << 10 // many segments
	l, _ := open(t, o)
	const writers, each = 16, 60
	positions := make([][]ledger.Position, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				d := process
				if i%10 == 0 {
					d = node
				}
				p, err := l.Append(context.Background(), decision(w*each+i), d)
				if err != nil {
					t.Error(err)
					return
				}
				positions[w] = append(positions[w], p)
			}
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	v := verifier(t, l.VerifierKey())
	for w, ps := range positions {
		for i, p := range ps {
			rec, _, err := ledger.VerifyReceipt(receipt(t, p), v)
			if err != nil {
				t.Fatal(err)
			}
			if want := decision(w*each + i).DecisionID; seen[p.Index] || rec.GetIndex() != p.Index || !bytes.Equal(rec.GetDecisionId(), want) {
				t.Fatalf("position %d: index taken twice, or another record", p.Index)
			}
			seen[p.Index] = true
			if i > 0 && ps[i-1].Index >= p.Index {
				t.Fatalf("writer %d: %d after %d", w, p.Index, ps[i-1].Index)
			}
		}
	}
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	o.OnRecord = func(r *writv1.Record) error { delete(seen, r.GetIndex()); return nil }
	if _, r := open(t, o); r.Size != writers*each || len(seen) != 0 {
		t.Errorf("recovered %d records, %d are missing", r.Size, len(seen))
	}
}

func TestEntriesThatNoRecordCanHoldAreRefused(t *testing.T) {
	t.Parallel()
	l, _ := open(t, options(t.TempDir()))
	exact := decision(0)
	exact.Body = &writv1.DecisionRecord{Arguments: make([]byte, 65_000)}
	p, err := l.Append(t.Context(), exact, process)
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := ledger.VerifyReceipt(receipt(t, p), verifier(t, l.VerifierKey()))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := canonical.Marshal(rec)
	room := 65_000 + ledger.MaxRecordBytes - len(raw) - 9 // the next one has an index, 9 bytes
	for _, tc := range []struct {
		name   string
		change func(*ledger.Entry)
		want   error
	}{
		{"a record of exactly 65,535 bytes", func(e *ledger.Entry) { e.Body = &writv1.DecisionRecord{Arguments: make([]byte, room)} }, nil},
		{"a record of 65,536 bytes", func(e *ledger.Entry) { e.Body = &writv1.DecisionRecord{Arguments: make([]byte, room+1)} }, ledger.ErrTooLarge},
		{"a body of 70,000 bytes", func(e *ledger.Entry) { e.Body = &writv1.DecisionRecord{Arguments: make([]byte, 70_000)} }, ledger.ErrTooLarge},
		{"a body of another kind", func(e *ledger.Entry) { e.Body = &writv1.EndRecord{} }, ledger.ErrInvalid},
		{"no body", func(e *ledger.Entry) { e.Body = nil }, ledger.ErrInvalid},
		{"no kind", func(e *ledger.Entry) { e.Kind = 0 }, ledger.ErrInvalid},
		{"a tenant that is not UTF-8", func(e *ledger.Entry) { e.Tenant = "\xff" }, ledger.ErrInvalid},
		{"a body that is not UTF-8", func(e *ledger.Entry) { e.Body = &writv1.DecisionRecord{Tool: "\xff"} }, ledger.ErrInvalid},
		{"a decision id of 17 bytes", func(e *ledger.Entry) { e.DecisionID = make([]byte, 17) }, ledger.ErrInvalid},
		{"two values at one path", func(e *ledger.Entry) { e.Sensitive = []ledger.Sensitive{{Path: "a"}, {Path: "a"}} }, ledger.ErrInvalid},
		{"an empty path", func(e *ledger.Entry) { e.Sensitive = []ledger.Sensitive{{Path: ""}} }, ledger.ErrInvalid},
	} {
		e := decision(0)
		tc.change(&e)
		before := l.Status().Size
		p, err := l.Append(t.Context(), e, process)
		if !errors.Is(err, tc.want) || p.Recorded != (tc.want == nil) {
			t.Errorf("%s: Append = %+v, %v, want %v", tc.name, p, err, tc.want)
		}
		if after := l.Status().Size; (after == before) != (tc.want != nil) {
			t.Errorf("%s: the size went from %d to %d", tc.name, before, after)
		}
	}
}

func TestAFullLedgerDeniesDecisionsBeforeOutcomes(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.MaxBytes = 64 << 10
	l, _ := open(t, o)
	var err error
	for i := 0; err == nil; i++ {
		_, err = l.Append(t.Context(), decision(i), process)
	}
	if !errors.Is(err, ledger.ErrFull) {
		t.Fatalf("Append = %v, want ErrFull", err)
	}
	outcome := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_UNKNOWN}}
	if _, err := l.Append(t.Context(), outcome, process); err != nil {
		t.Errorf("outcome in a ledger full of decisions: %v", err)
	}
	for err = nil; err == nil; {
		_, err = l.Append(t.Context(), outcome, process)
	}
	if s := l.Status(); !errors.Is(err, ledger.ErrFull) || s.Bytes > o.MaxBytes || s.Err != nil {
		t.Errorf("full to the brim: %v, %+v", err, s)
	}
}

func TestTwoProcessesCannotShareALedger(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	l, _ := open(t, o)
	if _, _, err := ledger.Open(o); !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), decision(0), process); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Append after Close = %v, want ErrUnavailable", err)
	}
	o.Origin = "test.example/agent/other"
	if _, _, err := ledger.Open(o); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("Open under another origin = %v, want ErrInvalid", err)
	}
	open(t, options(o.Dir))
}

func TestALedgerWhoseSegmentsAreGoneIsANewIncarnation(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	l, first := open(t, o)
	appendN(t, l, 0, 3, process)
	key := l.VerifierKey()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(o.Dir, "*.dlog"))
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	l2, second := open(t, o)
	if !second.Fresh || second.Origin == first.Origin || l2.VerifierKey() == key {
		t.Errorf("recovery = %+v, want a new origin and key", second)
	}
}

func TestKeysAreNotReadableByOthers(t *testing.T) {
	t.Parallel()
	o := options(filepath.Join(t.TempDir(), "ledger"))
	open(t, o)
	for name, want := range map[string]os.FileMode{"": 0o700, "log.key": 0o600, "commit.key": 0o600, "log.vkey": 0o644, "incarnation": 0o600} {
		info, err := os.Stat(filepath.Join(o.Dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: mode %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestRemoteWaitsForAnAcknowledgementOfTheRightRoot(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.AcknowledgeTimeout = 300 * time.Millisecond
	l, _ := open(t, o)
	p, err := l.Append(t.Context(), decision(0), remote)
	if !errors.Is(err, ledger.ErrNotAcknowledged) || !p.Recorded || p.Index != 0 {
		t.Fatalf("without a collector: %+v, %v", p, err)
	}
	lie := bytes.Repeat([]byte{1}, 32)
	r, err := l.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { // a collector that lies once
		for {
			b, err := r.Next(t.Context(), 256, 256<<10)
			if err != nil {
				done <- err
				return
			}
			if err := l.Acknowledge(b.Size, lie); !errors.Is(err, ledger.ErrMismatch) {
				t.Errorf("Acknowledge with another root = %v", err)
			}
			if err := l.Acknowledge(b.Size+1, b.Root); !errors.Is(err, ledger.ErrMismatch) {
				t.Errorf("Acknowledge of more than there is = %v", err)
			}
			if b.Size == 3 {
				if err := l.Acknowledge(b.Size, b.Root); err != nil {
					t.Error(err)
				}
				done <- nil
				return
			}
		}
	}()
	if _, err := l.Append(t.Context(), decision(1), remote); !errors.Is(err, ledger.ErrNotAcknowledged) {
		t.Errorf("with a lie: %v", err)
	}
	if _, err := l.Append(t.Context(), decision(2), remote); err != nil {
		t.Errorf("with an acknowledgement: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); s.Acknowledged != 3 {
		t.Errorf("status = %+v", s)
	}
}

func TestPrunedLedgersKeepTheirProofs(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.SegmentBytes = 16 << 10
	l, _ := open(t, o)
	appendN(t, l, 0, 200, process)
	appendN(t, l, 200, 1, node)
	if n, err := l.Prune(200); n != 0 || err != nil {
		t.Fatalf("pruned %d segments that nobody has acknowledged, %v", n, err)
	}
	root, err := l.RootAt(150)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Acknowledge(150, root); err != nil {
		t.Fatal(err)
	}
	n, err := l.Prune(100)
	if err != nil || n == 0 {
		t.Fatalf("Prune = %d, %v", n, err)
	}
	s := l.Status()
	if s.Oldest == 0 || s.Oldest > 100 {
		t.Errorf("oldest = %d, want above 0 and not above the snapshot", s.Oldest)
	}
	if _, err := l.Reader(0); !errors.Is(err, ledger.ErrPruned) {
		t.Errorf("Reader(0) = %v, want ErrPruned", err)
	}
	p, err := l.Append(t.Context(), decision(201), node)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ledger.VerifyReceipt(receipt(t, p), verifier(t, l.VerifierKey())); err != nil {
		t.Error(err)
	}
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	var first *writv1.Record
	o.OnRecord = func(r *writv1.Record) error {
		if first == nil {
			first = r
		}
		return nil
	}
	if _, r := open(t, o); r.Oldest != s.Oldest || r.Size != 202 || first.GetIndex() != s.Oldest {
		t.Errorf("recovery = %+v, first record %d", r, first.GetIndex())
	}
}

func TestEveryKindOfRecordHasABody(t *testing.T) {
	t.Parallel()
	for kind, name := range writv1.RecordKind_name {
		_, err := ledger.Body(&writv1.Record{Kind: writv1.RecordKind(kind)})
		if known := kind != int32(writv1.RecordKind_RECORD_KIND_UNSPECIFIED); (err == nil) != known {
			t.Errorf("the body of %s: %v", name, err)
		}
	}
}
