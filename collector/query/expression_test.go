// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// fullDecision is a decision with everything that filters compare.
func fullDecision(n byte, tenant string, reason writv1.Reason, failed ...string) ledger.Entry {
	e := decision(n, tenant, "books.refund", "alice", "spiffe://w/1", writv1.Verdict_VERDICT_DENY)
	e.BundleDigest = append(make([]byte, 31), n%2)
	d, _ := e.Body.(*writv1.DecisionRecord)
	d.Session, d.TraceParent, d.Envelope = id(100+n%2), fmt.Sprintf("00-%032x-%016x-01", n, 1), &writv1.Envelope{RequestId: fmt.Sprintf("r-%d", n)}
	d.Facts = &writv1.Facts{Session: &writv1.SessionSummary{Run: &writv1.RunSummary{Contract: "refund"}}}
	d.Decision.Reason = reason
	d.Decision.Checks = []*writv1.Check{{Name: "passed", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS}}
	for _, name := range failed {
		d.Decision.Checks = append(d.Decision.Checks, &writv1.Check{Name: name, Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL})
	}
	return e
}

// aLongDay is aDay and, from 12 on, what has more to be found by.
func aLongDay() []ledger.Entry {
	failed := outcome(30, "acme")
	failed.Body = &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_FAILED, Reason: writv1.Reason_REASON_EXECUTION_TIMEOUT}
	return append(aDay(),
		fullDecision(30, "acme", writv1.Reason_REASON_CONDITION_CHECK_FAILED, "small", "own case"), // 12
		failed, // 13
		fullDecision(31, "globex", writv1.Reason_REASON_GRANT_MISSING, "small"),                                                                        // 14
		ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_SESSION, Tenant: "acme", Body: &writv1.SessionRecord{Session: id(100)}},                       // 15
		ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_WORKFLOW, Tenant: "acme", Body: &writv1.WorkflowRecord{Session: id(101), Contract: "refund"}}, // 16
	)
}

func TestAnExpressionFindsTheSameRecordsInEveryReader(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aLongDay()...)
	readers := d.readers(t)
	session := hex.EncodeToString(id(100))
	for expression, want := range map[string][]uint64{
		`tool = books.refund AND verdict = ALLOW`:                   {11, 4, 2},
		`reason = CONDITION_CHECK_FAILED`:                           {12},
		`reason = EXECUTION_TIMEOUT`:                                {13},
		`check:"own case"`:                                          {13, 12},
		`check:passed`:                                              {},
		`check:small AND tenant = globex`:                           {14},
		`session = "` + session + `"`:                               {15, 13, 12},
		`session = "` + session + `" AND kind = DECISION`:           {12},
		`workflow = refund`:                                         {16, 14, 13, 12},
		`request_id = "r-30"`:                                       {13, 12},
		`trace_id = "` + fmt.Sprintf("%032x", 31) + `"`:             {14},
		`bundle = "` + strings.Repeat("0", 63) + `1"`:               {14},
		`decision = "` + hex.EncodeToString(id(4)) + `"`:            {8, 7},
		`time >= "2026-01-31T09:00:10Z" AND kind = DECISION`:        {14, 12, 10},
		`tenant = "" AND NOT kind = START`:                          {6, 1},
		`tool = "" AND kind = OUTCOME`:                              {9},
		`NOT (kind = DECISION OR kind = OUTCOME) AND tenant = acme`: {16, 15},
		`principal != alice AND verdict = DENY`:                     {10, 3},
		`tool = "' OR 1=1 --"`:                                      {},
	} {
		for who, reader := range readers {
			for _, size := range []int32{2, 1000} {
				got := indexes(t, records(t.Context(), t, reader, &writv1.RecordFilter{Expression: expression}, size))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s from %s (-want +got):\n%s", expression, who, diff)
				}
			}
		}
	}
	for who, reader := range readers {
		_, err := reader.List(t.Context(), &writv1.ListRecordsRequest{Filter: &writv1.RecordFilter{Expression: `tool = x AND tol = y`}})
		if !errors.Is(err, query.ErrInvalid) || !strings.Contains(err.Error(), "column 14: no such field") {
			t.Errorf("%s: a filter that is wrong: %v", who, err)
		}
		if _, err := reader.Watch(t.Context(), &writv1.RecordFilter{Expression: `(`}); !errors.Is(err, query.ErrInvalid) {
			t.Errorf("%s: a filter that is wrong is watched: %v", who, err)
		}
	}
}

// drawn is a filter of random shape over what a long day has.
func drawn(t *rapid.T, depth int) string {
	if depth > 0 {
		switch part := func() string { return drawn(t, depth-1) }; rapid.IntRange(0, 5).Draw(t, "joint") {
		case 0:
			return "(" + part() + " AND " + part() + ")"
		case 1:
			return "(" + part() + " OR " + part() + ")"
		case 2:
			return "NOT (" + part() + ")"
		case 3:
			return part() + " AND " + part()
		}
	}
	equal := " " + rapid.SampledFrom([]string{"=", "!="}).Draw(t, "operator") + " "
	of := func(field string, values ...string) string {
		return field + equal + `"` + rapid.SampledFrom(append(values, "")).Draw(t, "value") + `"`
	}
	switch rapid.IntRange(0, 11).Draw(t, "field") {
	case 0:
		return of("tool", "books.refund", "mail.send", "x")
	case 1:
		return "verdict" + equal + rapid.SampledFrom([]string{"ALLOW", "DENY", "NEEDS_APPROVAL"}).Draw(t, "verdict")
	case 2:
		return "reason" + equal + rapid.SampledFrom([]string{"GRANTED", "CONDITION_CHECK_FAILED", "EXECUTION_TIMEOUT"}).Draw(t, "reason")
	case 3:
		return "check" + equal + rapid.SampledFrom([]string{"small", "passed", `"own case"`}).Draw(t, "check")
	case 4:
		return "kind" + equal + rapid.SampledFrom([]string{"START", "DECISION", "OUTCOME", "SESSION"}).Draw(t, "kind")
	case 5:
		return "time " + rapid.SampledFrom([]string{"=", "!=", "<", "<=", ">", ">="}).Draw(t, "operator") +
			fmt.Sprintf(` "2026-01-31T09:00:%02dZ"`, rapid.IntRange(0, 17).Draw(t, "second"))
	case 6:
		return of(rapid.SampledFrom([]string{"principal", "user", "workload"}).Draw(t, "who"), "alice", "bob", "spiffe://w/1")
	case 7:
		return of("session", hex.EncodeToString(id(100)), hex.EncodeToString(id(101)))
	case 8:
		return of("decision", hex.EncodeToString(id(1)), hex.EncodeToString(id(30)))
	case 9:
		return of("request_id", "r-30", "r-31")
	case 10:
		return of("workflow", "refund")
	default:
		return of("tenant", "acme", "globex")
	}
}

func TestStoreAndLedgerAgreeOnEveryExpression(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aLongDay()...)
	fromLedger, err := query.FromLedger(d.ledgerDir)
	if err != nil {
		t.Fatal(err)
	}
	fromStore := query.FromStore(d.store)
	rapid.Check(t, func(rt *rapid.T) {
		filter := &writv1.RecordFilter{Expression: drawn(rt, 3)}
		if rapid.Bool().Draw(rt, "with a tenant") {
			filter.Tenant = "acme"
		}
		want := indexes(t, records(t.Context(), t, fromLedger, filter, 1000))
		got := indexes(t, records(t.Context(), t, fromStore, filter, 7))
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("%v (-ledger +store):\n%s", filter, diff)
		}
	})
}

func TestAnExpressionNeverReachesAnotherTenant(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aLongDay()...)
	h := openHall(t, d, &writv1.Reader{SpiffeId: ofAcme, Tenants: []string{"acme"}})
	reader := query.FromService(h.as(t, ofAcme))
	acme := map[uint64]bool{2: true, 3: true, 4: true, 9: true, 10: true, 11: true, 12: true, 13: true, 15: true, 16: true}
	for _, expression := range []string{
		`tenant = globex`, `tenant = globex OR tenant = acme`, `NOT tenant = acme`, `tenant != acme`, `check:small`, `request_id = "r-31"`,
		`kind = DECISION`, `origin = "` + d.held.Origin + `"`, `decision = "` + hex.EncodeToString(id(31)) + `"`, `time > "2000-01-01T00:00:00Z"`,
	} {
		for _, index := range indexes(t, records(t.Context(), t, reader, &writv1.RecordFilter{Expression: expression}, 3)) {
			if !acme[index] {
				t.Errorf("%s gives record %d, of another tenant", expression, index)
			}
		}
	}
	// What is wrong with a filter is said from its text alone: it is the same for a name that
	// is another tenant's and for one that is nobody's.
	wrong := func(name string) string {
		_, err := reader.List(t.Context(), &writv1.ListRecordsRequest{Filter: &writv1.RecordFilter{Expression: `tenant > ` + name}})
		return fmt.Sprint(err)
	}
	if wrong("globex") != wrong("nobody") || !strings.Contains(wrong("globex"), "column 1") {
		t.Errorf("errors tell tenants apart: %s; %s", wrong("globex"), wrong("nobody"))
	}
}
