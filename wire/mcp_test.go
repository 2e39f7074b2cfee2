// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
	"github.com/writ-dev/writ/wire"
)

const maxBody = 4096

func limits() wire.Limits {
	bound := schemas.Limits{Bytes: maxBody, Depth: 16, Values: 200}
	return wire.Limits{Request: bound, Response: bound}
}

// mcpRoute is the way to a server that lists two tools; a third tool of the
// bundle is elsewhere.
func mcpRoute() *wire.Route {
	bound := func(name, upstream, listed string) *tools.Tool {
		binding := &writv1.McpBinding{Upstream: upstream, Tool: listed}
		return &tools.Tool{Name: name, Options: &writv1.ToolOptions{Name: name, Executor: &writv1.ToolOptions_Mcp{Mcp: binding}}}
	}
	catalogue := &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "files", Protocol: writv1.Protocol_PROTOCOL_MCP}}}
	all := []*tools.Tool{bound("files.read", "files", "read_file"), bound("files.write", "files", "write_file"), bound("other.tool", "other", "tool")}
	return wire.NewRoutes(catalogue, all, limits())["files"]
}

func headers(pairs ...string) []wire.Header {
	var all []wire.Header
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, wire.Header{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}

func post(body string, extra ...string) *wire.Request {
	return &wire.Request{
		Method: "POST", Path: "/mcp", Authority: "files.internal", Scheme: "http",
		Headers: headers(append([]string{"content-type", "application/json"}, extra...)...), Body: []byte(body),
	}
}

const (
	sessionCall = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/a","deep":{"user_id":3}}}}`
	modernMeta  = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	modernCall  = `{"jsonrpc":"2.0","id":"q-1","method":"tools/call","params":{"name":"read_file","arguments":{"path":"/ä"},` + modernMeta + `}}`
)

var modern = []string{"mcp-protocol-version", "2026-07-28", "mcp-method", "tools/call", "mcp-name", "read_file"}

func modernWith(extra ...string) []string { return append(append([]string{}, modern...), extra...) }

func TestMCPReadsACallInBothGenerations(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		request   *wire.Request
		arguments string
		key       string
	}{
		"a call of a session revision": {
			post(sessionCall, "mcp-protocol-version", "2025-11-25", "mcp-session-id", "s-1"),
			`{"path":"/a","deep":{"user_id":3}}`, "",
		},
		"a call that names no revision": {post(sessionCall), `{"path":"/a","deep":{"user_id":3}}`, ""},
		"a stateless call":              {post(modernCall, modern...), `{"path":"/ä"}`, ""},
		"a stateless call with its parameter mirrored in base64": {
			post(modernCall, modernWith("mcp-param-path", "=?base64?L8Ok?=")...), `{"path":"/ä"}`, "",
		},
		"a parameter mirrored from within an object": {
			post(sessionCall, "mcp-param-user-id", "3"), `{"path":"/a","deep":{"user_id":3}}`, "",
		},
		"a key in the header": {post(sessionCall, "idempotency-key", "k-1"), `{"path":"/a","deep":{"user_id":3}}`, "k-1"},
		"a call without arguments": {
			post(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file"}}`), `{}`, "",
		},
		"a key in _meta": {
			post(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","_meta":{"dev.writ/idempotency-key":"k-2"}}}`), `{}`, "k-2",
		},
		"a content type with its charset": {
			&wire.Request{Method: "POST", Path: "/mcp", Headers: headers("content-type", "application/json; charset=UTF-8"), Body: []byte(sessionCall)},
			`{"path":"/a","deep":{"user_id":3}}`, "",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := mcpRoute().Decode(c.request)
			if call.Refusal != nil {
				t.Fatalf("refused: %v", call.Refusal)
			}
			got := []string{call.Envelope.GetToolCall().GetName(), string(call.Arguments.JSON), call.IdempotencyKey}
			if diff := cmp.Diff([]string{"files.read", c.arguments, c.key}, got); diff != "" {
				t.Errorf("tool, arguments, key (-want +got):\n%s", diff)
			}
			if call.Kind != wire.KindCall {
				t.Errorf("kind %d", call.Kind)
			}
		})
	}
}

func TestMCPReadsTheEnvelope(t *testing.T) {
	t.Parallel()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write_file","_meta":{"dev.writ/envelope":{
		"request_id":"r-1","intent":"refund","user_role":"agent","retrieval":{"kb_doc_ids":["kb-1","kb-2"],"tenant":"t-1","top_k":5,
		"documents":[{"id":"kb-1","retrieve_time":"2026-01-02T03:04:05Z","snippet_sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]},
		"tool_call":{"policy_checks":["role_allowed"],"approved":true}}}}}`
	call := mcpRoute().Decode(post(body))
	if call.Refusal != nil {
		t.Fatalf("refused: %v", call.Refusal)
	}
	e := call.Envelope
	got := fmt.Sprint(e.GetRequestId(), e.GetRetrieval().GetKbDocIds(), e.GetRetrieval().GetTopK(), len(e.GetRetrieval().GetDocuments()[0].GetSnippetSha256()),
		e.GetToolCall().GetName(), e.GetToolCall().GetPolicyChecks(), e.GetToolCall().GetApproved())
	if want := "r-1[kb-1 kb-2]532files.write[role_allowed]true"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("envelope: got %s, want %s", got, want)
	}
}

func TestMCPLetsHousekeepingPass(t *testing.T) {
	t.Parallel()
	cases := map[string]*wire.Request{
		"initialize":      post(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`),
		"initialized":     post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`, "mcp-session-id", "s"),
		"cancelled":       post(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`),
		"ping":            post(`{"jsonrpc":"2.0","id":1,"method":"ping"}`),
		"a list":          post(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}`),
		"discover":        post(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+modernMeta+`}}`, "mcp-protocol-version", "2026-07-28", "mcp-method", "server/discover"),
		"the stream":      {Method: "GET", Path: "/mcp", Headers: headers("accept", "text/event-stream", "mcp-session-id", "s")},
		"a session's end": {Method: "DELETE", Path: "/mcp", Headers: headers("mcp-session-id", "s")},
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := mcpRoute().Decode(request)
			if call.Refusal != nil || call.Kind != wire.KindHousekeeping {
				t.Errorf("kind %d, refusal %v", call.Kind, call.Refusal)
			}
			if call.Streams != (request.Method == "GET") {
				t.Errorf("Streams = %t", call.Streams)
			}
		})
	}
}

func call(id, params string) string {
	return `{"jsonrpc":"2.0",` + id + `"method":"tools/call","params":` + params + `}`
}

func TestMCPRefusesWhatItCannotReadInOneWay(t *testing.T) {
	t.Parallel()
	read := `{"name":"read_file","arguments":{}}`
	cases := map[string]struct {
		request *wire.Request
		want    writv1.Reason
	}{
		"no content type":                    {&wire.Request{Method: "POST", Path: "/mcp", Body: []byte(sessionCall)}, writv1.Reason_REASON_DECODE_CONTENT_TYPE},
		"another content type":               {&wire.Request{Method: "POST", Path: "/mcp", Headers: headers("content-type", "text/plain"), Body: []byte(sessionCall)}, writv1.Reason_REASON_DECODE_CONTENT_TYPE},
		"another charset":                    {&wire.Request{Method: "POST", Path: "/mcp", Headers: headers("content-type", "application/json; charset=utf-16"), Body: []byte(sessionCall)}, writv1.Reason_REASON_DECODE_CONTENT_TYPE},
		"two content types":                  {post(sessionCall, "content-type", "text/plain"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"a compressed body":                  {post(sessionCall, "content-encoding", "gzip"), writv1.Reason_REASON_DECODE_COMPRESSED},
		"a partial body":                     {post(sessionCall, "x-envoy-auth-partial-body", "true"), writv1.Reason_REASON_DECODE_PARTIAL_BODY},
		"a method override":                  {post(sessionCall, "x-http-method-override", "GET"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"another path":                       {&wire.Request{Method: "POST", Path: "/mcp/", Headers: headers("content-type", "application/json"), Body: []byte(sessionCall)}, writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"a query":                            {&wire.Request{Method: "POST", Path: "/mcp?x=1", Headers: headers("content-type", "application/json"), Body: []byte(sessionCall)}, writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"another HTTP method":                {&wire.Request{Method: "PUT", Path: "/mcp"}, writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"a stateless GET":                    {&wire.Request{Method: "GET", Path: "/mcp", Headers: headers("mcp-protocol-version", "2026-07-28")}, writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"an empty body":                      {post(""), writv1.Reason_REASON_DECODE_MALFORMED},
		"a truncated body":                   {post(sessionCall[:40]), writv1.Reason_REASON_DECODE_MALFORMED},
		"trailing data":                      {post(sessionCall + "{}"), writv1.Reason_REASON_DECODE_MALFORMED},
		"a duplicate key in the message":     {post(`{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`), writv1.Reason_REASON_DECODE_DUPLICATE_KEY},
		"a duplicate key in the arguments":   {post(call(`"id":1,`, `{"name":"read_file","arguments":{"a":{"b":1,"b":2}}}`)), writv1.Reason_REASON_DECODE_DUPLICATE_KEY},
		"a duplicate key by an escape":       {post(call(`"id":1,`, `{"name":"read_file","n\u0061me":"write_file"}`)), writv1.Reason_REASON_DECODE_DUPLICATE_KEY},
		"invalid UTF-8":                      {post(call(`"id":1,`, "{\"name\":\"read_file\",\"arguments\":{\"a\":\"\xff\"}}")), writv1.Reason_REASON_DECODE_INVALID_UTF8},
		"too deep a value":                   {post(call(`"id":1,`, `{"name":"read_file","arguments":`+strings.Repeat(`{"a":`, 20)+"1"+strings.Repeat("}", 20)+`}`)), writv1.Reason_REASON_DECODE_TOO_DEEP},
		"too large a body":                   {post(sessionCall + strings.Repeat(" ", maxBody)), writv1.Reason_REASON_DECODE_TOO_LARGE},
		"a batch":                            {post("[" + sessionCall + "]"), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a string":                           {post(`"tools/call"`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"JSON-RPC 1.0":                       {post(`{"jsonrpc":"1.0","id":1,"method":"ping"}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"no version":                         {post(`{"id":1,"method":"ping"}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a member that requests lack":        {post(`{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a response":                         {post(`{"jsonrpc":"2.0","id":1,"result":{}}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a call without an id":               {post(call("", read)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a notification with an id":          {post(`{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a null id":                          {post(call(`"id":null,`, read)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a fractional id":                    {post(call(`"id":1.5,`, read)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"an id with an exponent":             {post(call(`"id":1e2,`, read)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"an id that is an object":            {post(call(`"id":{},`, read)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a call without params":              {post(`{"jsonrpc":"2.0","id":1,"method":"tools/call"}`), writv1.Reason_REASON_DECODE_PROTOCOL},
		"params that are a list":             {post(call(`"id":1,`, `[]`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a call without a name":              {post(call(`"id":1,`, `{"arguments":{}}`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a name that is a number":            {post(call(`"id":1,`, `{"name":1}`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"arguments that are a list":          {post(call(`"id":1,`, `{"name":"read_file","arguments":[]}`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a task":                             {post(call(`"id":1,`, `{"name":"read_file","task":{}}`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"answers to a server's question":     {post(call(`"id":1,`, `{"name":"read_file","inputResponses":{}}`)), writv1.Reason_REASON_DECODE_PROTOCOL},
		"resources/read":                     {post(`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}`), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"prompts/get":                        {post(`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}`), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"sampling":                           {post(`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}`), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"a method in another case":           {post(`{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":` + read + `}`), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"initialize in the stateless form":   {post(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{`+modernMeta+`}}`, "mcp-protocol-version", "2026-07-28", "mcp-method", "initialize"), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN},
		"an unsupported revision":            {post(sessionCall, "mcp-protocol-version", "2027-01-01"), writv1.Reason_REASON_DECODE_PROTOCOL},
		"two revisions":                      {post(sessionCall, "mcp-protocol-version", "2025-11-25", "mcp-protocol-version", "2025-06-18"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"a header of another revision":       {post(modernCall, "mcp-protocol-version", "2025-11-25"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"a stateless body without headers":   {post(modernCall), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"a stateless header on a plain body": {post(sessionCall, modern...), writv1.Reason_REASON_DECODE_PROTOCOL},
		"no Mcp-Method":                      {post(modernCall, "mcp-protocol-version", "2026-07-28", "mcp-name", "read_file"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"no Mcp-Name":                        {post(modernCall, "mcp-protocol-version", "2026-07-28", "mcp-method", "tools/call"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"another Mcp-Name":                   {post(sessionCall, "mcp-name", "write_file"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"another Mcp-Method":                 {post(sessionCall, "mcp-method", "tools/list"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"another Mcp-Param":                  {post(sessionCall, "mcp-param-path", "/b"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"a Mcp-Param of no argument":         {post(sessionCall, "mcp-param-region", "eu"), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"a Mcp-Param in broken base64":       {post(sessionCall, "mcp-param-path", "=?base64?*?="), writv1.Reason_REASON_DECODE_HEADER_MISMATCH},
		"two keys":                           {post(sessionCall, "idempotency-key", "a", "idempotency-key", "b"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"a key with a space":                 {post(sessionCall, "idempotency-key", "a b"), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a session id with a space":          {post(sessionCall, "mcp-session-id", "a b"), writv1.Reason_REASON_DECODE_PROTOCOL},
		"a name of the bundle's own":         {post(call(`"id":1,`, `{"name":"files.read"}`)), writv1.Reason_REASON_TOOL_UNKNOWN},
		"a tool of another upstream":         {post(call(`"id":1,`, `{"name":"other.tool"}`)), writv1.Reason_REASON_TOOL_UNKNOWN},
		"an envelope that is a list":         {post(call(`"id":1,`, `{"name":"read_file","_meta":{"dev.writ/envelope":[]}}`)), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"an envelope with an unknown field":  {post(call(`"id":1,`, `{"name":"read_file","_meta":{"dev.writ/envelope":{"role":"x"}}}`)), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"an envelope with a null":            {post(call(`"id":1,`, `{"name":"read_file","_meta":{"dev.writ/envelope":{"intent":null}}}`)), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"an envelope that names the tool":    {post(call(`"id":1,`, `{"name":"read_file","_meta":{"dev.writ/envelope":{"tool_call":{"name":"x"}}}}`)), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"an envelope that breaks a rule":     {post(call(`"id":1,`, `{"name":"read_file","_meta":{"dev.writ/envelope":{"intent":"`+strings.Repeat("x", 257)+`"}}}`)), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := mcpRoute().Decode(c.request)
			if got.Refusal == nil || got.Refusal.Reason != c.want {
				t.Errorf("refusal %v, want %s", got.Refusal, reasons.Name(c.want))
			}
		})
	}
}

func TestMCPBoundsTheBodyToTheByte(t *testing.T) {
	t.Parallel()
	for _, extra := range []int{-1, 0, 1} {
		body := sessionCall + strings.Repeat(" ", maxBody-len(sessionCall)+extra)
		call := mcpRoute().Decode(post(body))
		if refused := call.Refusal != nil; refused != (extra > 0) {
			t.Errorf("limit%+d bytes: %v", extra, call.Refusal)
		}
	}
}
