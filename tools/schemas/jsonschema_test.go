// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestTheSchemaIsPrintedAsReviewed(t *testing.T) {
	t.Parallel()
	for file, name := range map[string]protoreflect.FullName{"order": "kinds.v1.OrderRequest", "every": "kinds.v1.Every"} {
		var got bytes.Buffer
		if err := json.Indent(&got, typeOf(t, name).JSONSchema(), "", "  "); err != nil {
			t.Fatal(err)
		}
		path := "testdata/" + file + ".schema.json"
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("the schema of %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhatIsValidIsValidByTheSchema(t *testing.T) {
	t.Parallel()
	for text, name := range map[string]protoreflect.FullName{order: "kinds.v1.OrderRequest", arguments: "kinds.v1.OrderRequest", `{"i32":1,"inner":{"left":"x"},"by_number":{"-1":2}}`: "kinds.v1.Every"} {
		schema := &jsonschema.Schema{}
		if err := json.Unmarshal(typeOf(t, name).JSONSchema(), schema); err != nil {
			t.Fatal(err)
		}
		resolved, err := schema.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		var instance any
		if err := json.Unmarshal([]byte(text), &instance); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(instance); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		instance.(map[string]any)["other"] = 1
		if resolved.Validate(instance) == nil {
			t.Errorf("the schema of %s takes an unknown field", name)
		}
	}
}
