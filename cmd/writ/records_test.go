// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// day is when the ledgers of scripts begin; a second passes between two records.
var day = time.Date(2001, 1, 31, 9, 0, 0, 0, time.UTC)

// makeLedger is a program for scripts, "makeledger DIR [STORE]": it adds an epoch of six
// records to the ledger in a directory, and takes all but the last to a store.
func makeLedger() {
	storeDir := ""
	if len(os.Args) > 2 {
		storeDir = os.Args[2]
	}
	if err := writeLedger(context.Background(), os.Args[1], storeDir); err != nil {
		fmt.Fprintln(os.Stderr, "makeledger:", err)
		os.Exit(1)
	}
}

// ship takes what a ledger holds to a store.
func ship(ctx context.Context, l *ledger.Ledger, s *store.Store) error {
	verifier, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		return err
	}
	held, err := s.Holding(ctx, l.Origin())
	if err != nil {
		return err
	}
	in, err := l.Reader(held.Size)
	if err != nil {
		return err
	}
	for held.Size < l.Status().Size {
		b, err := in.Next(ctx, 100, 1<<20)
		if err != nil {
			return err
		}
		accepted, err := stream.NewReceiver(held, verifier).Feed(&writv1.RecordBundle{FirstIndex: b.First, Records: b.Records, Head: b.Head})
		if err != nil {
			return err
		}
		if err := s.Put(ctx, held, accepted, l.VerifierKey()); err != nil {
			return err
		}
		held = accepted.Holding
	}
	return nil
}

// withCollector is a program for scripts, "withcollector STORE SOCKET LINES PROGRAM
// ARGUMENTS...": it does as interrupt while a collector's record service is served over
// a unix socket.
func withCollector() {
	err := serveTo(os.Args[1], os.Args[2], func(*store.Store) error {
		lines, err := strconv.Atoi(os.Args[3])
		if err != nil {
			return err
		}
		return interruptAfter(lines, os.Args[4], os.Args[5:])
	})
	exitAs("withcollector", err)
}

// serveTo serves the records of a store over a unix socket while do runs.
func serveTo(dir, socket string, do func(*store.Store) error) (err error) {
	ctx := context.Background()
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	writv1.RegisterRecordServiceServer(server, query.NewServer(query.Options{Store: s}))
	writv1.RegisterAgentServiceServer(server, query.NewAgentServer(query.AgentsFromStore(s, query.Hearing{}), query.Access{}, nil))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	err = do(s)
	server.Stop()
	return errors.Join(err, <-done)
}

// writeLedger adds an epoch to a ledger, and takes it to the store in a directory, if
// one is named.
func writeLedger(ctx context.Context, dir, storeDir string) (err error) {
	if storeDir == "" {
		return writeAndShip(ctx, dir, nil)
	}
	s, err := store.Open(ctx, storeDir, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return writeAndShip(ctx, dir, s)
}

func writeAndShip(ctx context.Context, dir string, s *store.Store) error {
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
		if _, err := l.Append(ctx, entry, writv1.Durability_DURABILITY_NODE); err != nil {
			return errors.Join(err, l.Close(nil))
		}
	}
	if s != nil {
		if err := ship(ctx, l, s); err != nil {
			return errors.Join(err, l.Close(nil))
		}
	}
	return l.Close(&writv1.EndRecord{})
}

// interrupt is a program for scripts, "interrupt LINES PROGRAM ARGUMENTS...": it runs the
// program until it has printed so many lines, interrupts it, and ends as it does. With 0
// lines it is left to end by itself.
func interrupt() {
	lines, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = interruptAfter(lines, os.Args[2], os.Args[3:])
	}
	exitAs("interrupt", err)
}

// exitAs ends a program as the one that it ran.
func exitAs(name string, err error) {
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		os.Exit(max(ended.ExitCode(), 100))
	case err != nil:
		fmt.Fprintln(os.Stderr, name+":", err)
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
	n := 0
	for ; (lines == 0 || n < lines) && in.Scan(); n++ {
		fmt.Println(in.Text())
	}
	// A program that has said all is ending, and ends as it likes.
	if n == lines && lines > 0 {
		if err = cmd.Process.Signal(os.Interrupt); errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
	}
	return errors.Join(in.Err(), err, cmd.Wait())
}

// printed are the lines that a command prints.
type printed struct{ *bufio.Scanner }

// next returns the next line; the test fails where there is none.
func (p printed) next(t *testing.T) string {
	t.Helper()
	if !p.Scan() {
		t.Fatalf("no more lines: %v", p.Err())
	}
	return p.Text()
}

func TestFollowPrintsWhatIsThereAndThenWhatComes(t *testing.T) {
	t.Parallel()
	for name, arguments := range map[string][]string{
		"a ledger": {"--ledger", "ledger"}, "a store": {"--store", "store"}, "a collector": {"--collector", "socket"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "w") // short, for the socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			ledgerDir, storeDir := filepath.Join(dir, "ledger"), filepath.Join(dir, "store")
			if err := writeLedger(t.Context(), ledgerDir, storeDir); err != nil {
				t.Fatal(err)
			}
			where := filepath.Join(dir, arguments[1])
			write := func() error { return writeLedger(t.Context(), ledgerDir, storeDir) }
			follow := func() error { return followed(t, write, arguments[0], where) }
			if arguments[0] == "--collector" {
				where = "unix:" + where
				err = serveTo(storeDir, filepath.Join(dir, "socket"), func(s *store.Store) error {
					write = func() error { return writeAndShip(t.Context(), ledgerDir, s) }
					return follow()
				})
			} else {
				err = follow()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// followed runs "records tail", writes more once it has printed what was there,
// interrupts it once it has printed that, and returns how it ended.
func followed(t *testing.T, write func() error, arguments ...string) error {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	in, out := io.Pipe()
	root := newRoot()
	root.SetOut(out)
	root.SetArgs(append([]string{"records", "tail", "--limit", "2", "--tool", "books.refund", "--kind", "decision"}, arguments...))
	ended := make(chan error, 1)
	go func() {
		err := root.ExecuteContext(ctx)
		ended <- errors.Join(err, out.CloseWithError(io.EOF))
	}()
	lines := printed{bufio.NewScanner(in)}
	for _, want := range []string{"TIME", "alice 01000000000000000000000000000001", "bob 01000000000000000000000000000002"} {
		if got := strings.Join(strings.Fields(lines.next(t)), " "); !strings.Contains(got, want) {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	if err := write(); err != nil {
		return err
	}
	for _, want := range []string{"alice 02000000000000000000000000000001", "bob 02000000000000000000000000000002"} {
		if got := strings.Join(strings.Fields(lines.next(t)), " "); !strings.Contains(got, want) {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	interrupt()
	if lines.Scan() {
		t.Errorf("printed %q after the end", lines.Text())
	}
	return <-ended
}
