// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// day is when the ledgers of scripts begin; a second passes between two records.
var day = time.Date(2001, 1, 31, 9, 0, 0, 0, time.UTC)

// makeLedger is a program for scripts, "makeledger DIR": it adds an epoch of six records
// to the ledger in a directory.
func makeLedger() {
	if err := writeLedger(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "makeledger:", err)
		os.Exit(1)
	}
}

func writeLedger(dir string) error {
	now := day
	l, recovery, err := ledger.Open(ledger.Options{Dir: dir, Origin: "example.org/agent/desk", Clock: func() time.Time {
		now = now.Add(time.Second)
		return now
	}})
	if err != nil {
		return err
	}
	id := func(n byte) []byte {
		return []byte{byte(recovery.Epoch), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n} //nolint:gosec // a few
	}
	decision := func(n byte, tool, user string, verdict writv1.Verdict, reason writv1.Reason) ledger.Entry {
		return ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: id(n), BundleDigest: make([]byte, 32),
			Body: &writv1.DecisionRecord{
				Surface: writv1.Surface_SURFACE_EXT_AUTHZ, Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE,
				Principal: &writv1.Principal{User: user, Workload: "spiffe://example.org/desk", Roles: []string{"agent"}, Tenant: "acme"},
				Envelope:  &writv1.Envelope{RequestId: "r-1", Intent: "refund\x1b[2J", ToolCall: &writv1.ToolCall{Name: tool, Approved: true}},
				Tool:      tool, Arguments: []byte(`{"amount":{"units":12},"reason":"late"}`), Facts: &writv1.Facts{Time: timestamppb.New(day)},
				Decision: &writv1.Decision{Verdict: verdict, Reason: reason, Checks: []*writv1.Check{
					{Stage: "grant", Name: "agents may refund", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS},
					{Stage: "condition", Name: "small", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL, Reason: reason, Field: "amount.units", Message: "at most 10"},
				}},
				Durability: writv1.Durability_DURABILITY_PROCESS,
			},
		}
	}
	for _, entry := range []ledger.Entry{
		{Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{Version: "1", Origin: l.Origin()}},
		decision(1, "books.refund", "alice", writv1.Verdict_VERDICT_ALLOW, writv1.Reason_REASON_GRANTED),
		{
			Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: "acme", DecisionID: id(1),
			Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, Duration: durationpb.New(3 * time.Millisecond), HttpStatus: 200, Result: []byte(`{"id":"x"}`)},
		},
		decision(2, "books.refund", "bob", writv1.Verdict_VERDICT_DENY, writv1.Reason_REASON_CONDITION_CHECK_FAILED),
		decision(3, "forged  2001-01-31\nx", "eve\u202e", writv1.Verdict_VERDICT_NEEDS_APPROVAL, writv1.Reason_REASON_APPROVAL_REQUIRED),
	} {
		if _, err := l.Append(context.Background(), entry, writv1.Durability_DURABILITY_PROCESS); err != nil {
			return errors.Join(err, l.Close(nil))
		}
	}
	return l.Close(&writv1.EndRecord{})
}

// interrupt is a program for scripts, "interrupt LINES PROGRAM ARGUMENTS...": it runs the
// program until it has printed so many lines, interrupts it, and ends as it does.
func interrupt() {
	lines, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = interruptAfter(lines, os.Args[2], os.Args[3:])
	}
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		os.Exit(max(ended.ExitCode(), 100))
	case err != nil:
		fmt.Fprintln(os.Stderr, "interrupt:", err)
		os.Exit(101)
	}
}

func interruptAfter(lines int, program string, arguments []string) error {
	cmd := exec.Command(program, arguments...) //nolint:gosec // the script's own
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in := bufio.NewScanner(out)
	for n := 0; n < lines && in.Scan(); n++ {
		fmt.Println(in.Text())
	}
	return errors.Join(in.Err(), cmd.Process.Signal(os.Interrupt), cmd.Wait())
}
