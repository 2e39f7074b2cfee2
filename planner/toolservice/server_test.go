// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/planner/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestListToolsListsWhatMayBeCalled(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	names := func(who string, request *writv1.ListToolsRequest) ([]string, string) {
		t.Helper()
		got, err := s.client.ListTools(s.as(who), request)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, tool := range got.GetTools() {
			names = append(names, tool.GetName())
		}
		return names, got.GetNextPageToken()
	}
	all, next := names("ann", &writv1.ListToolsRequest{})
	if diff := cmp.Diff([]string{"stage.look", "stage.say"}, all); diff != "" || next != "" {
		t.Errorf("tools, then %q (-want +got):\n%s", next, diff)
	}
	if none, _ := names("guest", &writv1.ListToolsRequest{}); none != nil {
		t.Errorf("a guest sees %v", none)
	}
	first, next := names("ann", &writv1.ListToolsRequest{PageSize: 1})
	second, end := names("ann", &writv1.ListToolsRequest{PageSize: 1, PageToken: next})
	if diff := cmp.Diff(all, slices.Concat(first, second)); diff != "" || len(first) != 1 || end != "" {
		t.Errorf("pages %v and %v, then %q (-want +got):\n%s", first, second, end, diff)
	}
}

func TestListToolsDescribesATool(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	list, err := s.client.ListTools(s.as("ann"), &writv1.ListToolsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	look, say := list.GetTools()[0], list.GetTools()[1]
	if look.GetExecutable() || !say.GetExecutable() {
		t.Errorf("stage.look is executable %v, stage.say %v; want only stage.say", look.GetExecutable(), say.GetExecutable())
	}
	if say.GetEffect() != writv1.ToolEffect_TOOL_EFFECT_WRITE || say.GetRisk() != writv1.Risk_RISK_LOW || say.GetDescription() == "" {
		t.Errorf("stage.say is described as %v", say)
	}
	if !strings.Contains(string(say.GetRequestSchema().GetText()), `"object"`) || len(say.GetResponseSchema().GetText()) == 0 {
		t.Errorf("the schemas of stage.say are %q and %q", say.GetRequestSchema().GetText(), say.GetResponseSchema().GetText())
	}
	if digest := say.GetSchemaDigest(); !strings.HasPrefix(digest, "sha256:") || len(digest) != 71 {
		t.Errorf("schema digest %q", digest)
	}
}

func TestListToolsRefuses(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	for name, tc := range map[string]struct {
		who     string
		request *writv1.ListToolsRequest
		want    refusal
	}{
		"nobody":               {"", &writv1.ListToolsRequest{}, refusal{codes.Unauthenticated, "PRINCIPAL_UNAUTHENTICATED", "", ""}},
		"a bad token":          {"forged", &writv1.ListToolsRequest{}, refusal{codes.Unauthenticated, "PRINCIPAL_TOKEN_INVALID", "", ""}},
		"too large a page":     {"ann", &writv1.ListToolsRequest{PageSize: 1001}, refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "", "page_size"}},
		"a negative page":      {"ann", &writv1.ListToolsRequest{PageSize: -1}, refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "", "page_size"}},
		"another page's token": {"ann", &writv1.ListToolsRequest{PageToken: "!"}, refusal{codes.InvalidArgument, "DECODE_MALFORMED", "", "page_token"}},
		"a panic":              {"panic", &writv1.ListToolsRequest{}, refusal{codes.Internal, "AGENT_INTERNAL", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.client.ListTools(s.as(tc.who), tc.request)
			got, _ := refusalOf(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
		})
	}
}

// drainStream reads a stream to its end.
func drainStream(stream writv1.ToolService_ExecuteStreamClient) (lines []string, result *writv1.ExecuteResponse, err error) {
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return lines, result, nil
		}
		if err != nil {
			return lines, result, err
		}
		if result != nil {
			return lines, result, errors.New("something follows the result")
		}
		if progress := event.GetProgress(); progress != nil {
			lines = append(lines, progress.GetMessage())
		}
		result = event.GetResult()
	}
}

func TestExecuteStreamReportsProgressAndThenTheResult(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(ctx context.Context, x tools.Execution) (*tools.Result, error) {
		x.Progress("one")
		x.Progress("two")
		return echo(ctx, x)
	})
	request := &writv1.ExecuteStreamRequest{Request: &writv1.ExecuteRequest{Envelope: say("hello")}}
	stream, err := s.client.ExecuteStream(s.as("ann"), request)
	if err != nil {
		t.Fatal(err)
	}
	lines, result, err := drainStream(stream)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two"}, lines); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if string(result.GetResult().GetText()) != `{"text":"hello"}` {
		t.Errorf("result %v, want the text that was said", result)
	}
}

func TestExecuteStreamRefusesAsExecuteDoes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		who     string
		request *writv1.ExecuteStreamRequest
		want    refusal
	}{
		"a check":    {"ann", &writv1.ExecuteStreamRequest{Request: &writv1.ExecuteRequest{Envelope: say("loud")}}, refusal{codes.PermissionDenied, "CONDITION_CHECK_FAILED", "stage.say", ""}},
		"no request": {"ann", &writv1.ExecuteStreamRequest{}, refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "", "request"}},
		"a panic":    {"panic", &writv1.ExecuteStreamRequest{Request: &writv1.ExecuteRequest{Envelope: say("x")}}, refusal{codes.Internal, "AGENT_INTERNAL", "stage.say", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(context.Context, tools.Execution) (*tools.Result, error) { panic("no") })
			stream, err := s.client.ExecuteStream(s.as(tc.who), tc.request)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = drainStream(stream)
			got, _ := refusalOf(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			s.records(1, 0)
		})
	}
}

func TestAClientThatReadsNothingHoldsUpNoTool(t *testing.T) {
	t.Parallel()
	const lines = 10_000
	done := make(chan struct{})
	s := newStage(t, func(ctx context.Context, x tools.Execution) (*tools.Result, error) {
		defer close(done)
		for i := range lines {
			x.Progress(fmt.Sprintf("%d %s", i, strings.Repeat("x", 4000)))
		}
		return echo(ctx, x)
	})
	stream, err := s.client.ExecuteStream(s.as("ann"), &writv1.ExecuteStreamRequest{Request: &writv1.ExecuteRequest{Envelope: say("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	<-done // and nothing was read
	s.records(1, 1)
	got, result, err := drainStream(stream)
	if err != nil || result == nil {
		t.Fatalf("result %v, %v", result, err)
	}
	if len(got) == 0 || len(got) == lines {
		t.Errorf("%d lines of %d arrived, want some and not all", len(got), lines)
	}
}

func TestHealthFollowsWhatTheServerIsTold(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	health := healthpb.NewHealthClient(s.conn)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "writ.v1.ToolService"} {
			got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("service %q is %v, %v, want %s", service, got.GetStatus(), err, want)
			}
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	s.server.Serving()
	check(healthpb.HealthCheckResponse_SERVING)
	s.server.NotServing()
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := s.client.Authorize(s.as("ann"), &writv1.AuthorizeRequest{Envelope: say("hello")}); err != nil {
		t.Errorf("a call while the server is not serving: %v, want it taken", err)
	}
}

func TestDrainWaitsForCallsAndNotForWatches(t *testing.T) {
	t.Parallel()
	g := newGate()
	s := newStage(t, g.play)
	s.server.Serving()
	watch, err := healthpb.NewHealthClient(s.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("watch: %v, %v", first, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say("hello")})
		answered <- err
	}()
	<-g.entered
	drained := make(chan error, 1)
	go func() { drained <- s.server.Drain(t.Context()) }()
	for err == nil { // NOT_SERVING, maybe, and then the end
		_, err = watch.Recv()
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a call in hand: %v", err)
	default:
	}
	close(g.opened)
	if err := <-answered; err != nil {
		t.Errorf("the call in hand: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
}

func TestDrainCutsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	g := newGate()
	s := newStage(t, g.play)
	answered := make(chan error, 1)
	go func() {
		_, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say("hello")})
		answered <- err
	}()
	<-g.entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.server.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v, want the deadline", err)
	}
	if err := <-answered; status.Code(err) != codes.Unavailable {
		t.Errorf("the call in hand: %v, want it cut", err)
	}
	close(g.opened)
	if got := s.records(1, 1)[0].outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("outcome %s, want SUCCEEDED: a tool that has begun is not stopped", got)
	}
}

func TestTheServiceIsServedAsTheContractSays(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "writ.v1.ToolService"}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	file := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(answer.GetFileDescriptorResponse().GetFileDescriptorProto()[0], file); err != nil {
		t.Fatal(err)
	}
	for _, method := range file.GetService()[0].GetMethod() {
		stream, err := s.conn.NewStream(t.Context(), &writv1.ToolService_ServiceDesc.Streams[0], "/writ.v1.ToolService/"+method.GetName())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.SendMsg(&writv1.ListToolsRequest{}), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&writv1.AuthorizeResponse{}); status.Code(err) == codes.Unimplemented {
			t.Errorf("%s is not served", method.GetName())
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestAUnixPeerIsItsWorkload(t *testing.T) {
	t.Parallel()
	uid := uint32(os.Getuid())
	verifier, err := identity.New(identity.Options{Clock: time.Now, Config: &writv1.IdentityConfig{Workloads: []*writv1.WorkloadConfig{
		{SpiffeId: "spiffe://example.org/desk", Uid: &uid, Tenant: "acme", Roles: []string{"actor"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s := newStageFor(t, echo, verifier)
	got, err := s.client.Execute(t.Context(), &writv1.ExecuteRequest{Envelope: say("hello")})
	if err != nil || got.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("answer %v, %v, want success", got, err)
	}
	if who := s.records(1, 1)[0].decision.GetPrincipal().GetWorkload(); who != "spiffe://example.org/desk" {
		t.Errorf("workload %q, want that of the uid", who)
	}
}
