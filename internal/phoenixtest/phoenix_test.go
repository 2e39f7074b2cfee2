// SPDX-License-Identifier: Apache-2.0

//go:build phoenix

package phoenixtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// patience bounds every wait: Phoenix takes its time to start.
const patience = 3 * time.Minute

// launch starts Phoenix with its gRPC port, for which it knows no host, on loopback.
const launch = `
import sys, grpc.aio
add = grpc.aio.Server.add_insecure_port
grpc.aio.Server.add_insecure_port = lambda self, address: add(self, address.replace("[::]", "127.0.0.1"))
from phoenix.server.main import main
sys.argv = ["phoenix", "serve"]
main()
`

// bundle has a tool that is run and one that nobody may call.
var bundle = map[string]string{
	"bundle.yaml": "name: echoes\n",
	"protos/echo.proto": `syntax = "proto3";
package echo.v1;

import "buf/validate/validate.proto";
import "writ/v1/options.proto";

service Echo {
  // Say something.
  rpc Say(SayRequest) returns (SayResponse) {
    option (writ.v1.tool) = {name: "echo.say" risk: RISK_LOW effect: TOOL_EFFECT_READ command: {path: "echo" trace_context: true}};
  }
  // Shout something.
  rpc Shout(SayRequest) returns (SayResponse) {
    option (writ.v1.tool) = {name: "echo.shout" risk: RISK_LOW effect: TOOL_EFFECT_WRITE command: {path: "echo"}};
  }
}

message SayRequest {
  string text = 1 [(buf.validate.field).string.max_len = 100];
}
message SayResponse {
  string text = 1;
}
`,
	"grants/all.yaml": `grants:
  - name: speakers
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [speaker]}
    tools: [echo.say]
`,
	"catalogue.yaml": "upstreams: []\n",
}

// secret is an argument, which nothing may show.
const secret = "the-secret-of-the-day"

func TestARunIsReadBackFromPhoenix(t *testing.T) {
	t.Parallel()
	p := openPhoenix(t)
	writ := build(t, "../../cmd/writ")
	for number, protocol := range []string{"OTLP_PROTOCOL_GRPC", "OTLP_PROTOCOL_HTTP"} {
		endpoint := [...]string{p.grpc, p.http}[number]
		t.Run(protocol, func(t *testing.T) {
			trace := fmt.Sprintf("0af7651916cd43dd8448eb211c80319%x", number)
			a := openAgent(t, writ, fmt.Sprintf("telemetry: {otlp: {endpoint: %q, protocol: %s}}\n", endpoint, protocol))
			told := a.run(t, "00-"+trace+"-b7ad6b7169203331-01")
			a.stop(t)
			spans := p.spans(t, trace, 6)
			judge(t, spans, told)
		})
	}
}

// judge compares what Phoenix shows with the run: an execution that succeeded, one that
// failed, a denied call and one of a tool that there is not.
func judge(t *testing.T, spans []span, told string) {
	t.Helper()
	of := make(map[string][]span)
	for _, s := range spans {
		of[s.Name] = append(of[s.Name], s)
		text, _ := json.Marshal(s)
		for _, never := range []string{secret, "no.such_tool", "speaker", "planner"} {
			if bytes.Contains(text, []byte(never)) {
				t.Errorf("a span shows %q: %s", never, text)
			}
		}
	}
	if len(of["decide echo.say"]) != 2 || len(of["execute_tool echo.say"]) != 2 || len(of["decide echo.shout"]) != 1 || len(of["decide"]) != 1 {
		t.Fatalf("spans: %+v", of)
	}
	decided := make(map[string]span)
	for _, s := range of["decide echo.say"] {
		decided[s.Context.SpanID] = s
		if s.ParentID != "b7ad6b7169203331" || s.Attributes["writ.verdict"] != "ALLOW" || s.SpanKind != "GUARDRAIL" {
			t.Errorf("an allowed decision: %+v", s)
		}
	}
	failed := 0
	for _, s := range of["execute_tool echo.say"] {
		if _, ok := decided[s.ParentID]; !ok || s.SpanKind != "TOOL" || s.Attributes["gen_ai.tool.name"] != "echo.say" {
			t.Errorf("an execution: %+v", s)
		}
		if s.StatusCode == "ERROR" && s.Attributes["error.type"] == "EXECUTION_FAILED" {
			failed++
		} else if !strings.Contains(told, s.Context.SpanID) {
			t.Errorf("the tool was told %q, and its span is %s", told, s.Context.SpanID)
		}
	}
	if failed != 1 {
		t.Errorf("%d executions failed, want 1", failed)
	}
	denied := of["decide echo.shout"][0]
	if denied.Attributes["writ.verdict"] != "DENY" || denied.Attributes["writ.reason"] != "GRANT_MISSING" || denied.Attributes["writ.record.index"] == nil {
		t.Errorf("the denial: %+v", denied)
	}
	if unknown := of["decide"][0]; unknown.Attributes["writ.reason"] != "TOOL_UNKNOWN" {
		t.Errorf("a tool that there is not: %+v", unknown)
	}
}

// phoenix is a Phoenix that runs.
type phoenix struct{ http, grpc string }

func openPhoenix(t *testing.T) *phoenix {
	t.Helper()
	python := os.Getenv("PHOENIX_PYTHON")
	if python == "" {
		t.Fatal("PHOENIX_PYTHON is not set: run \"make phoenix\"")
	}
	dir := t.TempDir()
	p := &phoenix{http: free(t), grpc: free(t)}
	port := func(address string) string { _, port, _ := net.SplitHostPort(address); return port }
	command := exec.Command(python, "-c", launch)
	command.Dir = dir
	command.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "PHOENIX_WORKING_DIR=" + dir, "PHOENIX_HOST=127.0.0.1",
		"PHOENIX_PORT=" + port(p.http), "PHOENIX_GRPC_PORT=" + port(p.grpc),
		// It calls nobody, and could not.
		"PHOENIX_TELEMETRY_ENABLED=false", "PHOENIX_ALLOW_EXTERNAL_RESOURCES=false", "PHOENIX_DISABLE_AGENT_ASSISTANT=true",
		"PHOENIX_AGENTS_DISABLE_WEB_ACCESS=true", "PHOENIX_ENABLE_MCP_SERVER=false",
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1",
	}
	await(t, start(t, command), func() bool {
		response, err := http.Get("http://" + p.http + "/healthz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// span is a span as Phoenix shows it.
type span struct {
	Name    string `json:"name"`
	Context struct {
		TraceID string `json:"trace_id"`
		SpanID  string `json:"span_id"`
	} `json:"context"`
	ParentID   string         `json:"parent_id"`
	SpanKind   string         `json:"span_kind"`
	StatusCode string         `json:"status_code"`
	Attributes map[string]any `json:"attributes"`
}

// spans returns the spans of a trace, once there are as many as wanted.
func (p *phoenix) spans(t *testing.T, trace string, want int) []span {
	t.Helper()
	var page struct{ Data []span }
	until(t, func() bool {
		response, err := http.Get("http://" + p.http + "/v1/projects/default/spans?limit=100&trace_id=" + trace)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		page.Data = nil
		if err != nil || json.Unmarshal(text, &page) != nil {
			t.Fatalf("Phoenix answers %s: %s, %v", response.Status, text, err)
		}
		return len(page.Data) >= want
	})
	if len(page.Data) != want {
		t.Fatalf("%d spans, want %d: %+v", len(page.Data), want, page.Data)
	}
	return page.Data
}

// running is a program that runs.
type running struct {
	command *exec.Cmd
	said    said
	exited  chan struct{}
	socket  string
}

// said keeps what a program says.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps the first megabyte.
func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text.Len() < 1<<20 {
		s.text.Write(b)
	}
	return len(b), nil
}

// String returns what was said.
func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func start(t *testing.T, command *exec.Cmd) *running {
	t.Helper()
	r := &running{command: command, exited: make(chan struct{})}
	command.Stdout, command.Stderr = &r.said, &r.said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = command.Wait() // how it ended is told by what it said
		close(r.exited)
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may be over already
		<-r.exited
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(command.Path), r.said.String())
		}
	})
	return r
}

// until waits until something is so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("it is not so after %s", patience)
		case <-tick.C:
		}
	}
}

// await waits until a program is as it should be.
func await(t *testing.T, r *running, so func() bool) {
	t.Helper()
	until(t, func() bool {
		select {
		case <-r.exited:
			t.Fatalf("it ended by itself:\n%s", r.said.String())
		default:
		}
		return so()
	})
}

func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func build(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(program))
	if out, err := exec.Command("go", "build", "-o", path, program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return path
}

func openAgent(t *testing.T, writ, more string) *running {
	t.Helper()
	// A socket's path is short.
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	files := map[string]string{"agent.yaml": fmt.Sprintf(`data_dir: data
bundle_dir: bundle
listeners: {envoy: "unix:%[1]s/e", planner: "unix:%[1]s/p"}
identity: {workloads: [{spiffe_id: "spiffe://example.org/planner", uid: %[2]d, roles: [speaker]}]}
%[3]s`, dir, os.Getuid(), more)}
	for name, text := range bundle {
		files["bundle/"+name] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(build(t, "./testdata/echo"), filepath.Join(dir, "bundle", "echo")); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(writ, "agent", "--config", filepath.Join(dir, "agent.yaml"))
	r := start(t, command)
	r.socket = "unix:" + dir + "/p"
	await(t, r, func() bool { return strings.Contains(r.said.String(), `"msg":"serving"`) })
	return r
}

// run plays the run, and returns the trace context that the tool was given.
func (r *running) run(t *testing.T, parent string) string {
	t.Helper()
	conn, err := grpc.NewClient(r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := writv1.NewToolServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	say := func(tool, text string) *writv1.ExecuteRequest {
		return &writv1.ExecuteRequest{Envelope: &writv1.Envelope{RequestId: "r", ToolCall: &writv1.ToolCall{
			Name: tool, Args: &writv1.Json{Text: fmt.Appendf(nil, `{"text":%q}`, text)},
		}}}
	}
	done, err := client.Execute(ctx, say("echo.say", secret))
	if err != nil || done.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Fatalf("execute: %v, %v", done, err)
	}
	if failed, err := client.Execute(ctx, say("echo.say", "fail")); err != nil || failed.GetState() != writv1.OutcomeState_OUTCOME_STATE_FAILED {
		t.Fatalf("a tool that fails: %v, %v", failed, err)
	}
	for _, tool := range []string{"echo.shout", "no.such_tool"} {
		decided, err := client.Authorize(ctx, &writv1.AuthorizeRequest{Envelope: say(tool, secret).GetEnvelope()})
		if err != nil || decided.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_DENY {
			t.Fatalf("%s: %v, %v", tool, decided, err)
		}
	}
	return string(done.GetResult().GetText())
}

// stop ends the agent in good order.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-r.exited
}
