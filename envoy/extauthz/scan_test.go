// SPDX-License-Identifier: Apache-2.0

package extauthz

// White box: the scan and the answers are held against the generated messages,
// which nothing outside the package sees.

import (
	"strconv"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/wire"
)

// sample is a CheckRequest as Envoy 1.40 sends it for an MCP call.
func sample() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Principal: "spiffe://example.org/desk", Certificate: "pem"},
		Destination: &authv3.AttributeContext_Peer{Principal: "spiffe://example.org/envoy"},
		Request: &authv3.AttributeContext_Request{
			Time: timestamppb.New(timestamppb.Now().AsTime()),
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "1", Method: "POST", Path: "/mcp?x=1", Host: "files.internal", Scheme: "http", Size: 10, Protocol: "HTTP/1.1",
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
					{Key: ":method", RawValue: []byte("POST")},
					{Key: "content-type", RawValue: []byte("application/json")},
					{Key: "x-twice", RawValue: []byte("a")},
					{Key: "x-twice", RawValue: []byte("b\xff")},
					{Key: "x-text", Value: "plain"},
				}},
				RawBody: []byte(`{"jsonrpc":"2.0"}`),
			},
		},
		ContextExtensions: map[string]string{resources.UpstreamKey: "files", resources.BodyKey: "17", "other": "x"},
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			resources.JWTNamespace: {Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("b")}},
		}},
	}}
}

// generated reads a CheckRequest by the generated reader.
func generated(request *authv3.CheckRequest) *check {
	attributes, http := request.GetAttributes(), request.GetAttributes().GetRequest().GetHttp()
	c := &check{
		request:  wire.Request{Method: http.GetMethod(), Path: http.GetPath(), Authority: http.GetHost(), Scheme: http.GetScheme(), Body: http.GetRawBody()},
		upstream: attributes.GetContextExtensions()[resources.UpstreamKey],
		body:     http.GetBody(),
	}
	c.most, _ = strconv.Atoi(attributes.GetContextExtensions()[resources.BodyKey])
	for _, h := range http.GetHeaderMap().GetHeaders() {
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		if h.GetKey() == "" || h.GetKey()[0] != ':' {
			c.request.Headers = append(c.request.Headers, wire.Header{Name: h.GetKey(), Value: value})
		}
	}
	if len(c.request.Body) == 0 && c.body != "" {
		c.request.Body = []byte(c.body)
	}
	c.evidence = identity.Evidence{
		Peer: attributes.GetSource().GetPrincipal(), Headers: c.request.Headers,
		Token: attributes.GetMetadataContext().GetFilterMetadata()[resources.JWTNamespace],
	}
	return c
}

func diffChecks(want, got *check) string {
	if len(want.request.Body) == 0 && len(got.request.Body) == 0 {
		want.request.Body, got.request.Body = nil, nil
	}
	return cmp.Diff(want, got, cmp.AllowUnexported(check{}), protocmp.Transform())
}

func TestTheScanReadsWhatTheGeneratedReaderDoes(t *testing.T) {
	t.Parallel()
	data, err := proto.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	got := &check{}
	if err := got.scan(data); err != nil {
		t.Fatal(err)
	}
	if diff := diffChecks(generated(sample()), got); diff != "" {
		t.Errorf("generated reader and scan differ (-generated +scan):\n%s", diff)
	}
	if len(got.request.Headers) != 4 || got.upstream != "files" || got.most != 17 {
		t.Errorf("read %+v", got)
	}
}

func FuzzScan(f *testing.F) {
	data, err := proto.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(append(data, data...))
	f.Add(data[:len(data)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		var request authv3.CheckRequest
		err := proto.Unmarshal(data, &request)
		got := &check{}
		scanErr := got.scan(data)
		if err != nil {
			// The scan does not look into what it does not read, nor at UTF-8.
			return
		}
		if scanErr != nil {
			t.Fatalf("the generated reader takes it, the scan does not: %v", scanErr)
		}
		if diff := diffChecks(generated(&request), got); diff != "" {
			t.Errorf("generated reader and scan differ (-generated +scan):\n%s", diff)
		}
	})
}

func TestADenialIsTheResponseThatItsProtoDescribes(t *testing.T) {
	t.Parallel()
	made := deniedWith(&wire.Response{Status: 403, Headers: []wire.Header{{Name: "content-type", Value: "application/json"}}, Body: []byte("{}")})
	want := &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
			Headers: []*corev3.HeaderValueOption{{
				Header:       &corev3.HeaderValue{Key: "content-type", Value: "application/json"},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
			Body: "{}",
		}},
	}
	diffAnswer(t, want, made)
}

func TestHousekeepingLosesTheAgentsHeaders(t *testing.T) {
	t.Parallel()
	want := &authv3.CheckResponse{
		Status: &rpcstatus.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			HeadersToRemove: []string{tools.DecisionHeader, HeaderToken},
		}},
	}
	diffAnswer(t, want, allowed(nil))
}

func TestMetadataFieldsAreAStruct(t *testing.T) {
	t.Parallel()
	var got structpb.Struct
	if err := proto.Unmarshal(text(text(nil, "a", "b"), "c", ""), &got); err != nil {
		t.Fatal(err)
	}
	want := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("b"), "c": structpb.NewStringValue("")}}
	if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func diffAnswer(t *testing.T, want *authv3.CheckResponse, made answer) {
	t.Helper()
	var got authv3.CheckResponse
	if err := proto.Unmarshal(made, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
}

func BenchmarkScan(b *testing.B) {
	data, err := proto.Marshal(sample())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(check).scan(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var request authv3.CheckRequest
			if err := proto.Unmarshal(data, &request); err != nil {
				b.Fatal(err)
			}
		}
	})
}
