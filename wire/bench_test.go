// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
	"github.com/writ-dev/writ/wire"
)

// manyRoutes is the way to an HTTP upstream with so many tools.
func manyRoutes(b *testing.B, count int) *wire.Route {
	b.Helper()
	var text strings.Builder
	text.WriteString(`syntax = "proto3";
package many.v1;
import "google/api/annotations.proto";
import "writ/v1/options.proto";
message Request { string id = 1; string item = 2; }
message Response { string id = 1; }
service Many {
`)
	for i := range count {
		fmt.Fprintf(&text, `  // Does something.
  rpc Do%d(Request) returns (Response) {
    option (writ.v1.tool) = {name: "many.do_%d" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "many"}};
    option (google.api.http) = {post: "/v1/things_%d/{id}/do" body: "*"};
  }
`, i, i, i)
	}
	text.WriteString("}\n")
	set, err := schemas.Compile(b.Context(), fstest.MapFS{"many.proto": {Data: []byte(text.String())}}, []string{"many.proto"})
	if err != nil {
		b.Fatal(err)
	}
	all, err := tools.Load(set)
	if err != nil {
		b.Fatal(err)
	}
	catalogue := &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "many", Protocol: writv1.Protocol_PROTOCOL_HTTP_JSON}}}
	return wire.NewRoutes(catalogue, all, limits())["many"]
}

func BenchmarkDecode(b *testing.B) {
	b.Run("mcp", func(b *testing.B) {
		route, request := mcpRoute(), post(modernCall, modern...)
		b.ReportAllocs()
		for b.Loop() {
			if call := route.Decode(request); call.Refusal != nil {
				b.Fatal(call.Refusal)
			}
		}
	})
	b.Run("http with claims", func(b *testing.B) {
		claims := `{"request_id":"req-7812","session":"s-1","user_role":"desk","intent":"quote_order","model_route":"support-default",` +
			`"retrieval":{"kb_doc_ids":["terms-v3","prices-2026"],"tenant":"north","top_k":4}}`
		route, request := shopRoute(b), order("/v1/shops/s1/orders", `{"item":"x"}`, "x-writ-envelope", claims)
		b.ReportAllocs()
		for b.Loop() {
			if call := route.Decode(request); call.Refusal != nil {
				b.Fatal(call.Refusal)
			}
		}
	})
	b.Run("http", func(b *testing.B) {
		route, request := shopRoute(b), order("/v1/shops/s1/orders", `{"item":"x"}`)
		b.ReportAllocs()
		for b.Loop() {
			if call := route.Decode(request); call.Refusal != nil {
				b.Fatal(call.Refusal)
			}
		}
	})
	for _, count := range []int{10, 1000} {
		b.Run(fmt.Sprintf("http of %d tools", count), func(b *testing.B) {
			route, request := manyRoutes(b, count), order("/v1/things_9/x/do", `{"item":"x"}`)
			b.ReportAllocs()
			for b.Loop() {
				if call := route.Decode(request); call.Refusal != nil {
					b.Fatal(call.Refusal)
				}
			}
		})
	}
}
