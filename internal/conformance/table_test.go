// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"net/http"
	"strings"
	"time"

	"github.com/writ-dev/writ/internal/envoytest"
)

// row is one call. Its arguments are one JSON text, whatever way they travel: an
// HTTP body, an MCP message, a gRPC request.
type row struct {
	name string
	tool string
	args string
	// tenant stands in the path over HTTP, and is put among the arguments over gRPC.
	tenant string
	// claims is the envelope in JSON, without the call.
	claims string
	// key is the idempotency key.
	key string
	// token makes the user's token; nil is that of ann, an agent of acme.
	token func(*envoytest.Issuer) string
	// change makes the request what only HTTP can say; such a row is not for gRPC.
	change func(*http.Request)
	want   string
}

const (
	refund = "orders.return_money"
	look   = "orders.look_up"
	read   = "files.read"

	allow = "GRANTED"
)

func tokenOf(user, tenant string, roles ...string) func(*envoytest.Issuer) string {
	return func(i *envoytest.Issuer) string { return i.Token(user, tenant, roles...) }
}

func nobody(*envoytest.Issuer) string { return "" }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func target(path string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Opaque, r.URL.Path = "", path }
}

// query sets the raw query.
func query(raw string) func(*http.Request) {
	return func(r *http.Request) { r.URL.RawQuery = raw }
}

func method(name string) func(*http.Request) {
	return func(r *http.Request) { r.Method = name }
}

const good = `{"payment":"p-1","amount":4200}`

func deep(levels int) string {
	return `{"payment":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `}`
}

// rows are the table. Every class of malformed call is in it.
var rows = []row{
	// What is allowed.
	{name: "a refund", tool: refund, args: good, want: allow},
	{name: "keys in another order, with spaces", tool: refund, args: " {\n\"amount\" : 4200 ,\t\"payment\":\"p-1\"}\r\n", want: allow},
	{name: "an escaped string", tool: refund, args: `{"payment":"p-\u0031","amount":4200}`, want: allow},
	{name: "a sensitive note", tool: refund, args: `{"payment":"p-1","amount":1,"note":"the card 4111111111111111"}`, want: allow},
	{name: "the highest amount without a human", tool: refund, args: `{"payment":"p-1","amount":5000}`, want: allow},
	{name: "a payment", tool: look, args: `{"payment":"p-7"}`, want: allow},
	{name: "a file", tool: read, args: `{"path":"/a"}`, want: allow},
	{name: "a file of another script", tool: read, args: `{"path":"/ä/日本"}`, want: allow},
	{name: "true claims", tool: refund, args: good, claims: `{"request_id":"r-1","intent":"refund_request","user_role":"agent","retrieval":{"kb_doc_ids":["kb-1"],"tenant":"acme","top_k":3}}`, want: allow},
	{name: "true claims to an MCP tool", tool: read, args: `{"path":"/a"}`, claims: `{"request_id":"r-2","model_route":"support-default"}`, want: allow},
	{name: "a key", tool: refund, args: `{"payment":"p-9","amount":1}`, key: "k-1", want: allow},
	{name: "a key to an MCP tool", tool: read, args: `{"path":"/k"}`, key: "k-2", want: allow},
	// Keys seen before.
	{name: "the key again", tool: refund, args: `{"payment":"p-9","amount":1}`, key: "k-1", want: "ADMISSION_ALREADY_RELEASED"},
	{name: "the key for another call", tool: refund, args: `{"payment":"p-9","amount":2}`, key: "k-1", want: "ADMISSION_KEY_REUSED"},
	{name: "the MCP tool's key again", tool: read, args: `{"path":"/k"}`, key: "k-2", want: "ADMISSION_ALREADY_RELEASED"},
	// Checks and grants.
	{name: "a little more needs a human", tool: refund, args: `{"payment":"p-1","amount":5001}`, want: "APPROVAL_REQUIRED"},
	{name: "the highest amount with a human", tool: refund, args: `{"payment":"p-1","amount":10000}`, want: "APPROVAL_REQUIRED"},
	{name: "too much", tool: refund, args: `{"payment":"p-1","amount":10001}`, want: "CONDITION_CHECK_FAILED"},
	{name: "another tenant", tool: refund, args: good, tenant: "evil", want: "GRANT_TENANT_ISOLATION"},
	{name: "a user without the role", tool: refund, args: good, token: tokenOf("bob", "acme"), want: "GRANT_MISSING"},
	{name: "a user with another role", tool: read, args: `{"path":"/a"}`, token: tokenOf("bob", "acme", "guest"), want: "GRANT_MISSING"},
	{name: "a user without a tenant", tool: refund, args: good, token: tokenOf("bob", "", "agent"), want: "GRANT_TENANT_ISOLATION"},
	{name: "nobody", tool: refund, args: good, token: nobody, want: "PRINCIPAL_UNAUTHENTICATED"},
	{name: "nobody calls an MCP tool", tool: read, args: `{"path":"/a"}`, token: nobody, want: "PRINCIPAL_UNAUTHENTICATED"},
	{name: "a token that is cut off", tool: refund, args: good, token: func(i *envoytest.Issuer) string {
		whole := i.Token("ann", "acme", "agent")
		return whole[:len(whole)-4]
	}, want: "PRINCIPAL_TOKEN_INVALID"},
	{name: "an expired token", tool: refund, args: good, token: func(i *envoytest.Issuer) string {
		return i.TokenUntil(time.Now().Add(-time.Hour), "ann", "acme", "agent")
	}, want: "PRINCIPAL_TOKEN_INVALID"},
	// Claims that are not true.
	{name: "a role that is claimed", tool: refund, args: good, claims: `{"user_role":"admin"}`, want: "CONDITION_CLAIM_MISMATCH"},
	{name: "another tenant's documents", tool: refund, args: good, claims: `{"retrieval":{"tenant":"evil"}}`, want: "CONDITION_CLAIM_MISMATCH"},
	{name: "an approval that is not held", tool: refund, args: good, claims: `{"tool_call":{"approved":true}}`, want: "CONDITION_CLAIM_MISMATCH"},
	{name: "a check that does not exist", tool: read, args: `{"path":"/a"}`, claims: `{"tool_call":{"policy_checks":["no_such_check"]}}`, want: "CONDITION_CLAIM_MISMATCH"},
	// Arguments that are not of their type.
	{name: "an unknown field", tool: refund, args: `{"payment":"p-1","amount":1,"admin":true}`, want: "SCHEMA_UNKNOWN_FIELD"},
	{name: "an unknown field of an MCP tool", tool: read, args: `{"path":"/a","mode":"w"}`, want: "SCHEMA_UNKNOWN_FIELD"},
	{name: "a field in another spelling", tool: refund, args: `{"Payment":"p-1","amount":1}`, want: "SCHEMA_UNKNOWN_FIELD"},
	{name: "a number as text", tool: refund, args: `{"payment":"p-1","amount":"1"}`, want: "SCHEMA_TYPE_MISMATCH"},
	{name: "text as a number", tool: refund, args: `{"payment":1,"amount":1}`, want: "SCHEMA_TYPE_MISMATCH"},
	{name: "null", tool: refund, args: `{"payment":null,"amount":1}`, want: "SCHEMA_TYPE_MISMATCH"},
	{name: "a fraction", tool: refund, args: `{"payment":"p-1","amount":1.5}`, want: "SCHEMA_TYPE_MISMATCH"},
	{name: "a number beyond 64 bits", tool: refund, args: `{"payment":"p-1","amount":9223372036854775808}`, want: "SCHEMA_NUMBER_OUT_OF_RANGE"},
	{name: "a rule that is broken", tool: refund, args: `{"payment":"q","amount":1}`, want: "SCHEMA_RULE_VIOLATED"},
	{name: "a negative amount", tool: refund, args: `{"payment":"p-1","amount":-1}`, want: "SCHEMA_RULE_VIOLATED"},
	{name: "a missing field", tool: refund, args: `{"amount":1}`, want: "SCHEMA_RULE_VIOLATED"},
	{name: "a rule of an MCP tool", tool: read, args: `{"path":""}`, want: "SCHEMA_RULE_VIOLATED"},
	// Text that is not one JSON object in one reading.
	{name: "a duplicate key", tool: refund, args: `{"payment":"p-1","amount":1,"amount":9}`, want: "DECODE_DUPLICATE_KEY"},
	{name: "a duplicate key by an escape", tool: read, args: `{"path":"/a","\u0070ath":"/b"}`, want: "DECODE_DUPLICATE_KEY"},
	{name: "a duplicate key in an unknown field", tool: read, args: `{"path":"/a","x":{"y":1,"y":2}}`, want: "DECODE_DUPLICATE_KEY"},
	{name: "a truncated text", tool: refund, args: `{"payment":"p-1","amo`, want: "DECODE_MALFORMED"},
	{name: "trailing data", tool: refund, args: good + `{}`, want: "DECODE_MALFORMED"},
	{name: "a comment", tool: refund, args: `{"payment":"p-1"/**/,"amount":1}`, want: "DECODE_MALFORMED"},
	{name: "NaN", tool: refund, args: `{"payment":"p-1","amount":NaN}`, want: "DECODE_MALFORMED"},
	{name: "a leading zero", tool: refund, args: `{"payment":"p-1","amount":01}`, want: "DECODE_MALFORMED"},
	{name: "a single quote", tool: read, args: `{'path':'/a'}`, want: "DECODE_MALFORMED"},
	{name: "invalid UTF-8", tool: refund, args: "{\"payment\":\"p-1\",\"amount\":1,\"note\":\"\xff\"}", want: "DECODE_INVALID_UTF8"},
	{name: "overlong UTF-8", tool: read, args: "{\"path\":\"\xc0\xaf\"}", want: "DECODE_INVALID_UTF8"},
	{name: "a lone surrogate", tool: read, args: `{"path":"\ud800"}`, want: "DECODE_INVALID_UTF8"},
	{name: "too deep a value", tool: refund, args: deep(100), want: "DECODE_TOO_DEEP"},
	{name: "too large a text", tool: refund, args: `{"payment":"p-1","amount":1,"note":"` + strings.Repeat("x", envoytest.BodyBytes) + `"}`, want: "DECODE_TOO_LARGE"},
	{name: "too large a text to an MCP tool", tool: read, args: `{"path":"` + strings.Repeat("x", envoytest.BodyBytes) + `"}`, want: "DECODE_TOO_LARGE"},
	// What only HTTP can say.
	{name: "a compressed body", tool: refund, args: good, change: header("content-encoding", "gzip"), want: "DECODE_COMPRESSED"},
	{name: "a compressed MCP message", tool: read, args: `{"path":"/a"}`, change: header("content-encoding", "br"), want: "DECODE_COMPRESSED"},
	{name: "no content type", tool: refund, args: good, change: func(r *http.Request) { r.Header.Del("content-type") }, want: "DECODE_CONTENT_TYPE"},
	{name: "another content type", tool: refund, args: good, change: func(r *http.Request) { r.Header.Set("content-type", "text/plain") }, want: "DECODE_CONTENT_TYPE"},
	{name: "a form for an MCP message", tool: read, args: `{"path":"/a"}`, change: func(r *http.Request) { r.Header.Set("content-type", "multipart/form-data") }, want: "DECODE_CONTENT_TYPE"},
	{name: "an override of the method", tool: refund, args: good, change: header("x-http-method-override", "DELETE"), want: "DECODE_HEADER_CONFLICT"},
	{name: "an override of the path", tool: refund, args: good, change: header("x-original-url", "/admin"), want: "DECODE_HEADER_CONFLICT"},
	{name: "an unknown path", tool: refund, args: good, change: target("/v1/admin"), want: "DECODE_METHOD_UNKNOWN"},
	{name: "an unknown method", tool: refund, args: good, change: method(http.MethodPatch), want: "DECODE_METHOD_UNKNOWN"},
	{name: "a query at the MCP endpoint", tool: read, args: `{"path":"/a"}`, change: query("x=1"), want: "DECODE_METHOD_UNKNOWN"},
	{name: "a repeated query key", tool: look, args: `{"payment":"p-1"}`, change: query("expand=true&expand=false"), want: "DECODE_PATH_AMBIGUOUS"},
	{name: "a key in path and query", tool: look, args: `{"payment":"p-1"}`, change: query("payment=p-2"), want: "SCHEMA_FIELD_TWICE"},
	{name: "a header that names another tool", tool: read, args: `{"path":"/a"}`, change: header("mcp-name", "delete_file"), want: "DECODE_HEADER_MISMATCH"},
	{name: "a header that names another method", tool: read, args: `{"path":"/a"}`, change: header("mcp-method", "tools/list"), want: "DECODE_HEADER_MISMATCH"},
	{name: "a header that says another argument", tool: read, args: `{"path":"/a"}`, change: header("mcp-param-path", "/b"), want: "DECODE_HEADER_MISMATCH"},
	{name: "a revision that is not known", tool: read, args: `{"path":"/a"}`, change: header("mcp-protocol-version", "2099-01-01"), want: "DECODE_PROTOCOL"},
	{name: "an envelope that is no JSON", tool: refund, args: good, change: header("x-writ-envelope", "refund"), want: "DECODE_ENVELOPE_INVALID"},
	{name: "an envelope with an unknown field", tool: refund, args: good, change: header("x-writ-envelope", `{"role":"admin"}`), want: "DECODE_ENVELOPE_INVALID"},
}
