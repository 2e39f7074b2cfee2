// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
	"github.com/writ-dev/writ/tools/web"
)

const schema = `
syntax = "proto3";
package t.v1;
import "google/api/annotations.proto";
import "writ/v1/options.proto";
service Payments {
  rpc Refund(RefundRequest) returns (RefundResponse) {
    option (google.api.http) = {post: "/orders/{order}/refunds" body: "*"};
    option (writ.v1.tool) = {
      name: "payments.refund" risk: RISK_HIGH effect: TOOL_EFFECT_WRITE web: {upstream: "payments"}
    };
  }
  rpc Find(FindRequest) returns (RefundResponse) {
    option (google.api.http) = {get: "/orders"};
    option (writ.v1.tool) = {
      name: "payments.find" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "payments"}
    };
  }
}
message RefundRequest { string order = 1; int64 cents = 2; string note = 3; }
message FindRequest { string customer = 1; }
message RefundResponse {}
`

// typed are the tools of the schema, by name.
var typed = sync.OnceValue(func() map[string]*tools.Tool {
	set, err := schemas.Compile(context.Background(), fstest.MapFS{"t.proto": {Data: []byte(schema)}}, []string{"t.proto"})
	if err != nil {
		panic(err)
	}
	all, err := tools.Load(set)
	if err != nil {
		panic(err)
	}
	byName := make(map[string]*tools.Tool)
	for _, tool := range all {
		byName[tool.Name] = tool
	}
	return byName
})

func newCall(t testing.TB, tool *tools.Tool, arguments string) tools.Execution {
	t.Helper()
	message, err := tool.Request.Read([]byte(arguments), nil, schemas.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tools.Execution{DecisionID: "d-1", Tool: tool, Message: message, JSON: []byte(arguments)}
}

// idempotent returns the tool with another declaration of how often it may run.
func idempotent(tool *tools.Tool) *tools.Tool {
	other := *tool
	other.Options = &writv1.ToolOptions{
		Name: tool.Name, Executor: tool.Options.GetExecutor(), Repeat: writv1.Repeat_REPEAT_IDEMPOTENT,
	}
	return &other
}

func newSocket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// serve returns a unix socket that handler answers on.
func serve(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	socket := newSocket(t)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

var catalogue = &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "payments"}}}

func newExecutor(t testing.TB, o web.Options) *web.Executor {
	t.Helper()
	o.Listener = "unix:" + o.Listener
	if o.Catalogue == nil {
		o.Catalogue = catalogue
	}
	e, err := web.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sent is what an upstream saw of a request.
type sent struct {
	Method, URI, Host string
	Header            http.Header
	Body              any
}

const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestACallIsSentAsItsBindingSays(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		tool, arguments, key string
		want                 sent
	}{
		"a post with a key, within a trace": {
			"payments.refund", `{"order":"7","cents":1200,"note":"a&b"}`, "k-1",
			sent{"POST", "/orders/7/refunds", "payments", http.Header{
				"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"writ"}, "X-Writ-Decision-Id": {"d-1"}, "Idempotency-Key": {"k-1"},
				"Traceparent": {traceParent},
			}, map[string]any{"cents": "any", "note": "a&b"}},
		},
		"a get without one": {
			"payments.find", `{"customer":"ann & co=?"}`, "",
			sent{"GET", "/orders?customer=", "payments", http.Header{"Accept": {"application/json"}, "User-Agent": {"writ"}, "X-Writ-Decision-Id": {"d-1"}}, nil},
		},
		"a path that needs escapes": {
			"payments.refund", `{"order":"a b%c"}`, "",
			sent{"POST", "/orders/a%20b%25c/refunds", "payments", http.Header{
				"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"writ"}, "X-Writ-Decision-Id": {"d-1"},
			}, map[string]any{}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan sent, 1)
			socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
				s := sent{Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header}
				s.Header.Del("Content-Length")
				s.Header.Del("Connection")
				body, _ := io.ReadAll(r.Body) // an error shows as a body that differs
				_ = json.Unmarshal(body, &s.Body)
				seen <- s
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"id":"r-1"}`)) // the test sees what is missing
			})
			call := newCall(t, typed()[tc.tool], tc.arguments)
			call.IdempotencyKey = tc.key
			if tc.key != "" {
				call.TraceParent = traceParent
			}
			result, err := newExecutor(t, web.Options{Listener: socket}).Execute(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			got := <-seen
			if body, ok := got.Body.(map[string]any); ok && body["cents"] != nil {
				body["cents"] = "any" // how a number is written is schemas' matter
			}
			if before, _, found := strings.Cut(got.URI, "="); found {
				got.URI = before + "=" // how a query is escaped is the binding's matter
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if string(result.JSON) != `{"id":"r-1"}` || result.HTTPStatus != 200 || result.ResponseBytes != 12 {
				t.Errorf("result %+v, want the body, 200 and 12 bytes", result)
			}
			if (result.RequestBytes > 0) != (tc.want.Body != nil) {
				t.Errorf("%d bytes were sent", result.RequestBytes)
			}
		})
	}
}

// answer returns a handler with one answer. Names of headers alternate with values.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // the client may have left
	}
}

func TestAnswersAreTakenOrRefused(t *testing.T) {
	t.Parallel()
	const kind, isJSON, byUpstream = "Content-Type", "application/json", "X-Envoy-Upstream-Service-Time"
	const reset = `upstream connect error or disconnect/reset before headers. reset reason: `
	exact := `{"x":"` + strings.Repeat("y", 92) + `"}`
	limit := &tools.LimitError{Limit: "response_bytes"}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		want    string
		err     error
	}{
		"JSON":                                        {answer(200, `{}`, kind, isJSON), `{}`, nil},
		"created":                                     {answer(201, `{}`, kind, isJSON), `{}`, nil},
		"JSON with a charset":                         {answer(200, `{}`, kind, isJSON+"; charset=UTF-8"), `{}`, nil},
		"no content":                                  {answer(204, ``), `{}`, nil},
		"one byte less than the limit":                {answer(200, exact[:99], kind, isJSON), exact[:99], nil},
		"as much as the limit":                        {answer(200, exact, kind, isJSON), exact, nil},
		"one byte over the limit":                     {answer(200, exact+" ", kind, isJSON), "", limit},
		"far over the limit":                          {answer(200, strings.Repeat("x", 1<<20), kind, isJSON), "", limit},
		"another charset":                             {answer(200, `{}`, kind, isJSON+"; charset=latin1"), "", tools.ErrOutputInvalid},
		"another content type":                        {answer(200, `{}`, kind, "text/plain"), "", tools.ErrOutputInvalid},
		"one that only begins like it":                {answer(200, `{}`, kind, isJSON+"-seq"), "", tools.ErrOutputInvalid},
		"no content type":                             {answer(200, `{}`), "", tools.ErrOutputInvalid},
		"a content encoding":                          {answer(200, `{}`, kind, isJSON, "Content-Encoding", "gzip"), "", tools.ErrOutputInvalid},
		"a redirect":                                  {answer(302, ``, "Location", "http://127.0.0.1:1/"), "", tools.ErrUpstreamStatus},
		"not found":                                   {answer(404, `{}`, kind, isJSON), "", tools.ErrUpstreamStatus},
		"a fault of the upstream's":                   {answer(500, `{}`, kind, isJSON), "", tools.ErrUpstreamStatus},
		"unavailable, says the upstream":              {answer(503, `{}`, kind, isJSON, byUpstream, "3"), "", tools.ErrUpstreamStatus},
		"no upstream, says the proxy":                 {answer(503, `no healthy upstream`, kind, "text/plain"), "", tools.ErrUpstreamUnavailable},
		"no connection, says the proxy":               {answer(503, reset+`remote connection failure, transport failure reason: x`), "", tools.ErrUpstreamUnavailable},
		"a connection that broke off, says the proxy": {answer(503, reset+`connection termination`), "", tools.ErrUpstreamStatus},
		"no connection, says the upstream":            {answer(503, `no healthy upstream`, byUpstream, "3"), "", tools.ErrUpstreamStatus},
		"too late, says the upstream":                 {answer(504, ``, byUpstream, "3"), "", tools.ErrUpstreamStatus},
		"too late, says the proxy":                    {answer(504, `upstream request timeout`), "", tools.ErrTimeout},
		"more headers than are read":                  {answer(200, `{}`, kind, isJSON, "X", strings.Repeat("x", 65<<10)), "", tools.ErrFailed},
		"a body that breaks off":                      {answer(200, `{`, kind, isJSON, "Content-Length", "9"), "", tools.ErrFailed},
		"a connection that breaks off":                {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", tools.ErrFailed},
		"switching to another protocol":               {answer(101, ``), "", tools.ErrUpstreamStatus},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Int64
			socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
				seen.Add(1)
				tc.handler(w, r)
			})
			call := newCall(t, idempotent(typed()["payments.refund"]), `{"order":"secret-7"}`)
			call.IdempotencyKey = "k"
			result, err := newExecutor(t, web.Options{Listener: socket, ResponseBytes: 100}).Execute(t.Context(), call)
			checkError(t, err, tc.err)
			if err == nil && string(result.JSON) != tc.want {
				t.Errorf("result %q, want %q", result.JSON, tc.want)
			}
			if err != nil && (result == nil || result.JSON != nil) {
				t.Errorf("result %+v, want one without JSON", result)
			}
			if seen.Load() != 1 {
				t.Errorf("the upstream saw %d requests, want 1: what was sent is not sent again", seen.Load())
			}
		})
	}
}

func checkError(t *testing.T, got, want error) {
	t.Helper()
	var limit, wanted *tools.LimitError
	if errors.As(want, &wanted) {
		if !errors.As(got, &limit) || *limit != *wanted {
			t.Errorf("Execute: %v, want the limit of %s", got, wanted.Limit)
		}
		return
	}
	if !errors.Is(got, want) {
		t.Errorf("Execute: %v, want %v", got, want)
	}
	if got != nil && strings.Contains(got.Error(), "secret") {
		t.Errorf("the error %q holds an argument", got)
	}
}

func TestOnlyWhatNothingSawIsSentAgain(t *testing.T) {
	t.Parallel()
	once := typed()["payments.refund"]
	for name, tc := range map[string]struct {
		tool   *tools.Tool
		opens  int // after how many pauses the socket is there
		pauses []time.Duration
		want   error
	}{
		"a tool that runs once":             {once, 1, nil, tools.ErrUpstreamUnavailable},
		"an idempotent tool, after a pause": {idempotent(once), 1, []time.Duration{25 * time.Millisecond}, nil},
		"an idempotent tool, after two":     {idempotent(once), 2, []time.Duration{25 * time.Millisecond, 50 * time.Millisecond}, nil},
		"an idempotent tool, too late":      {idempotent(once), 3, []time.Duration{25 * time.Millisecond, 50 * time.Millisecond}, tools.ErrUpstreamUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			there := serve(t, answer(200, `{}`, "Content-Type", "application/json"))
			socket := newSocket(t)
			var pauses []time.Duration
			e := newExecutor(t, web.Options{
				Listener: socket,
				Jitter:   func() float64 { return 0.5 },
				Pause: func(_ context.Context, d time.Duration) error {
					if pauses = append(pauses, d); len(pauses) == tc.opens {
						return os.Symlink(there, socket)
					}
					return nil
				},
			})
			_, err := e.Execute(t.Context(), newCall(t, tc.tool, `{"order":"secret-7","cents":5}`))
			checkError(t, err, tc.want)
			if diff := cmp.Diff(tc.pauses, pauses); diff != "" {
				t.Errorf("pauses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestACallWithAKeyIsNotSentAgainByNetHTTP(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) > 1 {
			panic(http.ErrAbortHandler) // on a connection that was used before, this would be retried
		}
		answer(200, `{}`, "Content-Type", "application/json")(w, r)
	})
	e := newExecutor(t, web.Options{Listener: socket})
	call := newCall(t, typed()["payments.refund"], `{"order":"secret-7"}`)
	call.IdempotencyKey = "k"
	_, err := e.Execute(t.Context(), call)
	checkError(t, err, nil)
	_, err = e.Execute(t.Context(), call)
	checkError(t, err, tools.ErrFailed)
	if seen.Load() != 2 {
		t.Errorf("the upstream saw %d requests, want 2", seen.Load())
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	socket := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client leaves
		<-r.Context().Done()
	})
	e := newExecutor(t, web.Options{Listener: socket})
	call := newCall(t, typed()["payments.refund"], `{"order":"secret-7"}`)
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := e.Execute(late, call)
	checkError(t, err, tools.ErrTimeout)
	gone, leave := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, leave)
	_, err = e.Execute(gone, call)
	checkError(t, err, tools.ErrCancelled)
}

func TestNothingIsSentToWhatTheCatalogueDoesNotName(t *testing.T) {
	t.Parallel()
	socket := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for name, tc := range map[string]struct {
		catalogue *writv1.Catalogue
		change    func(*tools.Tool)
	}{
		"another upstream": {&writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "other"}}}, func(*tools.Tool) {}},
		"no upstream":      {&writv1.Catalogue{}, func(*tools.Tool) {}},
		"no binding":       {catalogue, func(tool *tools.Tool) { tool.HTTP = nil }},
		"no web tool":      {catalogue, func(tool *tools.Tool) { tool.Options = &writv1.ToolOptions{} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tool := *typed()["payments.refund"]
			tc.change(&tool)
			_, err := newExecutor(t, web.Options{Listener: socket, Catalogue: tc.catalogue}).Execute(t.Context(), newCall(t, &tool, `{"order":"7"}`))
			checkError(t, err, tools.ErrFailed)
		})
	}
}

func TestTheListenerIsAUnixSocket(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"", "unix:", "unix:/", "unix:relative", "127.0.0.1:80", "/run/s"} {
		if _, err := web.New(web.Options{Listener: listener}); err == nil {
			t.Errorf("New took the listener %q", listener)
		}
	}
}
