// SPDX-License-Identifier: Apache-2.0

package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/writ-dev/writ/tools/mcp"
)

// serve returns a unix socket that handler answers on.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
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

// sdkServer returns a server of the official SDK with count tools.
func sdkServer(count int, supported []string) *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "repo", Version: "1"}, &sdk.ServerOptions{
		PageSize:                  2,
		SupportedProtocolVersions: supported,
	})
	for i := range count {
		tool := &sdk.Tool{
			Name:        fmt.Sprintf("tool_%d", i),
			Description: "does thing <" + fmt.Sprint(i) + ">",
			InputSchema: json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}}}`),
		}
		server.AddTool(tool, func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			return nil, errors.New("nobody may call a tool here")
		})
	}
	return server
}

func TestListReadsWhatServersOfTheOfficialSDKList(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options   sdk.StreamableHTTPOptions
		supported []string
	}{
		"stateless, as JSON":             {sdk.StreamableHTTPOptions{Stateless: true, JSONResponse: true}, nil},
		"stateless, as events":           {sdk.StreamableHTTPOptions{Stateless: true}, nil},
		"with sessions alone, as JSON":   {sdk.StreamableHTTPOptions{JSONResponse: true}, []string{"2025-11-25"}},
		"with sessions alone, as events": {sdk.StreamableHTTPOptions{}, []string{"2025-06-18"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sdkServer(5, tc.supported)
			handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &tc.options)
			var mu sync.Mutex
			var hosts []string
			socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				hosts = append(hosts, r.Host+r.URL.Path)
				mu.Unlock()
				r.Host = "localhost" // what the SDK believes of a loopback listener
				handler.ServeHTTP(w, r)
			}))
			definitions, err := mcp.ThroughEnvoy(socket, "repo", "/mcp").List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range definitions {
				var tool sdk.Tool
				if err := json.Unmarshal(d.JSON, &tool); err != nil {
					t.Fatal(err)
				}
				got = append(got, d.Name+": "+tool.Description)
			}
			want := []string{"tool_0: does thing <0>", "tool_1: does thing <1>", "tool_2: does thing <2>", "tool_3: does thing <3>", "tool_4: does thing <4>"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("definitions (-want +got):\n%s", diff)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, host := range hosts {
				if host != "repo/mcp" {
					t.Errorf("a request went to %q, want repo/mcp", host)
				}
			}
		})
	}
}

func TestListAtAURLReadsTheSame(t *testing.T) {
	t.Parallel()
	server := sdkServer(1, nil)
	web := httptest.NewServer(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, nil))
	t.Cleanup(web.Close)
	client, err := mcp.AtURL(web.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := client.List(t.Context())
	if err != nil || len(definitions) != 1 {
		t.Errorf("List = %v, %v, want one definition", definitions, err)
	}
	for _, address := range []string{"unix:/x", "file:///etc/passwd", "http://", "http://u:p@localhost/", ":"} {
		if _, err := mcp.AtURL(address); err == nil {
			t.Errorf("AtURL(%q) took it", address)
		}
	}
}

func TestPinsSaysTheDigestOfEveryTool(t *testing.T) {
	t.Parallel()
	odd := errors.New("it can be read in two ways")
	socket := serve(t, answering(asJSON, result(`[{"name":"x","description":"d"},{"name":"y"}]`)))
	pins, err := mcp.ThroughEnvoy("unix:"+socket, "repo", "/mcp").Pins(t.Context(), func(definition []byte) (string, error) {
		if strings.Contains(string(definition), "y") {
			return "", odd
		}
		return "digest of " + string(definition), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []mcp.Pinned{{Name: "x", Digest: `digest of {"name":"x","description":"d"}`}, {Name: "y", Err: odd}}
	if diff := cmp.Diff(want, pins, cmpopts.EquateErrors()); diff != "" {
		t.Errorf("pins (-want +got):\n%s", diff)
	}
}

// answering returns a handler that answers every request of the stateless
// generation with one body.
func answering(contentType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(body)) // the client may have left
	})
}

const (
	asJSON   = "application/json"
	asEvents = "text/event-stream"
)

func result(tools string) string {
	return `{"jsonrpc":"2.0","id":1,"result":{"tools":` + tools + `}}`
}

func TestListTakesOddButCleanAnswers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.Handler{
		"no tool":                     answering(asJSON, result(`[]`)),
		"a content type with charset": answering("application/json; charset=utf-8", result(`[]`)),
		"a notification before":       answering(asEvents, "data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\ndata: "+result(`[]`)+"\n\n"),
		"a request of the server's":   answering(asEvents, "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\ndata: "+result(`[]`)+"\n\n"),
		"an answer to somebody else":  answering(asEvents, "data: {\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}\n\ndata: "+result(`[]`)+"\n\n"),
		"events without data":         answering(asEvents, ": ping\n\nid: 7\ndata\n\nevent: message\ndata: "+result(`[]`)+"\n\n"),
		"lines that end with CR LF":   answering(asEvents, "data: "+result(`[]`)+"\r\n\r\n"),
		"lines that end with CR":      answering(asEvents, "data: "+result(`[]`)+"\r\r"),
		"data over several lines":     answering(asEvents, "data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{\"tools\":[]}}\n\n"),
		"a byte order mark, no space": answering(asEvents, "\ufeffdata:"+result(`[]`)+"\n\n"),
		"members that we do not know": answering(asJSON, `{"jsonrpc":"2.0","id":1,"x":1,"result":{"tools":[],"ttlMs":5}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			definitions, err := mcp.ThroughEnvoy(serve(t, handler), "repo", "/mcp").List(t.Context())
			if err != nil || len(definitions) != 0 {
				t.Errorf("List = %v, %v, want nothing", definitions, err)
			}
		})
	}
}

func TestListRefusesWhatIsNotClean(t *testing.T) {
	t.Parallel()
	big := strings.Repeat(" ", 4<<20)
	many := "[" + strings.Repeat(`{"name":"x"},`, 10_000) + `{"name":"x"}]`
	for name, handler := range map[string]http.Handler{
		"no JSON":                     answering(asJSON, `{`),
		"trailing data":               answering(asJSON, result(`[]`)+`{}`),
		"a key twice":                 answering(asJSON, result(`[{"name":"a","name":"b"}]`)),
		"a key twice, deep":           answering(asJSON, result(`[{"name":"a","inputSchema":{"x":1,"x":2}}]`)),
		"invalid UTF-8":               answering(asJSON, result("[{\"name\":\"a\xff\"}]")),
		"another version":             answering(asJSON, `{"jsonrpc":"1.0","id":1,"result":{"tools":[]}}`),
		"an id in quotes":             answering(asJSON, `{"jsonrpc":"2.0","id":"1","result":{"tools":[]}}`),
		"another id":                  answering(asJSON, `{"jsonrpc":"2.0","id":2,"result":{"tools":[]}}`),
		"result and error":            answering(asJSON, `{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"error":{"code":1}}`),
		"neither result nor error":    answering(asJSON, `{"jsonrpc":"2.0","id":1}`),
		"a batch":                     answering(asJSON, `[`+result(`[]`)+`]`),
		"no list":                     answering(asJSON, `{"jsonrpc":"2.0","id":1,"result":{}}`),
		"a list that is an object":    answering(asJSON, result(`{}`)),
		"a tool that is a string":     answering(asJSON, result(`["x"]`)),
		"a tool that is null":         answering(asJSON, result(`[null]`)),
		"a tool without a name":       answering(asJSON, result(`[{}]`)),
		"a tool with too long a name": answering(asJSON, result(`[{"name":"`+strings.Repeat("x", 129)+`"}]`)),
		"two tools of one name":       answering(asJSON, result(`[{"name":"x"},{"name":"x"}]`)),
		"too many tools":              answering(asJSON, result(many)),
		"pages without end":           answering(asJSON, `{"jsonrpc":"2.0","id":1,"result":{"tools":[],"nextCursor":"x"}}`),
		"too long a cursor":           answering(asJSON, `{"jsonrpc":"2.0","id":1,"result":{"tools":[],"nextCursor":"`+strings.Repeat("x", 4097)+`"}}`),
		"more than is read":           answering(asJSON, result(`[]`)+big),
		"more events than are read":   answering(asEvents, strings.Repeat(": x\n\n", 1<<20)),
		"a line longer than is read":  answering(asEvents, "data: "+big+"x\n\n"),
		"a stream that ends":          answering(asEvents, "data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n"),
		"an event that is cut":        answering(asEvents, "data: "+result(`[]`)),
		"another content type":        answering("text/html", result(`[]`)),
		"no content type":             answering("", result(`[]`)),
		"a redirect":                  http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect),
		"an error of the server's":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"an error for everything":     answering(asJSON, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}`),
		"a compressed answer": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answering(asJSON, result(`[]`)).ServeHTTP(w, r)
		}),
		"a session id that is a header": sessionServer("a\tb", "2025-11-25"),
		"a session id that is too long": sessionServer(strings.Repeat("x", 1025), "2025-11-25"),
		"a revision that is not known":  sessionServer("x", "2099-01-01"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			definitions, err := mcp.ThroughEnvoy(serve(t, handler), "repo", "/mcp").List(t.Context())
			if !errors.Is(err, mcp.ErrRefused) {
				t.Errorf("List = %d definitions, %v, want a refusal", len(definitions), err)
			}
		})
	}
}

// sessionServer speaks the generation with sessions, and knows one tool.
func sessionServer(id, revision string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct {
			ID     int    `json:"id"`
			Method string `json:"method"`
		}
		_ = json.NewDecoder(r.Body).Decode(&message) // a DELETE has none
		w.Header().Set("Content-Type", asJSON)
		switch {
		case r.Header.Get("Mcp-Protocol-Version") == "2026-07-28":
			w.WriteHeader(http.StatusBadRequest)
		case message.Method == "initialize":
			w.Header().Set("Mcp-Session-Id", id)
			_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{"protocolVersion":%q}}`, message.ID, revision)
		case r.Header.Get("Mcp-Session-Id") != id || r.Header.Get("Mcp-Protocol-Version") != revision:
			w.WriteHeader(http.StatusNotFound)
		case message.Method == "tools/list":
			_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":{"tools":[{"name":"x"}]}}`, message.ID)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
}

func TestListKeepsItsSessionAndEndsIt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ended []string
	handler := sessionServer("s-1", "2025-11-25")
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			mu.Lock()
			ended = append(ended, r.Header.Get("Mcp-Session-Id"))
			mu.Unlock()
		}
		handler.ServeHTTP(w, r)
	}))
	definitions, err := mcp.ThroughEnvoy(socket, "repo", "/mcp").List(t.Context())
	if err != nil || len(definitions) != 1 {
		t.Fatalf("List = %v, %v, want one definition", definitions, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"s-1"}, ended); diff != "" {
		t.Errorf("sessions ended (-want +got):\n%s", diff)
	}
}

func TestListDoesNotWaitForASilentServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client leaves
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	}))
	if _, err := mcp.ThroughEnvoy(socket, "repo", "/mcp").List(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, mcp.ErrRefused) {
		t.Errorf("List: %v, want it cancelled", err)
	}
	if _, err := mcp.ThroughEnvoy(socket+"x", "repo", "/mcp").List(t.Context()); err == nil {
		t.Error("List reached a socket that is not there")
	}
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(result(`[{"name":"x","description":"y","inputSchema":{"type":"object"}}]`)), false)
	f.Add([]byte("data: "+result(`[]`)+"\n\n"), true)
	f.Add([]byte("event: m\rdata: {\r\ndata: }\n\n"), true)
	answer := make(chan http.Handler, 1)
	socket := serve(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := <-answer
		h.ServeHTTP(w, r)
		answer <- h
	}))
	client := mcp.ThroughEnvoy(socket, "repo", "/mcp")
	f.Fuzz(func(t *testing.T, body []byte, events bool) {
		kind := asJSON
		if events {
			kind = asEvents
		}
		answer <- answering(kind, string(body))
		defer func() { <-answer }()
		definitions, err := client.List(t.Context())
		if err != nil {
			return
		}
		for _, d := range definitions {
			if d.Name == "" || !json.Valid(d.JSON) {
				t.Errorf("definition %q is %q", d.Name, d.JSON)
			}
		}
	})
}
