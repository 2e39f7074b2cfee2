// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

const decisionID = "0123456789abcdef0123456789abcdef"

func denialFor(reason writv1.Reason) *wire.Denial {
	return &wire.Denial{
		Refusal:    reasons.New(reason, "amount", "it is too much"),
		DecisionID: decisionID, Checks: []string{"max_amount"},
	}
}

func TestMCPDeniesInTheCallersLanguage(t *testing.T) {
	t.Parallel()
	denied := writv1.Reason_REASON_GRANT_DENIED
	text := `"denied by policy: GRANT_DENIED: amount: it is too much (decision ` + decisionID + `)"`
	facts := func(reason string) string {
		return `{"reason":"` + reason + `","field":"amount","decision_id":"` + decisionID + `","checks":["max_amount"]}`
	}
	result := func(id, kind string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"result":{` + kind + `"content":[{"type":"text","text":` + text + `}],"isError":true,"_meta":{"dev.writ/denial":` + facts("GRANT_DENIED") + `}}}`
	}
	fault := func(id, code, reason string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"error":{"code":` + code + `,"message":"refused: ` + reason + `: amount: it is too much (decision ` + decisionID + `)","data":` + facts(reason) + `}}`
	}
	cases := map[string]struct {
		request *wire.Request
		reason  writv1.Reason
		status  int
		body    string
	}{
		"a call of a session revision":        {post(sessionCall), denied, 200, result("7", "")},
		"a stateless call":                    {post(modernCall, modern...), denied, 200, result(`"q-1"`, `"resultType":"complete",`)},
		"an unknown tool":                     {post(sessionCall), writv1.Reason_REASON_TOOL_UNKNOWN, 200, fault("7", "-32602", "TOOL_UNKNOWN")},
		"nobody who is authenticated":         {post(sessionCall), writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, 401, fault("7", "-32001", "PRINCIPAL_UNAUTHENTICATED")},
		"a header that disagrees":             {post(sessionCall), writv1.Reason_REASON_DECODE_HEADER_MISMATCH, 400, fault("7", "-32020", "DECODE_HEADER_MISMATCH")},
		"a broken message whose id was read":  {post(`{"method":"ping","id":"a","x":1}`), writv1.Reason_REASON_DECODE_PROTOCOL, 200, fault(`"a"`, "-32600", "DECODE_PROTOCOL")},
		"a body that cannot be read":          {post("{"), writv1.Reason_REASON_DECODE_MALFORMED, 400, fault("null", "-32700", "DECODE_MALFORMED")},
		"a refused notification":              {post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`), writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, 401, ""},
		"a refused stream":                    {&wire.Request{Method: "GET", Path: "/mcp"}, writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, 401, ""},
		"a method that does not pass, a call": {post(`{"jsonrpc":"2.0","id":3,"method":"resources/read"}`), writv1.Reason_REASON_DECODE_METHOD_UNKNOWN, 200, fault("3", "-32601", "DECODE_METHOD_UNKNOWN")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := mcpRoute().Decode(c.request).Deny(denialFor(c.reason))
			if got.Status != c.status {
				t.Errorf("status %d, want %d", got.Status, c.status)
			}
			if diff := cmp.Diff(c.body, string(got.Body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMCPSendsOnWhatWasDecided(t *testing.T) {
	t.Parallel()
	call := mcpRoute().Decode(post(
		`{ "params":{"_meta":{"dev.writ/envelope":{"intent":"x"}, "a" : [1, 2] },"arguments":{"user_id": 1e0, "path":"/ä", "count":0},"name":"read_file"},"method":"tools/call","id":"\u0061","jsonrpc":"2.0"}`,
		"mcp-name", "read_file", "mcp-param-path", "=?base64?L8Ok?=", "mcp-param-count", "0"))
	if call.Refusal != nil {
		t.Fatal(call.Refusal)
	}
	sent, err := call.Rewrite([]byte(`{"path":"/ä","user_id":1}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &wire.Sent{
		Method: "POST", Path: "/mcp",
		Remove: []string{"mcp-param-count"},
		Set:    headers("content-type", "application/json", "mcp-name", "read_file", "mcp-param-path", "=?base64?L8Ok?="),
		Body:   []byte(`{"jsonrpc":"2.0","id":"\u0061","method":"tools/call","params":{"name":"read_file","arguments":{"path":"/ä","user_id":1},"_meta":{"a":[1,2]}}}`),
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("sent on (-want +got):\n%s", diff)
	}
}

// redactor stands for a schema: it refuses what says "bad" and removes what says "secret".
func redactor(body []byte) ([]byte, *reasons.Error) {
	if strings.Contains(string(body), "bad") {
		return nil, reasons.New(writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, "", "it does not match")
	}
	return []byte(strings.ReplaceAll(string(body), "secret", "[redacted]")), nil
}

func TestMCPAnswersWhatWasChecked(t *testing.T) {
	t.Parallel()
	result := func(members string) string { return `{"jsonrpc":"2.0","id":7,"result":{` + members + `}}` }
	event := func(data string) string { return "event: message\r\ndata: " + data + "\r\n\r\n" }
	structured := result(`"content":[{"type":"text","text":"[redacted] too"}],"structuredContent":{"a":"secret"},"_meta":{"x":"secret"}`)
	whole := `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"{\"a\":\"[redacted]\"}"}],"structuredContent":{"a":"[redacted]"},"isError":false}}`
	plain := `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"[redacted]"}],"isError":false}}`
	cases := map[string]struct {
		kind, body, want string
	}{
		"structured content":            {"application/json", structured, whole},
		"content alone":                 {"application/json", result(`"content":[{"type":"text","text":"secret"}],"isError":false`), plain},
		"an event":                      {"text/event-stream", ": hello\n\nid: 1\ndata:\n\nid: 2\ndata\n\n" + event(structured), whole},
		"an event in two lines":         {"text/event-stream", "data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{\"content\":[]}}\n\n", `{"jsonrpc":"2.0","id":7,"result":{"content":[],"isError":false}}`},
		"an event after a notification": {"text/event-stream", event(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}`) + event(structured), whole},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := mcpRoute().Decode(post(sessionCall)).Answer(&wire.Response{Status: 200, Headers: headers("content-type", c.kind), Body: []byte(c.body)}, decisionID, redactor)
			if answer.Failure != nil || answer.Response.Status != 200 {
				t.Fatalf("status %d, failure %v", answer.Response.Status, answer.Failure)
			}
			if diff := cmp.Diff(c.want, string(answer.Response.Body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMCPLetsNothingUncheckedBack(t *testing.T) {
	t.Parallel()
	const invalid, failed = writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, writv1.Reason_REASON_EXECUTION_FAILED
	good := `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"secret"}]}}`
	cases := map[string]struct {
		response *wire.Response
		want     writv1.Reason
	}{
		"a failing status":              {&wire.Response{Status: 500, Body: []byte("secret")}, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS},
		"a redirect":                    {&wire.Response{Status: 302, Body: []byte("secret")}, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS},
		"text":                          {&wire.Response{Status: 200, Headers: headers("content-type", "text/plain"), Body: []byte(good)}, invalid},
		"a compressed body":             {&wire.Response{Status: 200, Headers: headers("content-type", "application/json", "content-encoding", "gzip"), Body: []byte(good)}, invalid},
		"no body":                       {&wire.Response{Status: 202, Headers: headers("content-type", "application/json")}, invalid},
		"another id":                    {jsonAnswer(`{"jsonrpc":"2.0","id":8,"result":{"content":[]}}`), invalid},
		"an id as a string":             {jsonAnswer(`{"jsonrpc":"2.0","id":"7","result":{"content":[]}}`), invalid},
		"an empty id":                   {jsonAnswer(`{"jsonrpc":"2.0","id":"","result":{"content":[]}}`), invalid},
		"two keys":                      {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"content":[],"content":[]}}`), invalid},
		"an unknown member":             {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"content":[]},"secret":1}`), invalid},
		"neither result nor error":      {jsonAnswer(`{"jsonrpc":"2.0","id":7}`), invalid},
		"both result and error":         {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{},"error":{}}`), invalid},
		"a question":                    {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"resultType":"input_required","requestState":"secret"}}`), invalid},
		"no content":                    {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{}}`), invalid},
		"content of another type":       {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"content":["bad secret"]}}`), invalid},
		"an error":                      {jsonAnswer(`{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"secret"}}`), failed},
		"a failure of another type":     {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":["bad secret"]}}`), failed},
		"a failure":                     {jsonAnswer(`{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":["a secret"]}}`), failed},
		"a stream without a response":   {events(`data: {"jsonrpc":"2.0","method":"x"}` + "\n\n"), invalid},
		"a stream with two responses":   {events("data: " + good + "\n\ndata: " + good + "\n\n"), invalid},
		"a stream that was cut off":     {events("data: " + good + "\n"), invalid},
		"a stream with what is no JSON": {events("data: secret\n\ndata: " + good + "\n\n"), invalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := mcpRoute().Decode(post(sessionCall)).Answer(c.response, decisionID, redactor)
			if answer.Failure == nil || answer.Failure.Reason != c.want {
				t.Errorf("failure %v, want %s", answer.Failure, reasons.Name(c.want))
			}
			var message struct{ ID int }
			if err := json.Unmarshal(answer.Response.Body, &message); err != nil || message.ID != 7 {
				t.Errorf("the answer %q does not bear the id", answer.Response.Body)
			}
			if strings.Contains(string(answer.Response.Body), "secret") {
				t.Errorf("the answer lets through what was not checked: %s", answer.Response.Body)
			}
		})
	}
}

func jsonAnswer(body string) *wire.Response {
	return &wire.Response{Status: 200, Headers: headers("content-type", "application/json"), Body: []byte(body)}
}

func events(body string) *wire.Response {
	return &wire.Response{Status: 200, Headers: headers("content-type", "text/event-stream"), Body: []byte(body)}
}

func TestMCPListsWhatTheCallerMayCall(t *testing.T) {
	t.Parallel()
	visible := func(tool string) bool { return tool == "files.read" }
	list := func(tools string) string {
		return `{"jsonrpc":"2.0","id":1,"result":{"tools":` + tools + `,"nextCursor":"c","ttlMs":5,"cacheScope":"public"}}`
	}
	all := list(`[{"name":"read_file","description":"x"}, {"name":"write_file"},{"name":"unknown"},{"name":"files.read"},1]`)
	kept := `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read_file","description":"x"}],"nextCursor":"c","ttlMs":5,"cacheScope":"private"}}`
	fault := `{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}`
	cases := map[string]struct {
		response *wire.Response
		want     string
	}{
		"a list":                 {jsonAnswer(all), kept},
		"a list as an event":     {events("data: " + all + "\n\n"), kept},
		"an error passes":        {jsonAnswer(fault), fault},
		"a failing status":       {&wire.Response{Status: 404, Body: []byte("gone")}, "gone"},
		"nothing that is a list": {jsonAnswer(list(`{}`)), ""},
		"another result":         {jsonAnswer(`{"jsonrpc":"2.0","id":1,"result":{"secret":1}}`), ""},
		"no JSON":                {jsonAnswer(`secret`), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := mcpRoute().Decode(post(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
			if !call.Lists {
				t.Fatal("the call does not list")
			}
			got := string(call.List(c.response, visible).Body)
			if c.want == "" && (!strings.Contains(got, "SCHEMA_RESPONSE_INVALID") || strings.Contains(got, "secret")) {
				t.Errorf("got %s", got)
			}
			if c.want != "" && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
