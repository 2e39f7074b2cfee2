// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

// till is a bundle whose calls may each be made once: in a run of a workflow, in a
// session, and by an approval.
var till = map[string]string{
	"bundle.yaml": "name: till\n",
	"protos/till.proto": `syntax = "proto3";
package till.v1;
import "buf/validate/validate.proto";
import "writ/v1/options.proto";
service Till {
  rpc Pay(PayRequest) returns (PayResponse) { option (writ.v1.tool) = {name: "till.pay" risk: RISK_HIGH effect: TOOL_EFFECT_WRITE}; }
  rpc Mark(PayRequest) returns (PayResponse) { option (writ.v1.tool) = {name: "till.mark" risk: RISK_LOW effect: TOOL_EFFECT_WRITE}; }
  rpc Open(PayRequest) returns (PayResponse) { option (writ.v1.tool) = {name: "till.open" risk: RISK_HIGH effect: TOOL_EFFECT_WRITE}; }
}
message PayRequest { string order = 1 [(buf.validate.field).string.max_len = 64]; }
message PayResponse {}
`,
	"grants/all.yaml": "grants:\n  - {name: all, effect: GRANT_EFFECT_ALLOW, principals: {roles: [clerk]}, tools: [\"*\"]}\n",
	"contracts/sale.yaml": `contracts:
  - name: sale
    intents: [{name: sell, principals: {roles: [clerk]}}]
    tools: [{tool: till.pay, at_most: 1}, {tool: till.mark}, {tool: till.open}]
    success: run.called("till.pay").any()
`,
	"checks/once.yaml": `checks:
  - name: marked_once
    tools: [till.mark]
    expression: '!session.called("till.mark").with({"args.order": args.order})'
    on_failure: ON_FAILURE_DENY
    message: it was marked before
`,
	"approvals/open.yaml": "approvals:\n  - {name: open, tools: [till.open], condition: \"true\", roles: [boss]}\n",
}

// shop is an agent of the till's bundle that is killed, with a boss who approves.
type shop struct {
	t      *testing.T
	dir    string
	agent  *process
	boss   *approvals.Key
	config string
}

// openShop writes the files of a shop with a bundle.
func openShop(t *testing.T, bundle map[string]string) *shop {
	t.Helper()
	s := &shop{t: t, dir: testenv.Dir(t)}
	private, public, err := note.GenerateKey(rand.Reader, "boss")
	if err != nil {
		t.Fatal(err)
	}
	if s.boss, err = approvals.ParseKey(private); err != nil {
		t.Fatal(err)
	}
	for name, text := range bundle {
		s.write("bundle/"+name, text)
	}
	s.config = s.write("agent.yaml", fmt.Sprintf(`data_dir: %[1]s/data
bundle_dir: %[1]s/bundle
listeners: {envoy: "unix:%[1]s/e", planner: "unix:%[1]s/p"}
identity: {workloads: [{spiffe_id: "spiffe://example.org/planner", uid: %[2]d, tenant: acme, roles: [clerk]}]}
approvers: [{tenant: acme, roles: [boss], public_key: %[3]q}]
`, s.dir, os.Getuid(), public))
	return s
}

func (s *shop) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// start starts the agent, and returns a connection once it serves.
func (s *shop) start() *grpc.ClientConn {
	s.t.Helper()
	s.agent = start(s.t, "agent", program(s.t, agentPlain), "agent", "--config", s.config)
	return s.connect()
}

// connect returns a connection to the agent once it serves.
func (s *shop) connect() *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(s.dir, "p"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent.await(s.t, func() bool {
		_, err := grpc_health_v1.NewHealthClient(conn).Check(s.t.Context(), &grpc_health_v1.HealthCheckRequest{})
		return err == nil
	})
	return conn
}

// sale is a session with a run, as its planner remembers it.
type sale struct {
	token   string
	inRun   bool
	ordered string
}

// planner makes the same calls again and again, in as many sessions as it gets.
type planner struct {
	shop  *shop
	name  string
	sales []*sale
}

// work begins a sale and makes each of its calls several times at once, and again those
// of a sale before it, until the agent is gone.
func (p *planner) work(ctx context.Context, conn *grpc.ClientConn) {
	for ctx.Err() == nil {
		opened, err := writv1.NewToolServiceClient(conn).BeginSession(ctx, &writv1.BeginSessionRequest{})
		if err != nil {
			return
		}
		p.sales = append(p.sales, &sale{token: opened.GetToken(), ordered: fmt.Sprintf("%s-%d", p.name, len(p.sales))})
		p.make(ctx, conn, p.sales[len(p.sales)-1])
		p.make(ctx, conn, p.sales[mathrand.IntN(len(p.sales))])
	}
}

func (p *planner) make(ctx context.Context, conn *grpc.ClientConn, s *sale) {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-writ-session", s.token)
	if !s.inRun {
		_, err := writv1.NewWorkflowServiceClient(conn).BeginWorkflow(ctx, &writv1.BeginWorkflowRequest{Workflow: "sale"})
		s.inRun = err == nil
	}
	var wait sync.WaitGroup
	for _, tool := range []string{"till.pay", "till.mark", "till.open", "till.pay", "till.mark", "till.open"} {
		wait.Go(func() {
			asked := p.call(ctx, conn, tool, s.ordered)
			if id := asked.GetApprovalId(); id != "" {
				p.shop.approve(ctx, conn, id)
				var again sync.WaitGroup
				for range 3 {
					again.Go(func() { p.call(ctx, conn, tool, s.ordered) })
				}
				again.Wait()
			}
		})
	}
	wait.Wait()
}

func (p *planner) call(ctx context.Context, conn *grpc.ClientConn, tool, order string) *writv1.AuthorizeResponse {
	// An agent that is gone answers nothing: what it decided is in its ledger.
	response, _ := writv1.NewToolServiceClient(conn).Authorize(ctx, &writv1.AuthorizeRequest{Envelope: &writv1.Envelope{
		ToolCall: &writv1.ToolCall{Name: tool, Args: &writv1.Json{Text: fmt.Appendf(nil, `{"order":%q}`, order)}},
	}})
	return response
}

// approve has the boss approve a call, if the agent is there.
func (s *shop) approve(ctx context.Context, conn *grpc.ClientConn, id string) {
	credential, err := s.boss.Credential(&writv1.ApproverCredential{Time: timestamppb.New(time.Now())})
	if err != nil {
		s.t.Error(err)
		return
	}
	text, err := proto.Marshal(credential)
	if err != nil {
		s.t.Error(err)
		return
	}
	client := writv1.NewApprovalServiceClient(conn)
	found, err := client.GetApproval(metadata.AppendToOutgoingContext(ctx, "x-writ-approver-bin", string(text)), &writv1.GetApprovalRequest{ApprovalId: id})
	if err != nil {
		return
	}
	vote, err := s.boss.Vote(found.GetApproval().GetSubject(), writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE)
	if err != nil {
		s.t.Error(err)
		return
	}
	// A vote that is not taken is one that another call has given.
	_, _ = client.Vote(ctx, &writv1.VoteRequest{Vote: vote})
}

func TestWhatMayBeOnceIsOnceAfterKill9(t *testing.T) {
	t.Parallel()
	const workers = 4
	kills := killsOr(t, 2)
	s := openShop(t, till)
	planners := make([]*planner, workers)
	for i := range planners {
		planners[i] = &planner{shop: s, name: fmt.Sprintf("p%d", i)}
	}
	for range kills {
		conn := s.start()
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for _, p := range planners {
			wait.Go(func() { p.work(ctx, conn) })
		}
		<-time.After(minUp + mathrand.N(maxUp-minUp))
		s.agent.kill(t)
		stop()
		wait.Wait()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	// Every sale is tried once more, by an agent that nobody kills.
	conn := s.start()
	sales := 0
	var wait sync.WaitGroup
	for _, p := range planners {
		sales += len(p.sales)
		wait.Go(func() {
			for _, sale := range p.sales {
				p.make(t.Context(), conn, sale)
			}
		})
	}
	wait.Wait()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	s.agent.stop(t)
	s.judge(sales)
}

// judge counts what the ledger says was allowed: of each sale one payment and one mark, and
// one opening by each approval. A payment that every try of was denied was lost.
func (s *shop) judge(sales int) {
	s.t.Helper()
	ledger := newAccount(filepath.Join(s.dir, "data", "ledger"))
	ledger.update(s.t)
	allowed, used := make(map[string]int), make(map[string]int)
	for _, d := range ledger.decisions {
		if !d.allows() || d.withdrawn() {
			continue
		}
		allowed[d.record.GetTool()+" "+hex.EncodeToString(d.record.GetSession())]++
		for _, effect := range d.record.GetDecision().GetEffects() {
			if id := effect.GetConsume().GetId(); id != "" {
				used[id]++
			}
		}
	}
	paid := 0
	for what, times := range allowed {
		if strings.HasPrefix(what, "till.pay ") {
			paid++
		}
		if times > 1 && !strings.HasPrefix(what, "till.open ") {
			s.t.Errorf("%s: allowed %d times", what, times)
		}
	}
	for id, times := range used {
		if times > 1 {
			s.t.Errorf("the approval %s was used %d times", id, times)
		}
	}
	s.t.Logf("%d sales, %d of them paid, %d approvals used, %d decisions in %d epochs", sales, paid, len(used), len(ledger.decisions), ledger.epochs)
	if paid != sales || len(used) == 0 || sales < 10 {
		s.t.Errorf("%d sales, %d of them paid, %d approvals used", sales, paid, len(used))
	}
}
