// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Seen is a request as an upstream got it.
type Seen struct {
	// Method, Path (with its query) and Body are the request's.
	Method, Path string
	Header       http.Header
	Body         string
}

// Upstream is a service behind Envoy that remembers what reached it.
type Upstream struct {
	server *httptest.Server

	// mu guards what follows.
	mu      sync.Mutex
	seen    []Seen
	respond http.HandlerFunc
}

// Seen returns what has reached the upstream so far.
func (u *Upstream) Seen() []Seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Seen(nil), u.seen...)
}

// Respond has the upstream answer every request with handler from now on; nil
// has it answer as it does.
func (u *Upstream) Respond(handler http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.respond = handler
}

// Stop ends the upstream: nobody listens at its address any more.
func (u *Upstream) Stop() { u.server.Close() }

// address returns host and port.
func (u *Upstream) address() string { return u.server.Listener.Addr().String() }

// newUpstream starts an upstream that answers by handler.
func newUpstream(t testing.TB, handler http.Handler) *Upstream {
	t.Helper()
	u := &Upstream{}
	u.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(newReader(body))
		respond := u.remember(Seen{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), Body: string(body)})
		if respond != nil {
			respond(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(u.server.Close)
	return u
}

func (u *Upstream) remember(seen Seen) http.HandlerFunc {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, seen)
	return u.respond
}

// payments answers every refund with a card's number, which is redacted on its
// way, and every payment with an amount.
func payments() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tenants/{tenant}/refunds", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{ "amount": 4200, "card": "4111111111111111", "refund": "r-1" }`)
	})
	mux.HandleFunc("GET /v1/tenants/{tenant}/payments/{payment}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, fmt.Sprintf(`{"payment":%q,"amount":4200}`, r.PathValue("payment")))
	})
	return mux
}

func answer(w http.ResponseWriter, body string) {
	w.Header().Set("content-type", "application/json")
	if _, err := io.WriteString(w, body); err != nil {
		return // the caller is gone
	}
}

// fileRequest and fileResult are the MCP tool as its server types it.
type fileRequest struct {
	Path string `json:"path"`
}

type fileResult struct {
	Text string `json:"text"`
	Path string `json:"path"`
}

// files is a real MCP server, of the official SDK, with one tool that the bundle
// knows and one that it does not.
func files() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "files", Version: "1"}, nil)
	read := func(_ context.Context, _ *mcp.CallToolRequest, request fileRequest) (*mcp.CallToolResult, fileResult, error) {
		return nil, fileResult{Text: "the secret", Path: request.Path}, nil
	}
	mcp.AddTool(server, &mcp.Tool{Name: "read_file", Description: "Read a file."}, read)
	mcp.AddTool(server, &mcp.Tool{Name: "delete_file", Description: "Delete a file."}, read)
	// The SDK serves the revision without sessions and those with them apart.
	of := func(*http.Request) *mcp.Server { return server }
	stateful := mcp.NewStreamableHTTPHandler(of, &mcp.StreamableHTTPOptions{DisableLocalhostProtection: true})
	stateless := mcp.NewStreamableHTTPHandler(of, &mcp.StreamableHTTPOptions{DisableLocalhostProtection: true, Stateless: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("mcp-protocol-version") >= "2026-07-28" {
			stateless.ServeHTTP(w, r)
			return
		}
		stateful.ServeHTTP(w, r)
	})
}
