// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/internal/envoytest"
	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/planner/identity"
	"github.com/writ-dev/writ/planner/toolservice"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// surface is a face with an agent of its own.
type surface struct {
	name  string
	stack *envoytest.Stack
	// client is of the planners' face; nil for Envoy's.
	client writv1.ToolServiceClient
}

// carries says whether the face can say what the row says.
func (s *surface) carries(r row) bool { return s.client == nil || r.change == nil }

// surfaces starts every face. They share the tenants' keys, so that one call has
// one identity.
func surfaces(t *testing.T) []*surface {
	t.Helper()
	keys := t.TempDir()
	var all []*surface
	for _, enforcement := range []writv1.Enforcement{
		writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, writv1.Enforcement_ENFORCEMENT_EXT_PROC, writv1.Enforcement_ENFORCEMENT_BOTH,
	} {
		all = append(all, &surface{name: enforcement.String(), stack: envoytest.Start(t, envoytest.Options{Enforcement: enforcement, Keys: keys})})
	}
	alone := envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, Keys: keys, Alone: true})
	return append(all, &surface{name: "AUTHORIZE", stack: alone, client: planners(t, alone)})
}

// planners serves the planners' face of a stack's agent.
func planners(t *testing.T, stack *envoytest.Stack) writv1.ToolServiceClient {
	t.Helper()
	verifier, err := identity.New(identity.Options{Config: stack.Config.GetIdentity(), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	server, err := toolservice.NewServer(toolservice.Options{
		Agent: stack.Agent, Identity: verifier, Credentials: identity.PeerCredentials(), BodyBytes: envoytest.BodyBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(testenv.Dir(t), "planner.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := server.Drain(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return writv1.NewToolServiceClient(conn)
}

func TestOneTableOneVerdictOneRecord(t *testing.T) {
	t.Parallel()
	if len(rows) < 60 {
		t.Errorf("the table has %d rows", len(rows))
	}
	// The records of each row, by face.
	records := make([]map[string]*writv1.DecisionRecord, len(rows))
	for i := range records {
		records[i] = make(map[string]*writv1.DecisionRecord)
	}
	all := surfaces(t)
	for _, s := range all {
		s.play(t, records)
	}
	for i, r := range rows {
		first := records[i][all[0].name]
		for _, s := range all[1:] {
			if !s.carries(r) {
				continue
			}
			if diff := cmp.Diff(first, records[i][s.name], protocmp.Transform()); diff != "" {
				t.Errorf("%s: the records differ (-%s +%s):\n%s", r.name, all[0].name, s.name, diff)
			}
		}
	}
}

// play sends every row that the face carries, and adds what it recorded of each.
func (s *surface) play(t *testing.T, records []map[string]*writv1.DecisionRecord) {
	t.Helper()
	var sent []int
	effects := 0
	for i, r := range rows {
		if !s.carries(r) {
			continue
		}
		s.send(t, r)
		sent = append(sent, i)
		if r.want == allow {
			effects++
		}
	}
	made := s.stack.Decisions(len(sent))
	if len(made) != len(sent) {
		t.Fatalf("%s: %d decisions for %d calls", s.name, len(made), len(sent))
	}
	for i, decision := range made {
		r := rows[sent[i]]
		if got := strings.TrimPrefix(decision.Record.GetDecision().GetReason().String(), "REASON_"); got != r.want {
			t.Errorf("%s, %s: %s, want %s", r.name, s.name, got, r.want)
		}
		records[sent[i]][s.name] = content(decision.Record)
	}
	if reached := len(s.stack.Payments.Seen()) + len(s.stack.Files.Seen()); s.client == nil && reached != effects {
		t.Errorf("%s: %d requests reached the upstreams, want %d", s.name, reached, effects)
	}
}

// content is what a record holds of the call and the decision, whatever face it
// came by: not the face, the time, the upstream, or the bytes that came in. Of a
// call that was refused unread there are the verdict, the reason and who asked.
func content(record *writv1.DecisionRecord) *writv1.DecisionRecord {
	kept := proto.CloneOf(record)
	kept.Surface, kept.Upstream, kept.InputDigest, kept.TraceParent, kept.EarlierDecisionId = 0, "", nil, "", nil
	if kept.GetFacts() != nil {
		kept.Facts.Time, kept.Facts.Pin = nil, nil
	}
	if kept.GetApproval() != nil {
		kept.Approval.ExpireTime = nil
	}
	if record.GetIdentity() != nil {
		return kept
	}
	return &writv1.DecisionRecord{
		Principal: kept.GetPrincipal(),
		Decision:  &writv1.Decision{Verdict: kept.GetDecision().GetVerdict(), Reason: kept.GetDecision().GetReason()},
	}
}

func (s *surface) send(t *testing.T, r row) {
	t.Helper()
	if r.tenant == "" {
		r.tenant = "acme"
	}
	switch {
	case s.client != nil:
		s.authorize(t, r)
	case r.tool == read:
		s.stack.Do(s.prepare(r, s.stack.Request("files", http.MethodPost, "/mcp", message(t, r))))
	case r.tool == look:
		var args struct{ Payment string }
		if err := json.Unmarshal([]byte(r.args), &args); err != nil {
			t.Fatal(err)
		}
		s.stack.Do(s.prepare(r, s.stack.Request("payments", http.MethodGet, "/v1/tenants/"+r.tenant+"/payments/"+args.Payment, "")))
	default:
		request := s.stack.Request("payments", http.MethodPost, "/v1/tenants/"+r.tenant+"/refunds", r.args)
		if r.claims != "" {
			request.Header.Set("x-writ-envelope", r.claims)
		}
		s.stack.Do(s.prepare(r, request))
	}
}

// prepare gives a request the row's token, key and change.
func (s *surface) prepare(r row, request *http.Request) *http.Request {
	request.Header.Del("authorization")
	if token := s.token(r); token != "" {
		request.Header.Set("authorization", "Bearer "+token)
	}
	if r.key != "" {
		request.Header.Set("idempotency-key", r.key)
	}
	if r.change != nil {
		r.change(request)
	}
	return request
}

func (s *surface) token(r row) string {
	if r.token == nil {
		return s.stack.Issuer.Token("ann", "acme", "agent")
	}
	return r.token(s.stack.Issuer)
}

// message is the row as a tools/call.
func message(t *testing.T, r row) string {
	t.Helper()
	meta := "{}"
	if r.claims != "" {
		meta = fmt.Sprintf(`{"dev.writ/envelope":%s}`, r.claims)
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":%s,"_meta":%s}}`, r.args, meta)
}

// authorize sends the row to the planners' face.
func (s *surface) authorize(t *testing.T, r row) {
	t.Helper()
	envelope := &writv1.Envelope{}
	if r.claims != "" {
		claimed, err := bundles.ReadEnvelope([]byte(r.claims))
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		envelope = claimed
	}
	if envelope.ToolCall == nil {
		envelope.ToolCall = &writv1.ToolCall{}
	}
	envelope.ToolCall.Name, envelope.ToolCall.Args = r.tool, &writv1.Json{Text: []byte(s.arguments(r))}
	ctx := t.Context()
	if token := s.token(r); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if _, err := s.client.Authorize(ctx, &writv1.AuthorizeRequest{Envelope: envelope, IdempotencyKey: r.key}); err != nil {
		t.Errorf("%s: Authorize: %v", r.name, err)
	}
}

// arguments are the row's with the tenant among them, where the tool has one.
func (s *surface) arguments(r row) string {
	text := strings.TrimLeft(r.args, " ")
	if r.tool == read || !strings.HasPrefix(text, "{") {
		return r.args
	}
	return fmt.Sprintf(`{"tenant":%q,%s`, r.tenant, text[1:])
}
