// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/planner/identity"
	"github.com/writ-dev/writ/planner/toolservice"
	"github.com/writ-dev/writ/proto/canonical"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// bodyBytes is the limit on arguments on the stage.
const bodyBytes = 1000

var bundleFiles = map[string]string{
	"bundle.yaml": "name: stage\n",
	"protos/stage.proto": `syntax = "proto3";
package stage.v1;

import "buf/validate/validate.proto";
import "writ/v1/options.proto";

service Stage {
  // Say something.
  rpc Say(SayRequest) returns (SayResponse) {
    option (writ.v1.tool) = {name: "stage.say" risk: RISK_LOW effect: TOOL_EFFECT_WRITE command: {path: "/bin/true"}};
  }
  // Look at something.
  rpc Look(SayRequest) returns (SayResponse) {
    option (writ.v1.tool) = {name: "stage.look" risk: RISK_LOW effect: TOOL_EFFECT_READ};
  }
  // Nobody may do this.
  rpc Hide(SayRequest) returns (SayResponse) {
    option (writ.v1.tool) = {name: "stage.hide" risk: RISK_HIGH effect: TOOL_EFFECT_WRITE command: {path: "/bin/true"}};
  }
}

message SayRequest {
  string text = 1 [(buf.validate.field).string.max_len = 100000];
}
message SayResponse {
  string text = 1;
}
`,
	"grants/all.yaml": `grants:
  - name: actors
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [actor]}
    tools: [stage.say, stage.look]
`,
	"checks/all.yaml": `checks:
  - name: no_shouting
    tools: [stage.say]
    expression: args.text != "loud"
    on_failure: ON_FAILURE_DENY
    message: not so loud
  - name: whisper_first
    tools: [stage.say]
    expression: args.text != "ask"
    on_failure: ON_FAILURE_NEEDS_APPROVAL
    message: a human must hear it first
`,
	"catalogue.yaml": "upstreams: []\n",
}

// troupe knows everybody by the name in the authorization header.
type troupe struct{}

func (troupe) Principal(_ credentials.AuthInfo, authorization []string) (*writv1.Principal, *reasons.Error) {
	switch name := strings.Join(authorization, ","); name {
	case "":
		return nil, reasons.New(writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "", "no verified source names a workload or a user")
	case "forged":
		return nil, reasons.New(writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID, "", "the token does not verify")
	case "panic":
		panic("the troupe is on strike")
	case "guest":
		return &writv1.Principal{User: "guest"}, nil
	default:
		return &writv1.Principal{User: name, Tenant: "acme", Roles: []string{"actor"}}, nil
	}
}

// play is the executor: what happens to a text is up to the test.
type play func(context.Context, tools.Execution) (*tools.Result, error)

// Execute plays.
func (p play) Execute(ctx context.Context, x tools.Execution) (*tools.Result, error) {
	return p(ctx, x)
}

// echo answers with what it was asked to say.
func echo(_ context.Context, x tools.Execution) (*tools.Result, error) {
	return &tools.Result{JSON: x.JSON}, nil
}

// stage is an agent with the face before it, and a client.
type stage struct {
	t      testing.TB
	agent  *agent.Agent
	ledger *ledger.Ledger
	server *toolservice.Server
	socket string
	conn   *grpc.ClientConn
	client writv1.ToolServiceClient
	served chan error
}

func newStage(t testing.TB, executor play) *stage {
	t.Helper()
	return newStageFor(t, executor, troupe{})
}

func newStageFor(t testing.TB, executor play, who toolservice.Identifier) *stage {
	t.Helper()
	return newStageOf(t, bundleFiles, executor, who)
}

func newStageOf(t testing.TB, files map[string]string, executor play, who toolservice.Identifier) *stage {
	t.Helper()
	s := &stage{t: t, served: make(chan error, 1)}
	s.startAgent(files, executor)
	var err error
	s.server, err = toolservice.NewServer(toolservice.Options{
		Agent: s.agent, Identity: who, Credentials: identity.PeerCredentials(), BodyBytes: bodyBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.served <- s.server.Serve(listener) }()
	s.conn, err = grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.client = writv1.NewToolServiceClient(s.conn)
	t.Cleanup(s.stop)
	return s
}

func (s *stage) stop() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.server.Drain(over) // the calls of the test are over, or given up
	if err := errors.Join(s.conn.Close(), <-s.served, s.agent.Close(context.Background()), s.ledger.Close(nil)); err != nil {
		s.t.Errorf("stop: %v", err)
	}
}

func (s *stage) startAgent(files map[string]string, executor play) {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "bundle", filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			s.t.Fatal(err)
		}
	}
	bundle, err := bundles.LoadDir(s.t.Context(), filepath.Join(dir, "bundle"), bundles.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	state := agent.NewState(10_000)
	s.ledger, _, err = ledger.Open(ledger.Options{Dir: filepath.Join(dir, "ledger"), Origin: "stage", OnRecord: state.Fold})
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := agent.OpenKeys(filepath.Join(dir, "keys"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent, err = agent.New(s.t.Context(), agent.Options{
		Bundle: bundle, Ledger: s.ledger, State: state, Keys: keys, Command: executor,
		Clock: time.Now, Random: rand.Reader,
		Limits: agent.Limits{JSON: schemas.Limits{Bytes: bodyBytes}},
		Floor:  writv1.Durability_DURABILITY_PROCESS, WriteDurability: writv1.Durability_DURABILITY_PROCESS,
		Start: &writv1.StartRecord{Version: "stage", Origin: s.ledger.Origin()},
		Log:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// as returns a context in which requests are somebody's.
func (s *stage) as(name string) context.Context {
	if name == "" {
		return s.t.Context()
	}
	return metadata.AppendToOutgoingContext(s.t.Context(), "authorization", name)
}

// say is the envelope of a call of stage.say.
func say(text string) *writv1.Envelope {
	return &writv1.Envelope{
		RequestId: "r-1",
		ToolCall:  &writv1.ToolCall{Name: "stage.say", Args: &writv1.Json{Text: []byte(`{"text":"` + text + `"}`)}},
	}
}

// recorded is a decision as it was recorded, with how the call ended.
type recorded struct {
	id       string
	decision *writv1.DecisionRecord
	outcomes []*writv1.OutcomeRecord
}

// records waits until so many decisions and outcomes are recorded, and returns
// all there are.
func (s *stage) records(decisions, outcomes int) []*recorded {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	reader, err := s.ledger.Reader(0)
	if err != nil {
		s.t.Fatal(err)
	}
	r := &reading{byID: make(map[string]*recorded)}
	for len(r.all) < decisions || r.outcomes < outcomes {
		bundle, err := reader.Next(ctx, 1000, 1<<20)
		if err != nil {
			s.t.Fatalf("%d decisions and %d outcomes recorded, want %d and %d: %v", len(r.all), r.outcomes, decisions, outcomes, err)
		}
		for _, data := range bundle.Records {
			if err := r.add(data); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	if len(r.all) != decisions {
		s.t.Errorf("%d decisions recorded, want %d", len(r.all), decisions)
	}
	return r.all
}

// reading is what was read of the ledger so far.
type reading struct {
	all      []*recorded
	byID     map[string]*recorded
	outcomes int
}

func (r *reading) add(data []byte) error {
	var record writv1.Record
	if err := canonical.Unmarshal(data, &record); err != nil {
		return err
	}
	id := hex.EncodeToString(record.GetDecisionId())
	switch record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		r.byID[id] = &recorded{id: id, decision: &writv1.DecisionRecord{}}
		r.all = append(r.all, r.byID[id])
		return canonical.Unmarshal(record.GetBody(), r.byID[id].decision)
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		outcome := &writv1.OutcomeRecord{}
		r.outcomes++
		r.byID[id].outcomes = append(r.byID[id].outcomes, outcome)
		return canonical.Unmarshal(record.GetBody(), outcome)
	}
	return nil
}

// gate holds an executor until it is opened.
type gate struct {
	entered chan struct{} // closed when the executor is there
	opened  chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{entered: make(chan struct{}), opened: make(chan struct{})} }

func (g *gate) play(ctx context.Context, x tools.Execution) (*tools.Result, error) {
	g.once.Do(func() { close(g.entered) })
	select {
	case <-g.opened:
	case <-ctx.Done():
		return nil, tools.ErrTimeout
	}
	return echo(ctx, x)
}
