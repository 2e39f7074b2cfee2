// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/trace"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/telemetry"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var (
	decision = [16]byte{0xde, 0xc1}
	received = time.Unix(1_700_000_000, 0)
)

// receiver takes what is exported, over gRPC and over HTTP.
type receiver struct {
	tracepb.UnimplementedTraceServiceServer
	metricspb.UnimplementedMetricsServiceServer
	grpc, http string
	traces     chan *tracepb.ExportTraceServiceRequest
	metrics    chan *metricspb.ExportMetricsServiceRequest
	headers    chan string
	// hold, where it is set, keeps exports waiting until it is closed.
	hold chan struct{}
}

func openReceiver(t *testing.T, hold chan struct{}) *receiver {
	t.Helper()
	r := &receiver{
		traces: make(chan *tracepb.ExportTraceServiceRequest, 100), metrics: make(chan *metricspb.ExportMetricsServiceRequest, 100),
		headers: make(chan string, 200), hold: hold,
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	tracepb.RegisterTraceServiceServer(server, r)
	metricspb.RegisterMetricsServiceServer(server, metricsOf{r: r})
	go server.Serve(listener) //nolint:errcheck // ends with the test
	t.Cleanup(server.Stop)
	web := httptest.NewServer(r)
	t.Cleanup(web.Close)
	r.grpc, r.http = listener.Addr().String(), strings.TrimPrefix(web.URL, "http://")
	return r
}

// Export takes spans over gRPC.
func (r *receiver) Export(ctx context.Context, request *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	r.headers <- strings.Join(metadata.ValueFromIncomingContext(ctx, "x-key"), ",")
	if r.hold != nil {
		<-r.hold
	}
	r.traces <- request
	return &tracepb.ExportTraceServiceResponse{}, nil
}

// metricsOf takes metrics over gRPC.
type metricsOf struct {
	metricspb.UnimplementedMetricsServiceServer
	r *receiver
}

// Export takes metrics over gRPC.
func (m metricsOf) Export(_ context.Context, request *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	m.r.metrics <- request
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

// ServeHTTP takes both over HTTP, below a prefix.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch request.URL.Path {
	case "/otel/v1/traces":
		r.headers <- request.Header.Get("x-key")
		spans := &tracepb.ExportTraceServiceRequest{}
		if err = proto.Unmarshal(body, spans); err == nil {
			r.traces <- spans
		}
	case "/otel/v1/metrics":
		measures := &metricspb.ExportMetricsServiceRequest{}
		if err = proto.Unmarshal(body, measures); err == nil {
			r.metrics <- measures
		}
	default:
		err = fmt.Errorf("path %s", request.URL.Path)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func open(t *testing.T, config *writv1.OtlpConfig, registry *prometheus.Registry) *telemetry.Tracer {
	t.Helper()
	tracer, err := telemetry.New(t.Context(), telemetry.Options{
		Config: config, Origin: "example.org/agent/desk", LogID: bytes.Repeat([]byte{7}, 32), Version: "v1",
		Registry: registry, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer
}

func call(tool string) agent.Call {
	return agent.Call{
		Decision: decision, Received: received, At: received.Add(2 * time.Millisecond), Tool: tool,
		Surface: writv1.Surface_SURFACE_EXECUTE, Parent: parent, Session: "5e55",
	}
}

func denied() agent.Decided {
	return agent.Decided{
		Call: call("desk.pay"), Verdict: writv1.Verdict_VERDICT_DENY, Reason: writv1.Reason_REASON_GRANT_MISSING,
		Failed: []string{"grant"}, Bundle: [32]byte{0xb0}, Index: 41, Recorded: true,
	}
}

func ran(state writv1.OutcomeState, reason writv1.Reason) agent.Ended {
	return agent.Ended{Call: call("desk.pay"), State: state, Reason: reason, Took: time.Millisecond, HTTPStatus: 502, RequestBytes: 3, ResponseBytes: 4}
}

// said is a span as a test looks at it.
func said(span *spanpb.Span) map[string]string {
	out := map[string]string{
		"name": span.GetName(), "kind": span.GetKind().String(), "trace": hex.EncodeToString(span.GetTraceId()),
		"parent": hex.EncodeToString(span.GetParentSpanId()), "status": span.GetStatus().GetCode().String(),
		"took": (time.Duration(span.GetEndTimeUnixNano()) - time.Duration(span.GetStartTimeUnixNano())).String(),
	}
	maps.Copy(out, attributes(span.GetAttributes()))
	return out
}

func attributes(pairs []*commonpb.KeyValue) map[string]string {
	out := make(map[string]string)
	for _, pair := range pairs {
		switch v := pair.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_IntValue:
			out[pair.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonpb.AnyValue_ArrayValue:
			for _, each := range v.ArrayValue.GetValues() {
				out[pair.GetKey()] += each.GetStringValue() + ";"
			}
		default:
			out[pair.GetKey()] = pair.GetValue().GetStringValue()
		}
	}
	return out
}

// spans closes the tracer and returns what came.
func (r *receiver) spans(t *testing.T, tracer *telemetry.Tracer) []*spanpb.Span {
	t.Helper()
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var spans []*spanpb.Span
	for {
		select {
		case request := <-r.traces:
			for _, resource := range request.GetResourceSpans() {
				for _, scope := range resource.GetScopeSpans() {
					if !strings.Contains(scope.GetSchemaUrl(), "/schemas/gen-ai") {
						t.Errorf("schema URL %q", scope.GetSchemaUrl())
					}
					spans = append(spans, scope.GetSpans()...)
				}
				if got := attributes(resource.GetResource().GetAttributes()); got["service.name"] != "writ-agent" || got["writ.log.id"] != strings.Repeat("07", 32) {
					t.Errorf("the resource is %v", got)
				}
			}
		default:
			return spans
		}
	}
}

func TestADecisionAndAnExecutionAreOneSpanEach(t *testing.T) {
	t.Parallel()
	for name, protocol := range map[string]writv1.OtlpProtocol{"over gRPC": writv1.OtlpProtocol_OTLP_PROTOCOL_GRPC, "over HTTP": writv1.OtlpProtocol_OTLP_PROTOCOL_HTTP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openReceiver(t, nil)
			headers := filepath.Join(t.TempDir(), "headers")
			if err := os.WriteFile(headers, []byte("# the key\nX-Key: sesame\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			config := &writv1.OtlpConfig{Endpoint: r.grpc, Protocol: protocol, HeadersFile: headers, MetricsInterval: durationpb.New(time.Hour)}
			if protocol == writv1.OtlpProtocol_OTLP_PROTOCOL_HTTP {
				config.Endpoint, config.PathPrefix = r.http, "/otel"
			}
			tracer := open(t, config, prometheus.NewRegistry())
			tracer.Decided(denied())
			tracer.Ended(ran(writv1.OutcomeState_OUTCOME_STATE_FAILED, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS))
			tracer.Ended(ran(writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED, writv1.Reason_REASON_UNSPECIFIED))
			spans := r.spans(t, tracer)
			if len(spans) != 2 {
				t.Fatalf("%d spans, want 2: %v", len(spans), spans)
			}
			common := map[string]string{
				"trace": parent[3:35], "gen_ai.tool.name": "desk.pay", "gen_ai.conversation.id": "5e55", "writ.surface": "execute",
				"writ.decision.id": hex.EncodeToString(decision[:]), "kind": "SPAN_KIND_INTERNAL",
			}
			wantDecision := map[string]string{
				"name": "decide desk.pay", "parent": parent[36:52], "status": "STATUS_CODE_UNSET", "took": "2ms", "openinference.span.kind": "GUARDRAIL",
				"writ.verdict": "DENY", "writ.reason": "GRANT_MISSING", "writ.checks.failed": "grant;", "writ.record.index": "41",
				"writ.bundle.digest": "b0" + strings.Repeat("00", 31),
			}
			wantExecution := map[string]string{
				"name": "execute_tool desk.pay", "parent": hex.EncodeToString(spans[0].GetSpanId()), "status": "STATUS_CODE_ERROR", "took": "1ms",
				"openinference.span.kind": "TOOL", "gen_ai.operation.name": "execute_tool", "writ.outcome.state": "FAILED",
				"error.type": "EXECUTION_UPSTREAM_STATUS", "http.response.status_code": "502", "writ.request.bytes": "3", "writ.response.bytes": "4",
			}
			maps.Copy(wantDecision, common)
			maps.Copy(wantExecution, common)
			if diff := cmp.Diff(wantDecision, said(spans[0])); diff != "" {
				t.Errorf("the decision (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantExecution, said(spans[1])); diff != "" {
				t.Errorf("the execution (-want +got):\n%s", diff)
			}
			if onward := tracer.Onward(decision, parent); onward != parent[:36]+hex.EncodeToString(spans[1].GetSpanId())+"-01" {
				t.Errorf("the tool was told %q, and its span's parent is %x", onward, spans[1].GetSpanId())
			}
			if got := <-r.headers; got != "sesame" {
				t.Errorf("the header of the file came as %q", got)
			}
			r.wantMetrics(t)
		})
	}
}

func (r *receiver) wantMetrics(t *testing.T) {
	t.Helper()
	var names []string
	for _, resource := range (<-r.metrics).GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				names = append(names, metric.GetName()+" "+metric.GetUnit())
			}
		}
	}
	if diff := cmp.Diff([]string{"writ.decision.duration s", "gen_ai.execute_tool.duration s"}, names); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestWhatIsShownFollowsTheCall(t *testing.T) {
	t.Parallel()
	none, half := 0.0, 0.5
	for name, tc := range map[string]struct {
		ratio  *float64
		change func(*agent.Decided)
		want   map[string]string
	}{
		"a caller that is not sampled is not shown": {nil, func(d *agent.Decided) { d.Parent = parent[:53] + "00" }, nil},
		"a call without a trace begins its own":     {nil, func(d *agent.Decided) { d.Parent = "" }, map[string]string{"trace": hex.EncodeToString(decision[:]), "parent": ""}},
		"a share of none shows none":                {&none, func(d *agent.Decided) { d.Parent = "" }, nil},
		"a share is drawn by the decision's id":     {&half, func(d *agent.Decided) { d.Parent = "" }, map[string]string{"name": "decide desk.pay"}},
		"a tool that is not known has no name":      {nil, func(d *agent.Decided) { d.Tool = "" }, map[string]string{"name": "decide", "gen_ai.tool.name": ""}},
		"a tool of MCP has MCP's method":            {nil, func(d *agent.Decided) { d.MCP = true }, map[string]string{"mcp.method.name": "tools/call"}},
		"a fault of the agent is an error":          {nil, func(d *agent.Decided) { d.Reason = writv1.Reason_REASON_LEDGER_FULL; d.Recorded = false }, map[string]string{"status": "STATUS_CODE_ERROR", "error.type": "LEDGER_FULL", "writ.record.index": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openReceiver(t, nil)
			tracer := open(t, &writv1.OtlpConfig{Endpoint: r.grpc, SampleRatio: tc.ratio}, prometheus.NewRegistry())
			d := denied()
			tc.change(&d)
			tracer.Decided(d)
			onward := tracer.Onward(d.Decision, d.Parent)
			spans := r.spans(t, tracer)
			if len(spans) == 0 != (tc.want == nil) {
				t.Fatalf("%d spans", len(spans))
			}
			if sampled := strings.HasSuffix(onward, "-01"); sampled != (tc.want != nil) {
				t.Errorf("the tool is told %q, and the decision is shown: %t", onward, tc.want != nil)
			}
			if tc.want == nil {
				return
			}
			got := said(spans[0])
			for key, want := range tc.want {
				if got[key] != want {
					t.Errorf("%s is %q, want %q", key, got[key], want)
				}
			}
		})
	}
}

func TestAReceiverThatHangsCostsSpansAndNoCall(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := openReceiver(t, hold)
	registry := prometheus.NewRegistry()
	tracer := open(t, &writv1.OtlpConfig{Endpoint: r.grpc, Queue: 4}, registry)
	tracer.Decided(denied())
	<-r.headers // the sender hangs from here on
	const calls = 1000
	begin := time.Now()
	for range calls {
		tracer.Decided(denied())
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("%d decisions took %s while the receiver hung", calls, took)
	}
	dropped := count(t, registry, "dropped")
	if dropped < calls-4 {
		t.Errorf("%v spans were dropped, want at least %d", dropped, calls-4)
	}
	close(hold)
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent := count(t, registry, "exported") + count(t, registry, "failed"); sent+dropped != calls+1 {
		t.Errorf("%v spans were sent and %v dropped of %d", sent, dropped, calls+1)
	}
}

func TestAReceiverThatIsAwayIsCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	tracer := open(t, &writv1.OtlpConfig{Endpoint: "127.0.0.1:1"}, registry)
	tracer.Decided(denied())
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(t, registry, "failed"); got != 1 {
		t.Errorf("%v spans failed, want 1", got)
	}
}

func count(t *testing.T, registry *prometheus.Registry, result string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == result {
				return metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no count of %s", result)
	return 0
}

func TestTheEnvironmentChangesNothing(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=stolen", "OTEL_SDK_DISABLED": "true",
		"OTEL_TRACES_SAMPLER": "always_off", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other",
	} {
		t.Setenv(name, value)
	}
	r := openReceiver(t, nil)
	tracer := open(t, &writv1.OtlpConfig{Endpoint: r.grpc}, prometheus.NewRegistry())
	tracer.Decided(denied())
	if spans := r.spans(t, tracer); len(spans) != 1 {
		t.Errorf("%d spans came, want 1", len(spans))
	}
	if got := <-r.headers; got != "" {
		t.Errorf("a header of the environment came: %q", got)
	}
}

func TestAFileOfHeadersIsReadStrictly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"no colon":    {"sesame", ":1: not a header"},
		"a bad name":  {"x key: sesame", ":1: not a header"},
		"twice":       {"x-key: a\n\nX-Key: b\n", ":3: the header stands there a second time"},
		"too many":    {manyHeaders(65), ":65: more than 64 headers"},
		"too long":    {strings.Repeat("#", 70_000), "more than 65536 bytes"},
		"not a value": {"x-key: a\x00b", ":1: not a header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "headers")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := telemetry.New(t.Context(), telemetry.Options{Config: &writv1.OtlpConfig{Endpoint: "127.0.0.1:1", HeadersFile: file}, Registry: prometheus.NewRegistry()})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func manyHeaders(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "x-%d: v\n", i)
	}
	return text.String()
}

// BenchmarkDecided is what a decision pays for being shown.
func BenchmarkDecided(b *testing.B) {
	registry := prometheus.NewRegistry()
	tracer, err := telemetry.New(b.Context(), telemetry.Options{
		Config:   &writv1.OtlpConfig{Endpoint: "127.0.0.1:1", SampleRatio: new(float64), Queue: 1_000_000},
		Registry: registry, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer tracer.Close(context.Background()) //nolint:errcheck // nothing is sent
	d := denied()
	d.Parent = trace.Parse("")
	b.ReportAllocs()
	for b.Loop() {
		tracer.Decided(d)
	}
}
