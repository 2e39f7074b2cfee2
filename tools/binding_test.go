// SPDX-License-Identifier: Apache-2.0

package tools_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

const header = `syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "writ/v1/options.proto";
message Request { string shop = 1; Item item = 2; int64 count = 3; optional string note = 4; string text = 5 [json_name = "the-text"]; }
message Item { string id = 1; string name = 2; int32 number = 3; }
message Query { string shop = 1; int64 count = 2; bool whole = 3; optional string note = 4; }
message Response { string id = 1; }
message Listed { repeated string all = 1; }
service Shop {
`

// loaded loads one rpc with the options given.
func loaded(request, options string) ([]*tools.Tool, error) {
	rpc := "  // Does something\n  // useful.\n  rpc Do(" + request + ") returns (Response) {\n    " + options + "\n  }\n}\n"
	set, err := schemas.Compile(context.Background(), fstest.MapFS{"shop.proto": {Data: []byte(header + rpc)}}, []string{"shop.proto"})
	if err != nil {
		return nil, err
	}
	return tools.Load(set)
}

const option = `option (writ.v1.tool) = {name: "shop.do" risk: RISK_LOW effect: TOOL_EFFECT_WRITE}; `

func bound(t testing.TB, request, http string) *tools.Tool {
	t.Helper()
	all, err := loaded(request, option+"option (google.api.http) = {"+http+"};")
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestAToolIsWhatItsRPCSays(t *testing.T) {
	t.Parallel()
	tool := bound(t, "Request", `post: "/v1/{shop}/items/{item.id}" body: "*"`)
	if tool.Name != "shop.do" || tool.Description != "Does something useful." || tool.HTTP.Body() != "*" || tool.HTTP.Method() != "POST" {
		t.Errorf("name %q, description %q, body %q, method %q", tool.Name, tool.Description, tool.HTTP.Body(), tool.HTTP.Method())
	}
}

func TestLoadRefusesOptionsThatBreakTheirRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ request, options, want string }{
		"a name without a dot":       {"Request", `option (writ.v1.tool) = {name: "do" risk: RISK_LOW effect: TOOL_EFFECT_READ};`, "shop.proto:13:3: (writ.v1.tool).name: "},
		"no risk":                    {"Request", `option (writ.v1.tool) = {name: "a.do" effect: TOOL_EFFECT_READ};`, "shop.proto:13:3: (writ.v1.tool).risk: "},
		"a stream":                   {"stream Request", option, "shop.v1.Shop.Do streams"},
		"a body of a GET":            {"Request", option + `option (google.api.http) = {get: "/a" body: "*"};`, "a GET has no body"},
		"an unknown field":           {"Request", option + `option (google.api.http) = {post: "/{other}" body: "*"};`, "Request has no field other"},
		"a message in the path":      {"Request", option + `option (google.api.http) = {post: "/{item}" body: "*"};`, "field item cannot stand in a path"},
		"a message in the query":     {"Request", option + `option (google.api.http) = {get: "/{shop}"};`, "field item cannot stand in the query"},
		"a list in the query":        {"Listed", option + `option (google.api.http) = {get: "/a"};`, "field all cannot stand in the query"},
		"a wildcard":                 {"Request", option + `option (google.api.http) = {post: "/*/{shop}" body: "*"};`, "neither plain text nor {field}"},
		"a variable of many parts":   {"Request", option + `option (google.api.http) = {post: "/{shop=**}" body: "*"};`, "neither plain text nor {field}"},
		"a field twice":              {"Request", option + `option (google.api.http) = {post: "/{shop}/{shop}" body: "*"};`, "field shop stands in the path twice"},
		"a field in path and body":   {"Request", option + `option (google.api.http) = {post: "/{item.id}" body: "item"};`, "field item.id stands in the path and in the body"},
		"a second path":              {"Request", option + `option (google.api.http) = {post: "/a" body: "*" additional_bindings {post: "/b" body: "*"}};`, "additional_bindings"},
		"a path that is not rooted":  {"Request", option + `option (google.api.http) = {post: "a" body: "*"};`, "does not begin with a slash"},
		"a path with a dot segment":  {"Request", option + `option (google.api.http) = {post: "/a/../b" body: "*"};`, "neither plain text nor {field}"},
		"a method that is not known": {"Request", option + `option (google.api.http) = {custom: {kind: "HEAD" path: "/a"}};`, "the method must be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := loaded(c.request, c.options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestMatchTakesPathsWithOneReading(t *testing.T) {
	t.Parallel()
	tool := bound(t, "Request", `post: "/v1/{shop}/items/{item.id}" body: "*"`)
	for path, want := range map[string][]schemas.Param{
		"/v1/s/items/i":           {{Field: "shop", Value: "s"}, {Field: "item.id", Value: "i"}},
		"/v1/a%20b/items/%C3%A4":  {{Field: "shop", Value: "a b"}, {Field: "item.id", Value: "ä"}},
		"/v1/a+b/items/100%25":    {{Field: "shop", Value: "a+b"}, {Field: "item.id", Value: "100%"}},
		"/v1/s/items/":            nil,
		"/v1/s/items":             nil,
		"/v1/s/items/i/":          nil,
		"/v1/s/items/i/j":         nil,
		"/v1//items/i":            nil,
		"/v1/./items/i":           nil,
		"/v1/%2e%2e/items/i":      nil,
		"/v1/a%2Fb/items/i":       nil,
		"/v1/a%5cb/items/i":       nil,
		"/v1/a;b/items/i":         nil,
		"/v1/a%00/items/i":        nil,
		"/v1/a%0a/items/i":        nil,
		"/v1/%c0%af/items/i":      nil,
		"/v1/%252F/items/i":       nil,
		"/v1/a%2/items/i":         nil,
		"/v1/a b/items/i":         nil,
		"/v1/a?b/items/i":         nil,
		"/v1/ä/items/i":           nil,
		"/%761/s/items/i":         nil,
		"v1/s/items/i":            nil,
		"":                        nil,
		"/":                       nil,
		"http://h/v1/s/items/i":   nil,
		"/v1/s/items/i%7f":        nil,
		"/v1/s/ITEMS/i":           nil,
		"/v1/s/items/\xff":        nil,
		"/v1/s/items/i#x":         nil,
		"/v1/s/items/{i}":         nil,
		"/v1/s/items/%7Bi%7D":     {{Field: "shop", Value: "s"}, {Field: "item.id", Value: "{i}"}},
		"/v1/s/items/a=b&c!$'(),": {{Field: "shop", Value: "s"}, {Field: "item.id", Value: "a=b&c!$'(),"}},
	} {
		got, ok := tool.HTTP.Match("POST", path)
		if ok != (want != nil) || ok && !cmp.Equal(want, got) {
			t.Errorf("Match(%q) = %v, %t, want %v", path, got, ok, want)
		}
	}
	if _, ok := tool.HTTP.Match("post", "/v1/s/items/i"); ok {
		t.Error("a method in lower case matches")
	}
}

func TestRenderWritesWhatIsReadBack(t *testing.T) {
	t.Parallel()
	type request struct{ Method, Path, Query, Body string }
	for name, c := range map[string]struct {
		request, http, arguments string
		want                     request
	}{
		"all in the body but the path": {
			"Request", `post: "/v1/{shop}/items/{item.id}" body: "*"`, `{"shop":"a b","item":{"id":"ä","name":"n"},"count":3}`,
			request{"POST", "/v1/a%20b/items/%C3%A4", "", `{"item":{"name":"n"},"count":3}`},
		},
		"one field is the body": {
			"Request", `put: "/v1/{shop}" body: "item"`, `{"shop":"s","item":{"id":"i"},"count":3,"note":"","the-text":"a&b=c"}`,
			request{"PUT", "/v1/s", "count=3&note=&the-text=a%26b%3Dc", `{"id":"i"}`},
		},
		"the rest in the query":  {"Query", `get: "/v1/{shop}"`, `{"shop":"s","count":-1,"whole":true,"note":"x+y z"}`, request{"GET", "/v1/s", "count=-1&whole=true&note=x%2By%20z", ""}},
		"zero in the path":       {"Query", `delete: "/v1/{count}"`, `{"shop":"s"}`, request{"DELETE", "/v1/0", "shop=s", ""}},
		"below what is absent":   {"Request", `post: "/v1/{item.number}" body: "*"`, `{"shop":"s"}`, request{Method: "POST"}},
		"zero below":             {"Request", `post: "/v1/{item.number}" body: "*"`, `{"item":{}}`, request{"POST", "/v1/0", "", `{"item":{}}`}},
		"an empty text":          {"Query", `get: "/v1/{shop}"`, `{}`, request{Method: "GET"}},
		"an absent text":         {"Query", `get: "/v1/{note}"`, `{}`, request{Method: "GET"}},
		"dots":                   {"Query", `get: "/v1/{shop}"`, `{"shop":".."}`, request{Method: "GET"}},
		"a slash":                {"Query", `get: "/v1/{shop}"`, `{"shop":"a/b"}`, request{Method: "GET"}},
		"an escape":              {"Query", `get: "/v1/{shop}"`, `{"shop":"%2F"}`, request{Method: "GET"}},
		"a line break in query":  {"Query", `get: "/v1/{shop}"`, `{"shop":"s","note":"a\nb"}`, request{Method: "GET"}},
		"an absent body":         {"Request", `put: "/v1/{shop}" body: "item"`, `{"shop":"s"}`, request{Method: "PUT"}},
		"a body without members": {"Request", `patch: "/v1/{shop}" body: "*"`, `{"shop":"s"}`, request{"PATCH", "/v1/s", "", `{}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tool := bound(t, c.request, c.http)
			message, err := tool.Request.Read([]byte(c.arguments), nil, schemas.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			method, path, query, body := tool.HTTP.Render(message)
			if diff := cmp.Diff(c.want, request{method, path, query, string(body)}); diff != "" {
				t.Errorf("the request (-want +got):\n%s", diff)
			}
			if path != "" && tool.HTTP.Body() != "item" {
				checkReadBack(t, tool, message.Interface(), path, query, body)
			}
		})
	}
}

// checkReadBack reads a rendered request as a face would.
func checkReadBack(t *testing.T, tool *tools.Tool, want proto.Message, path, query string, body []byte) {
	t.Helper()
	params, ok := tool.HTTP.Match(tool.HTTP.Method(), path)
	values, err := url.ParseQuery(query)
	if !ok || err != nil {
		t.Fatalf("%s?%s does not match: %v", path, query, err)
	}
	for key := range values {
		params = append(params, schemas.Param{Field: key, Value: values.Get(key)})
	}
	if body == nil {
		body = []byte("{}")
	}
	got, err := tool.Request.Read(body, params, schemas.Limits{})
	if err != nil {
		t.Fatalf("Read(%s, %v): %v", body, params, err)
	}
	if !proto.Equal(want, got.Interface()) {
		t.Errorf("read back %v, want %v", got.Interface(), want)
	}
}

func FuzzMatch(f *testing.F) {
	tool := bound(f, "Query", `get: "/v1/{shop}/{note}"`)
	for _, seed := range []string{"/v1/a/b", "/v1/%C3%A4/100%25", "/v1/%252F/x", "/v1/../x", "/v1/a;b/c", "/v1/+/~"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		params, ok := tool.HTTP.Match("GET", path)
		if !ok {
			return
		}
		message, err := tool.Request.Read([]byte("{}"), params, schemas.Limits{})
		if err != nil {
			t.Fatalf("Match(%q) gives %v: %v", path, params, err)
		}
		_, rendered, _, _ := tool.HTTP.Render(message)
		again, ok := tool.HTTP.Match("GET", rendered)
		if !ok || !cmp.Equal(params, again) {
			t.Fatalf("Match(%q) = %v, rendered %q matches as %v", path, params, rendered, again)
		}
	})
}
