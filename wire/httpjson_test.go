// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
	"github.com/writ-dev/writ/wire"
)

const shopProto = `syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "writ/v1/options.proto";
service Shop {
  // Order something.
  rpc Order(OrderRequest) returns (OrderResponse) {
    option (writ.v1.tool) = {name: "shop.order" risk: RISK_LOW effect: TOOL_EFFECT_WRITE web: {upstream: "shop"}};
    option (google.api.http) = {post: "/v1/shops/{shop}/orders" body: "*"};
  }
  // Note something.
  rpc Note(OrderRequest) returns (OrderResponse) {
    option (writ.v1.tool) = {name: "shop.note" risk: RISK_LOW effect: TOOL_EFFECT_WRITE web: {upstream: "shop"}};
    option (google.api.http) = {put: "/v1/shops/{shop}/orders" body: "item"};
  }
  // Look an order up.
  rpc Look(LookRequest) returns (OrderResponse) {
    option (writ.v1.tool) = {name: "shop.look" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "shop"}};
    option (google.api.http) = {get: "/v1/shops/{shop}/orders/{order}"};
  }
  // Is of another upstream.
  rpc Other(LookRequest) returns (OrderResponse) {
    option (writ.v1.tool) = {name: "shop.other" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "other"}};
    option (google.api.http) = {get: "/v1/other/{shop}/{order}"};
  }
}
message OrderRequest { string shop = 1; string item = 2; int64 count = 3; }
message LookRequest { string shop = 1; string order = 2; bool whole = 3; string language = 4; }
message OrderResponse { string order = 1; }
`

// shopRoute is the way to an HTTP upstream with two tools.
func shopRoute(t testing.TB) *wire.Route {
	t.Helper()
	set, err := schemas.Compile(t.Context(), fstest.MapFS{"shop.proto": {Data: []byte(shopProto)}}, []string{"shop.proto"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := tools.Load(set)
	if err != nil {
		t.Fatal(err)
	}
	catalogue := &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "shop", Protocol: writv1.Protocol_PROTOCOL_HTTP_JSON}}}
	return wire.NewRoutes(catalogue, all, limits())["shop"]
}

func order(path, body string, extra ...string) *wire.Request {
	return &wire.Request{
		Method: "POST", Path: path, Authority: "shop.internal", Scheme: "http",
		Headers: headers(append([]string{"content-type", "application/json"}, extra...)...), Body: []byte(body),
	}
}

func put(path, body string) *wire.Request {
	request := order(path, body)
	request.Method = "PUT"
	return request
}

func look(path string) *wire.Request {
	return &wire.Request{Method: "GET", Path: path, Authority: "shop.internal", Scheme: "http"}
}

func TestHTTPReadsArgumentsFromBodyPathAndQuery(t *testing.T) {
	t.Parallel()
	route := shopRoute(t)
	cases := map[string]struct {
		request *wire.Request
		tool    string
		body    string
		params  []schemas.Param
	}{
		"body and path": {order("/v1/shops/s1/orders", `{"item":"x"}`, "content-length", "12"), "shop.order", `{"item":"x"}`, []schemas.Param{{Field: "shop", Value: "s1"}}},
		"a body that is a field": {
			&wire.Request{Method: "PUT", Path: "/v1/shops/s1/orders?count=3", Headers: headers("content-type", "application/json"), Body: []byte(`"x"`)},
			"shop.note", `{"item":"x"}`,
			[]schemas.Param{{Field: "shop", Value: "s1"}, {Field: "count", Value: "3"}},
		},
		"path and query": {look("/v1/shops/s1/orders/o1?whole=true&language=de+at%21"), "shop.look", "{}", []schemas.Param{{Field: "shop", Value: "s1"}, {Field: "order", Value: "o1"}, {Field: "whole", Value: "true"}, {Field: "language", Value: "de at!"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := route.Decode(c.request)
			if call.Refusal != nil {
				t.Fatalf("refused: %v", call.Refusal)
			}
			if got := call.Envelope.GetToolCall().GetName(); got != c.tool || string(call.Arguments.JSON) != c.body {
				t.Errorf("tool %s, body %s", got, call.Arguments.JSON)
			}
			if diff := cmp.Diff(c.params, call.Arguments.Params); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTTPRefusesWhatItCannotReadInOneWay(t *testing.T) {
	t.Parallel()
	route := shopRoute(t)
	const path, unknown = writv1.Reason_REASON_DECODE_PATH_AMBIGUOUS, writv1.Reason_REASON_DECODE_METHOD_UNKNOWN
	orders := "/v1/shops/s1/orders"
	cases := map[string]struct {
		request *wire.Request
		want    writv1.Reason
	}{
		"an unknown path":                  {look("/v1/shops"), unknown},
		"a tool of another upstream":       {look("/v1/other/s1/o1"), unknown},
		"a method in lower case":           {&wire.Request{Method: "get", Path: "/v1/shops/s1/orders/o1"}, unknown},
		"HEAD":                             {&wire.Request{Method: "HEAD", Path: "/v1/shops/s1/orders/o1"}, unknown},
		"an absolute path":                 {look("http://evil/v1/shops/s1/orders/o1"), path},
		"an encoded slash":                 {look("/v1/shops/s%2F1/orders/o1"), path},
		"an encoded backslash":             {look("/v1/shops/s%5c1/orders/o1"), path},
		"a backslash":                      {look(`/v1/shops/s\1/orders/o1`), path},
		"dot segments":                     {look("/v1/x/../shops/s1/orders/o1"), path},
		"encoded dot segments":             {look("/v1/shops/%2e%2E/orders/o1"), path},
		"an empty segment":                 {look("/v1//shops/s1/orders/o1"), path},
		"matrix parameters":                {look("/v1/shops/s1;x=1/orders/o1"), path},
		"an encoded NUL":                   {look("/v1/shops/s%001/orders/o1"), path},
		"an encoded line break":            {look("/v1/shops/s%0a1/orders/o1"), path},
		"overlong UTF-8":                   {look("/v1/shops/s%c0%af1/orders/o1"), path},
		"a double escape":                  {look("/v1/shops/s%252F1/orders/o1"), path},
		"a broken escape":                  {look("/v1/shops/s%2/orders/o1"), path},
		"a fragment":                       {look("/v1/shops/s1/orders/o1#x"), path},
		"a raw space":                      {look("/v1/shops/s 1/orders/o1"), path},
		"bytes beyond ASCII":               {look("/v1/shops/\xc3\xa4/orders/o1"), path},
		"a repeated key":                   {look("/v1/shops/s1/orders/o1?whole=true&whole=false"), path},
		"a repeated key by an escape":      {look("/v1/shops/s1/orders/o1?whole=true&whol%65=false"), path},
		"a key without a value":            {look("/v1/shops/s1/orders/o1?whole"), path},
		"an empty pair":                    {look("/v1/shops/s1/orders/o1?whole=true&"), path},
		"a semicolon between pairs":        {look("/v1/shops/s1/orders/o1?whole=true;language=de"), path},
		"a query beside a whole body":      {order(orders+"?count=1", `{"item":"x"}`), path},
		"an unknown key beside one":        {order(orders+"?x=1", `{"item":"x"}`), path},
		"the body's field in the query":    {put(orders+"?item=x", `"x"`), path},
		"a part of it in the query":        {put(orders+"?item.x=x", `"x"`), path},
		"an empty query":                   {look("/v1/shops/s1/orders/o1?"), path},
		"too long a path":                  {look("/v1/shops/" + strings.Repeat("s", 9000) + "/orders/o1"), writv1.Reason_REASON_DECODE_TOO_LARGE},
		"too many keys":                    {look("/v1/shops/s1/orders/o1?" + strings.Repeat("a=1&", 200) + "b=1"), writv1.Reason_REASON_DECODE_TOO_LARGE},
		"no content type":                  {&wire.Request{Method: "POST", Path: orders, Body: []byte(`{}`)}, writv1.Reason_REASON_DECODE_CONTENT_TYPE},
		"a form":                           {&wire.Request{Method: "POST", Path: orders, Headers: headers("content-type", "application/x-www-form-urlencoded"), Body: []byte(`item=x`)}, writv1.Reason_REASON_DECODE_CONTENT_TYPE},
		"a compressed body":                {order(orders, "x", "content-encoding", "br"), writv1.Reason_REASON_DECODE_COMPRESSED},
		"a body shorter than its length":   {order(orders, "{}", "content-length", "3"), writv1.Reason_REASON_DECODE_PARTIAL_BODY},
		"a body longer than its length":    {order(orders, "{}", "content-length", "1"), writv1.Reason_REASON_DECODE_PARTIAL_BODY},
		"a length in another form":         {order(orders, "{}", "content-length", "02"), writv1.Reason_REASON_DECODE_PARTIAL_BODY},
		"a partial body":                   {order(orders, "{}", "x-envoy-auth-partial-body", "true"), writv1.Reason_REASON_DECODE_PARTIAL_BODY},
		"an override of the method":        {order(orders, "{}", "x-method-override", "DELETE"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"an override of the path":          {order(orders, "{}", "x-original-url", "/admin"), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"an empty body":                    {order(orders, ""), writv1.Reason_REASON_DECODE_MALFORMED},
		"trailing data in a field's body":  {&wire.Request{Method: "PUT", Path: orders, Headers: headers("content-type", "application/json"), Body: []byte(`"a"},{"b":1`)}, writv1.Reason_REASON_DECODE_MALFORMED},
		"a body where there is none":       {&wire.Request{Method: "GET", Path: "/v1/shops/s1/orders/o1", Body: []byte("{}")}, writv1.Reason_REASON_DECODE_PROTOCOL},
		"an envelope that is not one":      {order(orders, "{}", "x-writ-envelope", "refund"), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"an envelope with trailing data":   {order(orders, "{}", "x-writ-envelope", "{}{}"), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
		"two envelopes":                    {order(orders, "{}", "x-writ-envelope", "{}", "x-writ-envelope", `{"intent":"x"}`), writv1.Reason_REASON_DECODE_HEADER_CONFLICT},
		"too large an envelope":            {order(orders, "{}", "x-writ-envelope", `{"intent":"`+strings.Repeat("x", 70000)+`"}`), writv1.Reason_REASON_DECODE_TOO_LARGE},
		"an envelope with a negative size": {order(orders, "{}", "x-writ-envelope", `{"retrieval":{"top_k":-1}}`), writv1.Reason_REASON_DECODE_ENVELOPE_INVALID},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := route.Decode(c.request)
			if call.Refusal == nil || call.Refusal.Reason != c.want {
				t.Fatalf("refusal %v, want %s", call.Refusal, reasons.Name(c.want))
			}
			if status := call.Deny(&wire.Denial{Refusal: call.Refusal}).Status; status != reasons.On(c.want).HTTP {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestHTTPSendsOnWhatWasDecided(t *testing.T) {
	t.Parallel()
	route := shopRoute(t)
	cases := map[string]struct {
		request   *wire.Request
		canonical string
		want      *wire.Sent
	}{
		"a body": {
			order("/v1/shops/s1/orders", ` { "count" : 3 , "item":"x"}`), `{"shop":"s1","item":"x","count":3}`,
			&wire.Sent{Method: "POST", Path: "/v1/shops/s1/orders", Set: headers("content-type", "application/json"), Body: []byte(`{"item":"x","count":3}`)},
		},
		"a query": {look("/v1/shops/s1/orders/o1?whole=true"), `{"shop":"s1","order":"o1","whole":true}`, &wire.Sent{Method: "GET", Path: "/v1/shops/s1/orders/o1?whole=true"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent, err := route.Decode(c.request).Rewrite([]byte(c.canonical), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, sent); diff != "" {
				t.Errorf("sent on (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTTPDeniesWithProblemDetails(t *testing.T) {
	t.Parallel()
	denial := denialFor(writv1.Reason_REASON_APPROVAL_REQUIRED)
	denial.ApprovalID = "a-1"
	got := shopRoute(t).Decode(order("/v1/shops/s1/orders", "{}")).Deny(denial)
	want := &wire.Response{
		Status:  403,
		Headers: headers("content-type", "application/problem+json", "cache-control", "no-store"),
		Body: []byte(`{"type":"urn:writ:reason:APPROVAL_REQUIRED","title":"Approval Required","status":403,"detail":"it is too much",` +
			`"reason":"APPROVAL_REQUIRED","field":"amount","decision_id":"` + decisionID + `","approval_id":"a-1","checks":["max_amount"]}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("denial (-want +got):\n%s", diff)
	}
}

// FuzzPath reads any path. What is let through binds to its tool again after it
// was rendered from what was read.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/v1/shops/s1/orders/o1?whole=true", "/v1/shops/%C3%A4/orders/o%201", "/v1/shops/../x", "//", "/%", "/?a=%2B+"} {
		f.Add(seed)
	}
	route := shopRoute(f)
	f.Fuzz(func(t *testing.T, target string) {
		call := route.Decode(look(target))
		if call.Refusal != nil {
			return
		}
		for _, param := range call.Arguments.Params {
			if strings.ContainsAny(param.Value, "\x00\r\n") || (param.Field == "shop" || param.Field == "order") && strings.ContainsAny(param.Value, "/\\") {
				t.Errorf("%q is read as %q", target, param)
			}
		}
	})
}
