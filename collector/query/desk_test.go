// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// morning is when the first record of a desk is written; a second passes between two.
var morning = time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC)

// desk is a ledger that is written, and a collector's store that gets it.
type desk struct {
	ledger    *ledger.Ledger
	ledgerDir string
	store     *store.Store
	storeDir  string
	held      stream.Holding
	reader    *ledger.Reader
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{ledgerDir: t.TempDir(), storeDir: filepath.Join(t.TempDir(), "store")}
	now := morning.Add(-2 * time.Second) // the ledger looks at the clock when it opens
	var err error
	d.ledger, _, err = ledger.Open(ledger.Options{Dir: d.ledgerDir, Origin: "example.org/agent/desk", Clock: func() time.Time {
		now = now.Add(time.Second)
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.ledger.Close(nil) })
	if d.store, err = store.Open(t.Context(), d.storeDir, store.Options{Clock: func() time.Time { return morning.Add(time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.store.Close() })
	d.held.Origin = d.ledger.Origin()
	if d.reader, err = d.ledger.Reader(0); err != nil {
		t.Fatal(err)
	}
	return d
}

// write adds entries to the ledger, and ships them to the store.
func (d *desk) write(t testing.TB, entries ...ledger.Entry) {
	t.Helper()
	for _, e := range entries {
		if _, err := d.ledger.Append(t.Context(), e, writv1.Durability_DURABILITY_NODE); err != nil {
			t.Fatal(err)
		}
	}
	verifier, err := note.NewVerifier(d.ledger.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	for d.held.Size < d.ledger.Status().Size {
		b, err := d.reader.Next(t.Context(), 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := stream.NewReceiver(d.held, verifier).Feed(&writv1.RecordBundle{FirstIndex: b.First, Records: b.Records, Head: b.Head})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.store.Put(t.Context(), d.held, accepted, d.ledger.VerifierKey()); err != nil {
			t.Fatal(err)
		}
		d.held = accepted.Holding
	}
}

// readers are all readers of a desk, which say the same.
func (d *desk) readers(t testing.TB) map[string]query.Reader {
	t.Helper()
	fromLedger, err := query.FromLedger(d.ledgerDir)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]query.Reader{
		"the store":               query.FromStore(d.store),
		"the store's directory":   query.FromStoreDir(d.storeDir),
		"the collector's service": query.FromService(serve(t, query.NewServer(query.Options{Store: d.store}))),
		"the ledger's directory":  fromLedger,
	}
}

// serve serves a server over gRPC on loopback, until the test ends.
func serve(t testing.TB, s *query.Server, options ...grpc.ServerOption) writv1.RecordServiceClient {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	writv1.RegisterRecordServiceServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-done
	})
	return writv1.NewRecordServiceClient(conn)
}

func id(n byte) []byte { return append(make([]byte, 15), n) }

func decision(n byte, tenant, tool, user, workload string, verdict writv1.Verdict) ledger.Entry {
	return ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: tenant, DecisionID: id(n),
		Body: &writv1.DecisionRecord{
			Tool: tool, Principal: &writv1.Principal{User: user, Workload: workload, Tenant: tenant},
			Decision: &writv1.Decision{Verdict: verdict, Reason: writv1.Reason_REASON_GRANTED},
		},
	}
}

func outcome(n byte, tenant string) ledger.Entry {
	return ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: tenant, DecisionID: id(n),
		Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED},
	}
}

// aDay is what happens at a desk: its filters are tested against it.
func aDay() []ledger.Entry {
	const allow, deny, ask = writv1.Verdict_VERDICT_ALLOW, writv1.Verdict_VERDICT_DENY, writv1.Verdict_VERDICT_NEEDS_APPROVAL
	return []ledger.Entry{
		0:  {Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{Version: "1"}},
		1:  {Kind: writv1.RecordKind_RECORD_KIND_BUNDLE, Body: &writv1.BundleRecord{Name: "desk", Digest: make([]byte, 32)}},
		2:  decision(1, "acme", "books.refund", "alice", "spiffe://w/1", allow),
		3:  decision(2, "acme", "books.refund", "bob", "spiffe://w/1", deny),
		4:  outcome(1, "acme"),
		5:  decision(3, "globex", "mail.send", "", "spiffe://w/2", ask),
		6:  {Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{Received: 3}},
		7:  decision(4, "globex", "mail.send", "alice", "spiffe://w/2", allow),
		8:  outcome(4, "globex"),
		9:  outcome(9, "acme"),                                               // of no decision
		10: decision(1, "acme", "books.read", "carol", "spiffe://w/1", deny), // an id that was used
		11: outcome(1, "acme"),
	}
}

// records lists all records of a filter, a page after the other.
func records(ctx context.Context, t testing.TB, r query.Reader, filter *writv1.RecordFilter, size int32) []*writv1.StoredRecord {
	t.Helper()
	var out []*writv1.StoredRecord
	request := &writv1.ListRecordsRequest{Filter: filter, PageSize: size}
	for range 1000 {
		page, err := r.List(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		if size > 0 && len(page.GetRecords()) > int(size) {
			t.Fatalf("a page has %d records, asked for %d", len(page.GetRecords()), size)
		}
		out = append(out, page.GetRecords()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return out
		}
	}
	t.Fatal("the pages do not end")
	return nil
}

// indexes are the places of records in their ledger.
func indexes(t testing.TB, records []*writv1.StoredRecord) []uint64 {
	t.Helper()
	out := []uint64{}
	for _, stored := range records {
		out = append(out, recordIn(t, stored).GetIndex())
	}
	return out
}
