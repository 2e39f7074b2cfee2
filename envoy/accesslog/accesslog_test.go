// SPDX-License-Identifier: Apache-2.0

package accesslog_test

import (
	"context"
	"errors"
	"io"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func start(t *testing.T) (*envoytest.Stack, *grpc.ClientConn) {
	t.Helper()
	stack := envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, Alone: true})
	conn, err := grpc.NewClient("unix:"+stack.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return stack, conn
}

// allow has a call let through and returns its metadata.
func allow(t *testing.T, conn *grpc.ClientConn) *structpb.Struct {
	t.Helper()
	claims, err := structpb.NewStruct(map[string]any{resources.JWTClaims: map[string]any{"sub": "ann", "tenant": "acme", "roles": []any{"agent"}}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/tenants/acme/payments/p-1",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "authorization", RawValue: []byte("Bearer x")}}},
		}},
		ContextExtensions: map[string]string{resources.UpstreamKey: "payments"},
		MetadataContext:   &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{resources.JWTNamespace: claims}},
	}})
	if err != nil || response.GetOkResponse() == nil {
		t.Fatalf("the call is not let through: %v, %v", response, err)
	}
	return response.GetDynamicMetadata()
}

// report sends entries as Envoy does.
func report(t *testing.T, conn *grpc.ClientConn, entries ...*datav3.HTTPAccessLogEntry) {
	t.Helper()
	stream, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func entry(metadata *structpb.Struct, status uint32, flags *datav3.ResponseFlags) *datav3.HTTPAccessLogEntry {
	return &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{
			ResponseFlags: flags,
			Metadata:      &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{resources.AuthzNamespace: metadata}},
		},
		Request:  &datav3.HTTPRequestProperties{RequestBodyBytes: 3},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(status), ResponseBodyBytes: 5},
	}
}

func TestAnEntryTellsHowTheCallEnded(t *testing.T) {
	t.Parallel()
	const (
		succeeded  = writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED
		failed     = writv1.OutcomeState_OUTCOME_STATE_FAILED
		notStarted = writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED
	)
	cases := []struct {
		name   string
		status uint32
		flags  *datav3.ResponseFlags
		state  writv1.OutcomeState
		reason writv1.Reason
	}{
		{"it went well", 200, nil, succeeded, 0},
		{"the upstream failed", 500, nil, failed, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS},
		{"the upstream redirects", 302, nil, failed, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS},
		{"no answer came", 0, &datav3.ResponseFlags{UpstreamRemoteReset: true}, failed, writv1.Reason_REASON_EXECUTION_FAILED},
		{"the answer was cut off", 200, &datav3.ResponseFlags{UpstreamConnectionTermination: true}, failed, writv1.Reason_REASON_EXECUTION_FAILED},
		{"it took too long", 504, &datav3.ResponseFlags{UpstreamRequestTimeout: true}, failed, writv1.Reason_REASON_EXECUTION_TIMEOUT},
		{"the caller went away", 0, &datav3.ResponseFlags{DownstreamConnectionTermination: true}, failed, writv1.Reason_REASON_EXECUTION_CANCELLED},
		{"no connection", 503, &datav3.ResponseFlags{UpstreamConnectionFailure: true}, notStarted, writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE},
		{"no host", 503, &datav3.ResponseFlags{NoHealthyUpstream: true}, notStarted, writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE},
	}
	stack, conn := start(t)
	for _, c := range cases {
		report(t, conn, entry(allow(t, conn), c.status, c.flags))
	}
	for i, made := range stack.Decisions(len(cases)) {
		outcome, c := made.Outcomes[0], cases[i]
		if outcome.GetState() != c.state || outcome.GetReason() != c.reason || outcome.GetHttpStatus() != c.status {
			t.Errorf("%s: recorded %v", c.name, outcome)
		}
	}
}

func TestACallerMayLeaveAStreamOfEventsAndNoOtherAnswer(t *testing.T) {
	t.Parallel()
	left := &datav3.ResponseFlags{DownstreamConnectionTermination: true}
	cases := []struct {
		kind   string
		status uint32
		state  writv1.OutcomeState
	}{
		{"text/event-stream; charset=utf-8", 200, writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED},
		{"text/event-stream", 500, writv1.OutcomeState_OUTCOME_STATE_FAILED},
		{"application/json", 200, writv1.OutcomeState_OUTCOME_STATE_FAILED},
	}
	stack, conn := start(t)
	for _, c := range cases {
		one := entry(allow(t, conn), c.status, left)
		one.Response.ResponseHeaders = map[string]string{resources.ContentType: c.kind}
		report(t, conn, one)
	}
	for i, made := range stack.Decisions(len(cases)) {
		if got := made.Outcomes[0].GetState(); got != cases[i].state {
			t.Errorf("%s with %d: state = %v, want %v", cases[i].kind, cases[i].status, got, cases[i].state)
		}
	}
}

func TestACallEndsOnce(t *testing.T) {
	t.Parallel()
	stack, conn := start(t)
	metadata := allow(t, conn)
	report(t, conn, entry(metadata, 200, nil), entry(metadata, 500, nil), entry(nil, 200, nil))
	report(t, conn, entry(metadata, 500, nil))
	if made := stack.Decisions(1)[0]; len(made.Outcomes) != 1 || made.Outcomes[0].GetHttpStatus() != 200 {
		t.Errorf("recorded %v", made.Outcomes)
	}
}

func TestWhatNoEntryCameForIsUnobserved(t *testing.T) {
	t.Parallel()
	stack, conn := start(t)
	allow(t, conn)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	stack.Face.Tend(over)
	if got := stack.Decisions(1)[0].Outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED {
		t.Errorf("recorded %s", got)
	}
}

func TestStreamsEndOnceADrainingServerExpectsNothing(t *testing.T) {
	t.Parallel()
	stack, conn := start(t)
	metadata := allow(t, conn)
	stream, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The server has the stream once an entry of it was joined.
	tell := func(metadata *structpb.Struct) {
		err := stream.Send(&accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
			HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{entry(metadata, 200, nil)}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	tell(metadata)
	stack.Decisions(1)
	last := allow(t, conn)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stack.Face.Stop(t.Context())
	}()
	tell(last)
	<-stopped
	if got := stack.Decisions(2)[1].Outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Errorf("the call that ended while the agent stopped is recorded as %s", got)
	}
	if err := stream.RecvMsg(&accesslogv3.StreamAccessLogsResponse{}); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v, want UNAVAILABLE", err)
	}
}
