// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"buf.build/go/protoyaml"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// maxShown is how deep fields are shown; messages may contain themselves.
const maxShown = 6

// showTool prints a tool for people.
func showTool(w io.Writer, tool *tools.Tool) error {
	fmt.Fprintf(w, "%s\n\n%s\n\n", tool.Name, tool.Description)
	if route := routeOf(tool); route != "" {
		fmt.Fprintf(w, "http      %s\n", route)
	}
	fmt.Fprintf(w, "schema    sha256:%x\n", tool.SchemaDigest)
	options, err := protoyaml.MarshalOptions{UseProtoNames: true, Indent: 2}.Marshal(tool.Options)
	if err != nil {
		return fmt.Errorf("print the options: %w", err)
	}
	fmt.Fprintf(w, "\noptions\n  %s\n", strings.ReplaceAll(strings.TrimSpace(string(options)), "\n", "\n  "))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, part := range []struct {
		name string
		of   protoreflect.MessageDescriptor
	}{{"request", tool.Request.Descriptor()}, {"response", tool.Response.Descriptor()}} {
		fmt.Fprintf(table, "\n%s\n", part.name)
		showFields(table, "  ", part.of, maxShown)
	}
	return table.Flush()
}

// routeOf is how the tool is called over HTTP, or nothing.
func routeOf(tool *tools.Tool) string {
	if tool.HTTP == nil {
		return ""
	}
	return tool.HTTP.String()
}

// showFields prints a line for each field: its name, type, and what the bundle says of
// its value.
func showFields(w io.Writer, indent string, message protoreflect.MessageDescriptor, depth int) {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		fmt.Fprintf(w, "%s%s\t%s%s\n", indent, schemas.JSONName(field), typeOf(field), policyOf(field))
		if inner := field.Message(); inner != nil && !field.IsMap() && depth > 1 && !strings.HasPrefix(string(inner.FullName()), "google.protobuf.") {
			showFields(w, indent+"  ", inner, depth-1)
		}
	}
}

func typeOf(field protoreflect.FieldDescriptor) string {
	name := field.Kind().String()
	switch {
	case field.IsMap():
		return fmt.Sprintf("map of %s to %s", typeOf(field.MapKey()), typeOf(field.MapValue()))
	case field.Message() != nil:
		name = string(field.Message().Name())
	case field.Enum() != nil:
		name = string(field.Enum().Name())
	}
	if field.IsList() {
		return "list of " + name
	}
	return name
}

// policyOf is a further column with what the bundle says of a field's value, or nothing.
func policyOf(field protoreflect.FieldDescriptor) string {
	policy, ok := proto.GetExtension(field.Options(), writv1.E_Field).(*writv1.FieldPolicy)
	if !ok || policy == nil {
		return ""
	}
	var words []string
	if policy.GetSensitivity() != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED {
		words = append(words, strings.ToLower(strings.TrimPrefix(policy.GetSensitivity().String(), "SENSITIVITY_")))
	}
	if policy.GetBinding() != writv1.Binding_BINDING_UNSPECIFIED {
		words = append(words, "bound to the "+strings.ToLower(strings.TrimPrefix(policy.GetBinding().String(), "BINDING_")))
	}
	if len(words) == 0 {
		return ""
	}
	return "\t" + strings.Join(words, ", ")
}
