// SPDX-License-Identifier: Apache-2.0

package extauthz_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// raw sends bytes as they are and reads a CheckResponse.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(*authv3.CheckResponse))
}

// check sends bytes as a CheckRequest.
func check(t *testing.T, stack *envoytest.Stack, request []byte) *authv3.CheckResponse {
	t.Helper()
	return checkIn(context.WithoutCancel(t.Context()), t, stack, request)
}

// checkIn is check within a context.
func checkIn(ctx context.Context, t *testing.T, stack *envoytest.Stack, request []byte) *authv3.CheckResponse {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+stack.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	var response authv3.CheckResponse
	err = conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, request, &response, grpc.ForceCodecV2(raw{}))
	if err != nil {
		t.Fatalf("Check fails with an error of gRPC: %v", err)
	}
	return &response
}

// small is a body that can be read.
const small = `{"payment":"p-1","amount":1}`

func requestTo(t *testing.T, upstream string, headers ...string) []byte {
	t.Helper()
	return requestOf(t, map[string]string{resources.UpstreamKey: upstream}, headers...)
}

// requestOfAtMost is a request of which Envoy sends so many bytes of the body at most.
func requestOfAtMost(t *testing.T, most int) []byte {
	t.Helper()
	extensions := map[string]string{resources.UpstreamKey: "payments", resources.BodyKey: strconv.Itoa(most)}
	return requestOf(t, extensions, "content-type", "application/json", "x-envoy-auth-partial-body", "false")
}

func requestOf(t *testing.T, extensions map[string]string, headers ...string) []byte {
	t.Helper()
	http := &authv3.AttributeContext_HttpRequest{Method: "POST", Path: "/v1/tenants/acme/refunds", RawBody: []byte(small), HeaderMap: &corev3.HeaderMap{}}
	for i := 0; i < len(headers); i += 2 {
		http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: headers[i], RawValue: []byte(headers[i+1])})
	}
	data, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{Principal: "spiffe://example.org/nobody"},
		Request:           &authv3.AttributeContext_Request{Http: http},
		ContextExtensions: extensions,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheAnswerIsNeverAnErrorOfGRPC(t *testing.T) {
	t.Parallel()
	stack := envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, Alone: true})
	cases := []struct {
		name    string
		request []byte
		reason  string
	}{
		{"a caller without a grant", requestTo(t, "payments", "content-type", "application/json"), "GRANT_MISSING"},
		{"a partial body", requestTo(t, "payments", "content-type", "application/json", "x-envoy-auth-partial-body", "true"), "DECODE_PARTIAL_BODY"},
		{"a body one byte smaller than Envoy's buffer", requestOfAtMost(t, len(small)+1), "GRANT_MISSING"},
		{"a body that fills Envoy's buffer", requestOfAtMost(t, len(small)), "DECODE_TOO_LARGE"},
		{"a body beyond Envoy's buffer", requestOfAtMost(t, len(small)-1), "DECODE_TOO_LARGE"},
		{"two keys that differ", requestTo(t, "payments", "content-type", "application/json", "idempotency-key", "a", "idempotency-key", "b"), "DECODE_HEADER_CONFLICT"},
		{"an unknown upstream", requestTo(t, "evil"), "TOOL_UNKNOWN"},
		{"nothing", nil, "TOOL_UNKNOWN"},
		{"what is no protobuf", []byte("\xff\xff"), "AGENT_INTERNAL"},
		{"what is cut off", requestTo(t, "payments")[:40], "AGENT_INTERNAL"},
	}
	for _, c := range cases {
		denied := check(t, stack, c.request).GetDeniedResponse()
		if !strings.Contains(denied.GetBody(), c.reason) {
			t.Errorf("%s: %v, want %s", c.name, denied, c.reason)
		}
	}
	if made := stack.Decisions(len(cases)); len(made) != len(cases) {
		t.Errorf("%d decisions for %d calls", len(made), len(cases))
	}
}

func TestTheTraceIsEnvoysOwnOrElseTheClients(t *testing.T) {
	t.Parallel()
	const clients = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	envoys := strings.Replace(clients, "b7ad", "e0e0", 1)
	stack := envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, Alone: true})
	for i, tc := range []struct {
		name, want string
		envoy      []string
		headers    []string
	}{
		{"no trace", "", nil, nil},
		{"the client's, where Envoy does not trace", clients, nil, []string{"traceparent", clients}},
		{"Envoy's span, which is below the client's", envoys, []string{envoys}, []string{"traceparent", clients}},
		{"what is none", "", nil, []string{"traceparent", "00-" + strings.Repeat("f", 9000)}},
		{"two of the client's", "", nil, []string{"traceparent", clients, "traceparent", envoys}},
	} {
		ctx := context.WithoutCancel(t.Context())
		for _, value := range tc.envoy {
			ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", value)
		}
		checkIn(ctx, t, stack, requestTo(t, "payments", append(tc.headers, "content-type", "application/json")...))
		made := stack.Decisions(i + 1)
		if got := made[i].Record.GetTraceParent(); got != tc.want {
			t.Errorf("%s: the record has %q, want %q", tc.name, got, tc.want)
		}
	}
}
