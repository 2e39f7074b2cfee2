// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/reads"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// connect connects to the collector.
func (p *place) connect(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+p.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// words are what records of two tenants say, none of which may be told without a record.
var words = []string{"acme", "globex", "ada", "eve", "payments.refund", "spiffe://example.org/w", "r-1", "too_much"}

func decided(t *testing.T, l *ledger.Ledger, n byte, tenant, user string) {
	t.Helper()
	entry := ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: tenant, DecisionID: append(make([]byte, 15), n),
		Body: &writv1.DecisionRecord{
			Tool: "payments.refund", Principal: &writv1.Principal{User: user, Tenant: tenant, Workload: "spiffe://example.org/w"}, Envelope: &writv1.Envelope{RequestId: "r-1"},
			Decision: &writv1.Decision{Verdict: writv1.Verdict_VERDICT_DENY, Checks: []*writv1.Check{{Name: "too_much", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL}}},
		},
	}
	if _, err := l.Append(t.Context(), entry, writv1.Durability_DURABILITY_REMOTE); err != nil {
		t.Fatal(err)
	}
}

func TestMetricsAlarmsAndAgentsTellNothingOfATenant(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", true)
	defer func() { _ = l.Close(nil) }()
	collecting := p.collect(t)
	defer collecting()
	sending, _ := p.send(t, l)
	decided(t, l, 1, "acme", "ada")
	if err := os.CopyFS(filepath.Join(p.dir, "copy"), os.DirFS(filepath.Join(p.dir, "agent"))); err != nil {
		t.Fatal(err)
	}
	decided(t, l, 2, "globex", "eve")
	sending()
	copied := p.agent(t, "copy", false) // a rollback, which is an alarm
	sending, problems := p.send(t, copied)
	<-problems
	sending()
	_ = copied.Close(nil)
	alarm := p.await(t)
	told := alarm.Kind + alarm.Origin + alarm.Detail + string(alarm.Head) + string(alarm.HeldRoot)
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		told += family.String()
	}
	conn := p.connect(t)
	agents, err := writv1.NewAgentServiceClient(conn).ListAgents(t.Context(), &writv1.ListAgentsRequest{})
	if err != nil || len(agents.GetAgents()) != 1 {
		t.Fatalf("agents are %v, %v", agents, err)
	}
	shown, err := writv1.NewAgentServiceClient(conn).GetAgent(t.Context(), &writv1.GetAgentRequest{Origin: l.Origin()})
	if err != nil || len(shown.GetFindings()) != 1 {
		t.Fatalf("the agent is %v, %v", shown, err)
	}
	told += agents.String() + shown.String()
	for _, word := range words {
		if strings.Contains(told, word) {
			t.Errorf("%q is told", word)
		}
	}
	if !strings.Contains(told, "writ_collector_records_total") || alarm.Kind != "rollback" {
		t.Errorf("nothing was told: %s", told)
	}
}

func TestWhatIsReadIsRecordedInALedgerOfTheCollectorsOwn(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	collecting := p.collect(t)
	client := writv1.NewRecordServiceClient(p.connect(t))
	if _, err := client.ListRecords(t.Context(), &writv1.ListRecordsRequest{Filter: &writv1.RecordFilter{Tool: "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetRecord(t.Context(), &writv1.GetRecordRequest{DecisionId: strings.Repeat("0", 32)}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := client.WatchRecords(ctx, &writv1.WatchRecordsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	cancel()
	collecting()
	dir := filepath.Join(p.config.GetDataDir(), reads.DirName)
	text, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	report, err := ledger.Verify(dir, key)
	if err != nil || report.Fault != nil || !report.Ended || report.Size != 5 {
		t.Fatalf("Verify = %+v, %v, want a start, three reads and an end", report, err)
	}
	var got []string
	if err := ledger.NewDirReader(dir, key).Read(func(_ uint64, raw []byte) error {
		r, read := &writv1.Record{}, &writv1.ReadRecord{}
		if err := canonical.Unmarshal(raw, r); err != nil || r.GetKind() != writv1.RecordKind_RECORD_KIND_READ {
			return err
		}
		err := canonical.Unmarshal(r.GetBody(), read)
		got = append(got, read.GetReader()+" "+strings.Join(read.GetTenants(), ",")+" "+read.GetMethod()+" "+read.GetRequest())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := ` * /writ.v1.RecordService/ListRecords {"filter":{"tool":"x"}}` + "\n" +
		` * /writ.v1.RecordService/GetRecord {"decision_id":"00000000000000000000000000000000"}` + "\n" +
		` * /writ.v1.RecordService/WatchRecords {}`
	if strings.Join(got, "\n") != want {
		t.Errorf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
}
