// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// FuzzMCP reads any body. What is let through is written again, and reads as the
// same call; what is refused is denied with JSON, whatever came in.
func FuzzMCP(f *testing.F) {
	for _, seed := range []string{
		sessionCall, modernCall, "", "[]", "{", `{"id":1e999}`, "\xff",
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"/repo","max_count":3},"_meta":{"progressToken":1}}}`,
		`{"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"mcp","version":"0.1.0"}},"jsonrpc":"2.0","id":0}`,
		`{"method":"notifications/initialized","jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","id":"\ud800","method":"tools/list"}`,
	} {
		f.Add([]byte(seed), "2026-07-28", "tools/call", "read_file")
		f.Add([]byte(seed), "", "", "")
	}
	route := mcpRoute()
	f.Fuzz(func(t *testing.T, body []byte, revision, method, name string) {
		request := &wire.Request{Method: "POST", Path: "/mcp", Headers: headers("content-type", "application/json"), Body: body}
		for _, header := range headers("mcp-protocol-version", revision, "mcp-method", method, "mcp-name", name) {
			if header.Value != "" {
				request.Headers = append(request.Headers, header)
			}
		}
		call := route.Decode(request)
		denial := call.Deny(&wire.Denial{Refusal: reasons.New(writv1.Reason_REASON_GRANT_DENIED, "", "no")})
		if len(denial.Body) > 0 && !json.Valid(denial.Body) {
			t.Fatalf("the denial is not JSON: %q", denial.Body)
		}
		if call.Refusal != nil || call.Kind != wire.KindCall {
			return
		}
		sent, err := call.Rewrite(call.Arguments.JSON, nil)
		if err != nil {
			t.Fatalf("the call cannot be sent on: %v", err)
		}
		again := route.Decode(&wire.Request{Method: sent.Method, Path: sent.Path, Headers: request.Headers, Body: sent.Body})
		if again.Refusal != nil || !bytes.Equal(again.Arguments.JSON, call.Arguments.JSON) ||
			again.Envelope.GetToolCall().GetName() != call.Envelope.GetToolCall().GetName() {
			t.Fatalf("what is sent on reads as another call: %v\nin:  %q\nout: %q", again.Refusal, body, sent.Body)
		}
	})
}

// FuzzMCPAnswer gives any response. What comes back to the caller is JSON, and
// holds nothing that the schema did not see.
func FuzzMCPAnswer(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"x"}],"structuredContent":{"a":1}}}`), false)
	f.Add([]byte("event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[]}}\n\n"), true)
	f.Add([]byte("data: {\r\rdata:\n\n"), true)
	route := mcpRoute()
	refuse := func([]byte) ([]byte, *reasons.Error) {
		return nil, reasons.New(writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, "", "no")
	}
	want := route.Decode(post(sessionCall)).Answer(&wire.Response{Status: 200}, "", refuse).Response.Body
	f.Fuzz(func(t *testing.T, body []byte, stream bool) {
		response := jsonAnswer(string(body))
		if stream {
			response = events(string(body))
		}
		answer := route.Decode(post(sessionCall)).Answer(response, "", refuse)
		if answer.Failure == nil || !json.Valid(answer.Response.Body) {
			t.Fatalf("failure %v, body %q", answer.Failure, answer.Response.Body)
		}
		if len(answer.Response.Body) > 2*len(want) {
			t.Fatalf("the answer says too much: %q", answer.Response.Body)
		}
	})
}

// FuzzEnvelope reads any claims.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"request_id":"r","retrieval":{"top_k":3,"documents":[{"id":"d","retrieve_time":"2026-01-01T00:00:00Z"}]}}`))
	f.Add([]byte(`{"retrieval":{"top_k":4294967296}}`))
	f.Add([]byte(`{"tool_call":{"args":{"text":"AA=="}}}`))
	route := mcpRoute()
	f.Fuzz(func(t *testing.T, envelope []byte) {
		body := append(append([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","_meta":{"dev.writ/envelope":`), envelope...), `}}}`...)
		call := route.Decode(post(string(body)))
		if call.Refusal == nil && call.Envelope.GetToolCall().GetName() != "files.read" {
			t.Fatalf("the envelope names the tool: %v", call.Envelope)
		}
	})
}
