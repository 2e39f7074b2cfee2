// SPDX-License-Identifier: Apache-2.0

package extproc_test

import (
	"errors"
	"io"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// dialog is one stream, as Envoy opens it.
type dialog struct {
	t      *testing.T
	stream procv3.ExternalProcessor_ProcessClient
}

// open opens a stream for an upstream; more pairs of metadata may follow.
func open(t *testing.T, stack *envoytest.Stack, pairs ...string) *dialog {
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
	stream, err := procv3.NewExternalProcessorClient(conn).Process(metadata.AppendToOutgoingContext(t.Context(), pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return &dialog{t: t, stream: stream}
}

// send sends a message and returns its answer.
func (d *dialog) send(message *procv3.ProcessingRequest) *procv3.ProcessingResponse {
	d.t.Helper()
	if err := d.stream.Send(message); err != nil {
		d.t.Fatalf("send: %v", err)
	}
	answer, err := d.stream.Recv()
	if err != nil {
		d.t.Fatalf("receive: %v", err)
	}
	return answer
}

// over fails the test unless the stream ends without an error.
func (d *dialog) over() {
	d.t.Helper()
	if _, err := d.stream.Recv(); !errors.Is(err, io.EOF) {
		d.t.Errorf("the stream did not end: %v", err)
	}
}

func pairsOf(pairs ...string) *corev3.HeaderMap {
	headers := &corev3.HeaderMap{}
	for i := 0; i < len(pairs); i += 2 {
		headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return headers
}

// ann is what jwt_authn leaves of ann's token.
func ann(t *testing.T) *corev3.Metadata {
	t.Helper()
	claims, err := structpb.NewStruct(map[string]any{resources.JWTClaims: map[string]any{"sub": "ann", "tenant": "acme", "roles": []any{"agent"}}})
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{resources.JWTNamespace: claims}}
}

func buffered() *procv3.ProtocolConfiguration {
	return &procv3.ProtocolConfiguration{
		RequestBodyMode: extprocv3.ProcessingMode_BUFFERED, ResponseBodyMode: extprocv3.ProcessingMode_BUFFERED,
	}
}

// refund are the headers of a refund; end says that no body follows.
func refund(t *testing.T, end bool) *procv3.ProcessingRequest {
	t.Helper()
	return &procv3.ProcessingRequest{
		Request: &procv3.ProcessingRequest_RequestHeaders{RequestHeaders: &procv3.HttpHeaders{
			Headers: pairsOf(":method", "POST", ":path", "/v1/tenants/acme/refunds", ":authority", "payments.internal", ":scheme", "http",
				"content-type", "application/json", "authorization", "Bearer x"),
			EndOfStream: end,
		}},
		MetadataContext: ann(t),
		ProtocolConfig:  buffered(),
	}
}

func requestBody(body string, end bool) *procv3.ProcessingRequest {
	return &procv3.ProcessingRequest{Request: &procv3.ProcessingRequest_RequestBody{RequestBody: &procv3.HttpBody{Body: []byte(body), EndOfStream: end}}}
}

func responseHeaders(end bool, pairs ...string) *procv3.ProcessingRequest {
	return &procv3.ProcessingRequest{
		Request:        &procv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: &procv3.HttpHeaders{Headers: pairsOf(pairs...), EndOfStream: end}},
		ProtocolConfig: buffered(),
	}
}

func responseBody(body string) *procv3.ProcessingRequest {
	return &procv3.ProcessingRequest{Request: &procv3.ProcessingRequest_ResponseBody{ResponseBody: &procv3.HttpBody{Body: []byte(body), EndOfStream: true}}}
}

func start(t *testing.T) *envoytest.Stack {
	t.Helper()
	return envoytest.Start(t, envoytest.Options{Enforcement: writv1.Enforcement_ENFORCEMENT_EXT_PROC, Alone: true})
}

const good = `{"payment":"p-1","amount":1}`

func TestAWholeExchange(t *testing.T) {
	t.Parallel()
	stack := start(t)
	d := open(t, stack, resources.UpstreamKey, "payments")
	if d.send(refund(t, false)).GetRequestHeaders() == nil {
		t.Error("the headers are not answered as headers")
	}
	sent := d.send(requestBody(good, true)).GetRequestBody().GetResponse()
	if sent.GetHeaderMutation() == nil || sent.GetBodyMutation() != nil {
		t.Errorf("a body in canonical form is sent on as %v", sent)
	}
	if d.send(responseHeaders(false, ":status", "200", "content-type", "application/json")).GetResponseHeaders() == nil {
		t.Error("the response's headers are not answered as headers")
	}
	got := d.send(responseBody(`{"refund":"r-1","card":"4111"}`)).GetResponseBody().GetResponse()
	if want := `{"refund":"r-1","card":"[redacted]"}`; string(got.GetBodyMutation().GetBody()) != want {
		t.Errorf("the caller gets %v, want %s", got, want)
	}
	d.over()
	stack.Decisions(1)
}

func TestWhatEndsEarlyIsUnknown(t *testing.T) {
	t.Parallel()
	stack := start(t)
	d := open(t, stack, resources.UpstreamKey, "payments")
	d.send(refund(t, false))
	d.send(requestBody(good, true))
	if err := d.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	d.over()
	if got := stack.Decisions(1)[0].Outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_UNKNOWN {
		t.Errorf("recorded %s", got)
	}
}

func TestAReplyOfEnvoysOwnPasses(t *testing.T) {
	t.Parallel()
	d := open(t, start(t), resources.UpstreamKey, "payments")
	if got := d.send(responseHeaders(false, ":status", "403")).GetResponseHeaders(); got == nil || got.GetResponse() != nil {
		t.Errorf("the headers get %v", got)
	}
	if got := d.send(responseBody("denied")).GetResponseBody(); got == nil || got.GetResponse() != nil {
		t.Errorf("the body gets %v", got)
	}
}

func TestEveryKindOfMessageIsAnswered(t *testing.T) {
	t.Parallel()
	stack := start(t)
	trailers := &procv3.HttpTrailers{}
	if open(t, stack).send(&procv3.ProcessingRequest{Request: &procv3.ProcessingRequest_RequestTrailers{RequestTrailers: trailers}}).GetRequestTrailers() == nil {
		t.Error("request trailers are not answered")
	}
	if open(t, stack).send(&procv3.ProcessingRequest{Request: &procv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: trailers}}).GetResponseTrailers() == nil {
		t.Error("response trailers are not answered")
	}
}

func TestWhatDoesNotBelongThereIsDenied(t *testing.T) {
	t.Parallel()
	stack := start(t)
	to := []string{resources.UpstreamKey, "payments"}
	streamed := refund(t, true)
	streamed.ProtocolConfig.RequestBodyMode = extprocv3.ProcessingMode_STREAMED
	early := refund(t, true)
	early.ProtocolConfig.SendBodyWithoutWaitingForHeaderResponse = true
	unseen := refund(t, false)
	unseen.ProtocolConfig.ResponseBodyMode = extprocv3.ProcessingMode_NONE
	bypassed := responseHeaders(false, ":status", "200")
	details, err := structpb.NewStruct(map[string]any{resources.DetailsAttribute: "via_upstream"})
	if err != nil {
		t.Fatal(err)
	}
	bypassed.Attributes = map[string]*structpb.Struct{"envoy.filters.http.ext_proc": details}
	stranger := refund(t, true)
	stranger.MetadataContext = nil
	cases := map[string]struct {
		metadata []string
		messages []*procv3.ProcessingRequest
		status   int
	}{
		"an empty message":                          {to, []*procv3.ProcessingRequest{{}}, 500},
		"a body without headers":                    {to, []*procv3.ProcessingRequest{requestBody(good, true)}, 500},
		"headers twice":                             {to, []*procv3.ProcessingRequest{refund(t, false), refund(t, false)}, 500},
		"a response's body without headers":         {to, []*procv3.ProcessingRequest{responseBody("x")}, 500},
		"a body that did not come whole":            {to, []*procv3.ProcessingRequest{refund(t, false), requestBody(good, false)}, 400},
		"no body where one is needed":               {to, []*procv3.ProcessingRequest{refund(t, true)}, 400},
		"no upstream":                               {nil, []*procv3.ProcessingRequest{refund(t, true)}, 404},
		"two upstreams":                             {append(to, resources.UpstreamKey, "files"), []*procv3.ProcessingRequest{refund(t, true)}, 404},
		"an unknown upstream":                       {[]string{resources.UpstreamKey, "evil"}, []*procv3.ProcessingRequest{refund(t, true)}, 404},
		"a request's body that streams":             {to, []*procv3.ProcessingRequest{streamed}, 501},
		"a body that does not wait":                 {to, []*procv3.ProcessingRequest{early}, 501},
		"a response that will not be seen":          {to, []*procv3.ProcessingRequest{unseen, requestBody(good, true)}, 501},
		"the answer to a request that was not seen": {to, []*procv3.ProcessingRequest{bypassed}, 500},
		"nobody": {to, []*procv3.ProcessingRequest{stranger}, 401},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, stack, c.metadata...)
			var answer *procv3.ProcessingResponse
			for _, message := range c.messages {
				answer = d.send(message)
			}
			if got := int(answer.GetImmediateResponse().GetStatus().GetCode()); got != c.status {
				t.Errorf("status %d, want %d: %v", got, c.status, answer)
			}
			d.over()
		})
	}
}

func TestAMessageAfterTheAnswerFindsTheStreamOver(t *testing.T) {
	t.Parallel()
	d := open(t, start(t), resources.UpstreamKey, "payments")
	d.send(refund(t, true))
	d.over()
}
