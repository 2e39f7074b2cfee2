// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// office is a running agent of the page's bundle, with who may approve.
type office struct {
	t      testing.TB
	dir    string
	socket string
	conn   *grpc.ClientConn
	// said is what the agent writes to its standard error.
	said lockedText
}

// log is what the agent has logged so far.
func (o *office) log() string { return o.said.String() }

// lockedText is a text that several goroutines write.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func openOffice(t testing.TB) *office {
	t.Helper()
	return openPage(t, "approvals.md", "spiffe://example.org/planner", "")
}

// openPage runs an agent of a page's bundle, for which the test is a workload, with more
// in its configuration.
func openPage(t testing.TB, page, workload, more string) *office {
	t.Helper()
	return openAt(t, page, place{workload: workload, more: more})
}

// place is where an agent listens for planners, and what else its configuration says.
type place struct {
	// address and listener are the planners' listener, a unix socket where they are
	// empty; in listener %[1]s is the agent's directory.
	address, listener string
	credentials       credentials.TransportCredentials
	// workload is who the test is on a unix socket.
	workload, more string
}

func openAt(t testing.TB, page string, at place) *office {
	t.Helper()
	// A socket's path is short.
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := &office{t: t, dir: dir, socket: "unix:" + filepath.Join(dir, "p")}
	if at.address == "" {
		at.listener, at.credentials = "{envoy: \"unix:%[1]s/e\", planner: \"unix:%[1]s/p\"}", insecure.NewCredentials()
	} else {
		o.socket, at.workload = at.address, "spiffe://example.org/planner"
	}
	writePage(t, page, filepath.Join(dir, "bundle"))
	// Nothing can be sealed to eva.
	eva, _, _ := strings.Cut(o.key("eva"), ", seal_key")
	config := fmt.Sprintf(`data_dir: %[1]s/data
bundle_dir: %[1]s/bundle
listeners: `+at.listener+`
identity: {workloads: [{spiffe_id: %[6]q, uid: %[2]d, tenant: acme, roles: [clerk]}]}
approvers:
  - {tenant: acme, roles: [treasurer], %[3]s}
  - {tenant: acme, roles: [director, reviewer], %[4]s}
  - {tenant: other, roles: [treasurer], %[5]s}
  - {tenant: acme, roles: [approver], %[7]s}
  - {tenant: acme, roles: [treasurer], %[8]s}
`, dir, os.Getuid(), o.key("bob"), o.key("kim"), o.key("oz"), at.workload, o.key("ada"), eva) + at.more
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		root := newRoot()
		root.SetArgs([]string{"agent", "--config", file})
		root.SetErr(&o.said)
		ended <- root.ExecuteContext(ctx)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if o.conn, err = grpc.NewClient(o.socket, grpc.WithTransportCredentials(at.credentials)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.conn.Close() })
	_, err = grpc_health_v1.NewHealthClient(o.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// key makes an approver's key, and returns the public ones as they stand in the agent's
// configuration.
func (o *office) key(user string) string {
	printed := standardOutput(o.t, "approvals", "key", user, filepath.Join(o.dir, user))
	return strings.ReplaceAll(strings.TrimSpace(printed), "\n", ", ")
}

// pay asks for a payout.
func (o *office) pay(args string) *writv1.AuthorizeResponse {
	o.t.Helper()
	response, err := writv1.NewToolServiceClient(o.conn).Authorize(o.t.Context(), &writv1.AuthorizeRequest{
		Envelope: &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "payouts.pay", Args: &writv1.Json{Text: []byte(args)}}},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return response
}

// as runs a command as an approver.
func (o *office) as(user, command string, args ...string) string {
	o.t.Helper()
	return standardOutput(o.t, append([]string{"approvals", command, "--agent", o.socket, "--key", filepath.Join(o.dir, user)}, args...)...)
}

// fails runs a command that must fail, and returns why.
func (o *office) fails(user, command string, args ...string) string {
	o.t.Helper()
	root := newRoot()
	root.SetArgs(append([]string{"approvals", command, "--agent", o.socket, "--key", filepath.Join(o.dir, user)}, args...))
	root.SetOut(&strings.Builder{})
	root.SetErr(&strings.Builder{})
	root.SetIn(strings.NewReader("no\n"))
	err := root.ExecuteContext(o.t.Context())
	if err == nil {
		o.t.Fatalf("%s of %s succeeds", command, user)
	}
	return err.Error()
}

func TestACallThatAnApproverApprovesRunsOnce(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	large := "{\"payee\":\"Stadtwerke\u202e\",\"cents\":420000}"
	asked := o.pay(large)
	if asked.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_NEEDS_APPROVAL {
		t.Fatalf("the verdict is %v", asked.GetDecision())
	}
	id := asked.GetApprovalId()
	if list := o.as("bob", "list"); !strings.Contains(list, id) || !strings.Contains(list, "payouts.pay") || !strings.Contains(list, "0/1") {
		t.Errorf("list:\n%s", list)
	}
	show := o.as("bob", "show", id[:6])
	for _, want := range []string{"APPROVAL " + id, `"cents": 420000`, `Stadtwerke\u202e`, "high", "spiffe://example.org/planner", "approval/large_payouts", "cents of 1 to 420000, all else as it is"} {
		if !strings.Contains(show, want) {
			t.Errorf("show does not say %q:\n%s", want, show)
		}
	}
	if list := o.as("kim", "list"); strings.Contains(list, id) {
		t.Errorf("an approver of another role sees it:\n%s", list)
	}
	if got := o.fails("oz", "approve", "--yes", id); !strings.Contains(got, "may see") {
		t.Errorf("another tenant's approver: %s", got)
	}
	if got := o.fails("bob", "approve", id); !strings.Contains(got, "nothing was voted") {
		t.Errorf("who does not confirm: %s", got)
	}
	if voted := o.as("bob", "approve", "--yes", id); !strings.Contains(voted, "approved") {
		t.Errorf("approve:\n%s", voted)
	}
	if got := o.fails("bob", "approve", "--yes", id); !strings.Contains(got, "said so before") {
		t.Errorf("a second vote: %s", got)
	}
	if again := o.pay(large); again.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		t.Errorf("the retry: %v", again.GetDecision())
	}
	if third := o.pay(large); third.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_NEEDS_APPROVAL || third.GetApprovalId() == id {
		t.Errorf("a third: %v", third)
	}
	var one struct {
		Approval struct {
			State   string `json:"state"`
			Similar struct {
				Approval string `json:"approval_id"`
			} `json:"similar"`
		} `json:"approval"`
		Arguments map[string]any `json:"arguments"`
	}
	if err := json.Unmarshal([]byte(o.as("bob", "show", "-o", "json", id)), &one); err != nil || one.Approval.State != "APPROVAL_STATE_CONSUMED" || one.Arguments["cents"] != 420000.0 {
		t.Errorf("JSON: %+v, %v", one, err)
	}
}

func TestAPlannerWatchesWhatItAskedFor(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	id := o.pay(`{"payee":"Stadtwerke","cents":20000000}`).GetApprovalId()
	stream, err := writv1.NewApprovalServiceClient(o.conn).WatchApprovals(t.Context(), &writv1.WatchApprovalsRequest{ApprovalId: id})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want writv1.ApprovalState, votes int) {
		t.Helper()
		response, err := stream.Recv()
		if err != nil || response.GetApproval().GetState() != want || len(response.GetApproval().GetVotes()) != votes {
			t.Fatalf("%v, %v, want %s and %d votes", response, err, want, votes)
		}
	}
	next(writv1.ApprovalState_APPROVAL_STATE_PENDING, 0)
	o.as("bob", "approve", "--yes", id)
	next(writv1.ApprovalState_APPROVAL_STATE_PENDING, 1)
	o.as("kim", "approve", "--yes", id)
	next(writv1.ApprovalState_APPROVAL_STATE_APPROVED, 2)
	o.as("kim", "deny", "--yes", id)
	next(writv1.ApprovalState_APPROVAL_STATE_DENIED, 3)
	if response, err := stream.Recv(); err == nil {
		t.Errorf("the watch goes on: %v", response)
	}
	if got := o.pay(`{"payee":"Stadtwerke","cents":20000000}`).GetDecision(); got.GetReason() != writv1.Reason_REASON_APPROVAL_DENIED {
		t.Errorf("the retry: %v", got)
	}
	none, err := writv1.NewApprovalServiceClient(o.conn).WatchApprovals(t.Context(), &writv1.WatchApprovalsRequest{ApprovalId: strings.Repeat("0", 32)})
	if err == nil {
		_, err = none.Recv()
	}
	if status.Code(err) != codes.NotFound {
		t.Errorf("watching what is not there: %v", err)
	}
}
