// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

const order = `{"tenant":"north","items":[{"sku":"tea","count":2}],"email":"a@b.example","codes":["5ecret","x"],` +
	`"people":{"cook":{"name":"5ecret","age":40,"desk":"d1"}},"card":"5ecret","speed":"SPEED_FAST"}`

func TestSensitiveValuesAreLeftOutAndReturned(t *testing.T) {
	t.Parallel()
	request := typeOf(t, "kinds.v1.OrderRequest")
	public, removed, err := request.AppendPublic(nil, read(t, request, order))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"tenant":"north","items":[{"sku":"tea","count":2}],"people":{"cook":{"desk":"d1"}},"speed":"SPEED_FAST"}`
	if diff := cmp.Diff(want, string(public)); diff != "" {
		t.Errorf("the public text (-want +got):\n%s", diff)
	}
	const redact = writv1.Sensitivity_SENSITIVITY_REDACT
	wantRemoved := []schemas.Removed{
		{Path: "email", Value: []byte(`"a@b.example"`), Sensitivity: writv1.Sensitivity_SENSITIVITY_HASH},
		{Path: "codes", Value: []byte(`["5ecret","x"]`), Sensitivity: redact},
		{Path: `people["cook"].name`, Value: []byte(`"5ecret"`), Sensitivity: redact},
		{Path: `people["cook"].age`, Value: []byte(`40`), Sensitivity: redact},
		{Path: "card", Value: []byte(`"5ecret"`), Sensitivity: redact},
	}
	if diff := cmp.Diff(wantRemoved, removed); diff != "" {
		t.Errorf("what was removed (-want +got):\n%s", diff)
	}
}

func TestRedactReplacesSensitiveValuesInPlace(t *testing.T) {
	t.Parallel()
	request := typeOf(t, "kinds.v1.OrderRequest")
	message := read(t, request, order)
	paths := request.Redact(message, func(value []byte) string { return "h:" + string(value[:1]) })
	want := `{"tenant":"north","items":[{"sku":"tea","count":2}],"email":"h:a","codes":["[redacted]","[redacted]"],` +
		`"people":{"cook":{"name":"[redacted]","desk":"d1"}},"card":"[redacted]","speed":"SPEED_FAST"}`
	if diff := cmp.Diff(want, string(request.Append(nil, message))); diff != "" {
		t.Errorf("the redacted text (-want +got):\n%s", diff)
	}
	wantPaths := []string{"email", "codes", `people["cook"].name`, `people["cook"].age`, "card"}
	if diff := cmp.Diff(wantPaths, paths); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if got := request.Tenants(message); !cmp.Equal(got, []string{"north"}) {
		t.Errorf("tenants %q", got)
	}
}

func TestBrokenRulesAreNamedWithoutValues(t *testing.T) {
	t.Parallel()
	request := typeOf(t, "kinds.v1.OrderRequest")
	message := read(t, request, `{"tenant":"5ecret!","items":[{"sku":"tea","count":1},{"count":2000}],"email":"5ecret",`+
		`"labels":{"a":"","b":"","c":"","d":"","e":""},"note":"5ecret"}`)
	var got []string
	for _, v := range request.Validate(message) {
		got = append(got, v.Field+" "+v.Rule)
		if strings.Contains(v.Message, secret) || v.Message == "" {
			t.Errorf("%s says %q", v.Rule, v.Message)
		}
	}
	want := []string{
		" order.dates", "payment required", "tenant string.pattern", "items[1].sku string.min_len", "items[1].count int64.gt_lte",
		"email string.email", "labels map.max_pairs", "speed enum.not_in",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
	if broken := request.Validate(read(t, request, order)); broken != nil {
		t.Errorf("a valid order breaks %v", broken)
	}
}

// compile compiles one file with a tool that takes and gives M.
func compile(body string) (*schemas.Set, error) {
	text := "syntax = \"proto3\";\npackage p;\nimport \"writ/v1/options.proto\";\n" +
		"service S { rpc R(M) returns (M) { option (writ.v1.tool) = {name: \"s.r\" risk: RISK_LOW effect: TOOL_EFFECT_READ}; } }\n" + body
	return schemas.Compile(context.Background(), fstest.MapFS{"p.proto": {Data: []byte(text)}}, []string{"p.proto"})
}

func TestCompileRefusesWhatTheProfileCannotSay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"a type that is not there":        {`message M { strin a = 1; }`, "p.proto:5:13: field p.M.a: unknown type strin"},
		"Struct":                          {"import \"google/protobuf/struct.proto\";\nmessage M { google.protobuf.Struct a = 1; }", "p.proto:6:13: field a holds a google.protobuf.Struct"},
		"Any, below":                      {"import \"google/protobuf/any.proto\";\nmessage M { repeated N n = 1; }\nmessage N { google.protobuf.Any a = 1; }", "p.proto:7:13: field a holds a google.protobuf.Any"},
		"a hash of a number":              {`message M { int32 a = 1 [(writ.v1.field).sensitivity = SENSITIVITY_HASH]; }`, "p.proto:5:13: field a is not a string"},
		"a number bound to the tenant":    {`message M { int32 a = 1 [(writ.v1.field).binding = BINDING_TENANT]; }`, "p.proto:5:13: field a is not a string"},
		"a json_name that cannot be told": {`message M { string a_b = 1 [json_name = "aB"]; }`, `p.proto:5:13: json_name "aB" of a_b`},
		"two fields of one JSON name":     {`message M { string a_b = 1; string c = 2 [json_name = "a_b"]; }`, `p.proto:5:29: fields a_b and c have the same JSON name "a_b"`},
		"a rule that does not compile":    {"import \"buf/validate/validate.proto\";\nmessage M { string a = 1 [(buf.validate.field).cel = {id: \"x\" expression: \"this +\"}]; }", "p.proto:6:1: the rules of p.M do not compile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := compile(c.body); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func digestOf(t *testing.T, body string) [32]byte {
	t.Helper()
	set, err := compile(body)
	if err != nil {
		t.Fatal(err)
	}
	return messageOf(t, set, "p.M").Digest()
}

func TestTheDigestIsOfTheTypeAlone(t *testing.T) {
	t.Parallel()
	const validate = "import \"buf/validate/validate.proto\";\n"
	base := digestOf(t, validate+`message M { string a = 1 [(buf.validate.field).string.max_len = 5]; N n = 2; } message N { E e = 1; } enum E { Z = 0; }`)
	same := digestOf(t, validate+"// Another comment.\nenum E { Z = 0; }\nmessage N { E e = 1; }\n\nmessage M {\n  N n = 2;\n  // Text.\n  string a = 1 [(buf.validate.field).string.max_len = 5, deprecated = true];\n}")
	if base != same {
		t.Error("comments, order or positions change the digest")
	}
	for name, body := range map[string]string{
		"a rule":           `message M { string a = 1 [(buf.validate.field).string.max_len = 6]; N n = 2; } message N { E e = 1; } enum E { Z = 0; }`,
		"a sensitivity":    `message M { string a = 1 [(buf.validate.field).string.max_len = 5, (writ.v1.field).sensitivity = SENSITIVITY_REDACT]; N n = 2; } message N { E e = 1; } enum E { Z = 0; }`,
		"a name below":     `message M { string a = 1 [(buf.validate.field).string.max_len = 5]; N n = 2; } message N { E f = 1; } enum E { Z = 0; }`,
		"a value of enums": `message M { string a = 1 [(buf.validate.field).string.max_len = 5]; N n = 2; } message N { E e = 1; } enum E { Z = 0; Y = 1; }`,
		"a json_name":      `message M { string a = 1 [(buf.validate.field).string.max_len = 5, json_name = "b"]; N n = 2; } message N { E e = 1; } enum E { Z = 0; }`,
		"presence":         `message M { optional string a = 1 [(buf.validate.field).string.max_len = 5]; N n = 2; } message N { E e = 1; } enum E { Z = 0; }`,
	} {
		if digestOf(t, validate+body) == base {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

func TestTheDigestIsTheSameWhoeverCompiled(t *testing.T) {
	t.Parallel()
	set, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	image := &descriptorpb.FileDescriptorSet{}
	set.Files().RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if file.Path() == kindsFile {
			described := protodesc.ToFileDescriptorProto(file)
			described.SourceCodeInfo = nil
			image.File = append(image.File, described)
		}
		return true
	})
	encoded, err := proto.Marshal(image)
	if err != nil {
		t.Fatal(err)
	}
	again := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(encoded, again); err != nil {
		t.Fatal(err)
	}
	other, err := schemas.FromDescriptors(again)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []protoreflect.FullName{"kinds.v1.Every", "kinds.v1.OrderRequest"} {
		if typeOf(t, name).Digest() != messageOf(t, other, name).Digest() {
			t.Errorf("the digests of %s differ", name)
		}
	}
}
