// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
	"github.com/writ-dev/writ/wire"
)

// templated are tools of one upstream, one a template, with the same method.
func templated(t testing.TB, templates []string) []*tools.Tool {
	t.Helper()
	var text strings.Builder
	text.WriteString(`syntax = "proto3";
package many.v1;
import "google/api/annotations.proto";
import "writ/v1/options.proto";
message Request { string a = 1; string b = 2; string c = 3; }
message Response { string id = 1; }
service Many {
`)
	for i, template := range templates {
		fmt.Fprintf(&text, `  // Does something.
  rpc Do%d(Request) returns (Response) {
    option (writ.v1.tool) = {name: "many.do_%04d" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "many"}};
    option (google.api.http) = {get: %q};
  }
`, i, i, template)
	}
	text.WriteString("}\n")
	set, err := schemas.Compile(t.Context(), fstest.MapFS{"many.proto": {Data: []byte(text.String())}}, []string{"many.proto"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := tools.Load(set)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheToolOfAPathIsTheFirstThatMatchesIt(t *testing.T) {
	t.Parallel()
	segments := [3][]string{{"x", "y", "{a}"}, {"x", "y", "{b}"}, {"x", "y", "{c}"}}
	var templates []string
	for _, a := range segments[0] {
		templates = append(templates, "/"+a)
		for _, b := range segments[1] {
			templates = append(templates, "/"+a+"/"+b)
			for _, c := range segments[2] {
				templates = append(templates, "/"+a+"/"+b+"/"+c)
			}
		}
	}
	all := templated(t, templates)
	catalogue := &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "many", Protocol: writv1.Protocol_PROTOCOL_HTTP_JSON}}}
	rapid.Check(t, func(t *rapid.T) {
		chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 1, 12, rapid.ID[int]).Draw(t, "tools")
		var some []*tools.Tool
		for _, i := range chosen {
			some = append(some, all[i])
		}
		route := wire.NewRoutes(catalogue, some, limits())["many"]
		path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "z", "%78"}), 1, 4).Draw(t, "path"), "/")
		want, params := "", []schemas.Param(nil)
		for _, tool := range some {
			if bound, ok := tool.HTTP.Match("GET", path); ok {
				want, params = tool.Name, bound
				break
			}
		}
		call := route.Decode(look(path))
		if call.Envelope.GetToolCall().GetName() != want {
			t.Errorf("%s is %q, want %q", path, call.Envelope.GetToolCall().GetName(), want)
		}
		if diff := cmp.Diff(params, call.Arguments.Params); diff != "" {
			t.Errorf("%s binds (-want +got):\n%s", path, diff)
		}
	})
}

func TestHTTPSendsNothingOnThatHasNoPath(t *testing.T) {
	t.Parallel()
	call := shopRoute(t).Decode(look("/v1/shops/s1/orders/o1"))
	for _, canonical := range []string{
		`{"order":"o1"}`,
		`{"shop":"a/b","order":"o1"}`,
		`{"shop":"s1","order":"o1","language":"%41"}`,
	} {
		sent, err := call.Rewrite([]byte(canonical), nil)
		if err == nil || reasons.Of(err).Reason != writv1.Reason_REASON_DECODE_PATH_AMBIGUOUS {
			t.Errorf("%s is sent on as %+v, %v", canonical, sent, err)
		}
	}
}
