// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// mostKept bounds the fields that are kept of a call, and keptBytes the value of
// one (KeptField and Step in session.proto).
const (
	mostKept  = 32
	keptBytes = 512
)

// keptPath is a field that is kept: as conditions name it, and where it stands in
// canonical JSON.
type keptPath struct {
	name, path string
	field      protoreflect.FieldDescriptor
}

// value returns the text that is kept of a field, given its canonical JSON; "" where it
// is not there. As in conditions an enum is its number, and what is not there is zero.
func (k *keptPath) value(text string) string {
	switch {
	case k.field.Kind() == protoreflect.EnumKind:
		name, err := atoms.Unquote(text)
		if value := k.field.Enum().Values().ByName(protoreflect.Name(name)); err == nil && value != nil {
			return strconv.Itoa(int(value.Number()))
		}
		return "0"
	case text != "":
		return text
	case k.field.Kind() == protoreflect.StringKind, k.field.Kind() == protoreflect.BytesKind:
		return `""`
	case k.field.Kind() == protoreflect.BoolKind:
		return "false"
	default:
		return "0"
	}
}

// asksOf returns what a checked expression asks of facts.
func asksOf(checked *cel.Ast) *asked {
	a := &asked{ast: checked.NativeRep()}
	ast.PreOrderVisit(a.ast.Expr(), ast.NewExprVisitor(a.visit))
	return a
}

// keep has the fields of earlier calls kept that a program asks for. A tool or field
// that is not there, or must not be kept, is a fault.
func (b *builder) keep(part Part, index int, path string, p *program) bool {
	ok := true
	for _, tool := range p.uses.tools {
		if b.bundle.entries[tool] == nil {
			b.issue(part, index, "the condition asks for calls of %s, and the bundle has no such tool", tool)
			ok = false
		}
	}
	for _, field := range p.fields {
		of := b.bundle.entries[field.tool]
		if of == nil {
			continue
		}
		if wrong := of.keep(field); wrong != "" {
			b.issues = append(b.issues, Issue{
				Part: part, Index: index, Path: path, Line: field.line, Column: field.column,
				Message: "writ cannot keep " + field.path + " of " + field.tool + ": " + wrong,
			})
			ok = false
		}
	}
	return ok
}

// keep has a field kept, or says why that cannot be.
func (t *entry) keep(asked keptField) string {
	const which = `name a scalar field that is not sensitive as "args.field" or "result.field"`
	root, path, _ := strings.Cut(asked.path, ".")
	message, kept := t.tool.Request, &t.keptArguments
	if root == "result" {
		message, kept = t.tool.Response, &t.keptResults
	} else if root != "args" {
		return which
	}
	at, field := jsonPath(message.Descriptor(), path)
	switch {
	case field == nil:
		return which
	case !asked.as.fits(field):
		return "it is no " + string(asked.as)
	}
	for _, k := range *kept {
		if k.name == asked.path {
			return ""
		}
	}
	if *kept = append(*kept, keptPath{asked.path, at, field}); len(*kept) > mostKept {
		return "at most 32 fields of a tool are kept"
	}
	return ""
}

// readAs is what an expression reads a field of an earlier call as.
type readAs string

const (
	asAny    readAs = ""
	asNumber readAs = "number"
	asText   readAs = "text"
	asFlag   readAs = "flag"
)

// fits says whether a field can be read so.
func (as readAs) fits(field protoreflect.FieldDescriptor) bool {
	switch field.Kind() {
	case protoreflect.StringKind:
		return as == asAny || as == asText
	case protoreflect.BoolKind:
		return as == asAny || as == asFlag
	case protoreflect.FloatKind, protoreflect.DoubleKind, protoreflect.BytesKind:
		return as == asAny
	default:
		return as == asAny || as == asNumber
	}
}

// jsonPath returns where a scalar field stands in canonical JSON, and the field; nil
// where there is none that may be kept.
func jsonPath(message protoreflect.MessageDescriptor, path string) (string, protoreflect.FieldDescriptor) {
	var names []string
	steps := strings.Split(path, ".")
	for i, step := range steps {
		field := message.Fields().ByName(protoreflect.Name(step))
		if field == nil || field.IsList() || field.IsMap() || fieldPolicy(field).GetSensitivity() != 0 {
			return "", nil
		}
		names = append(names, schemas.JSONName(field))
		message = field.Message()
		switch {
		case i == len(steps)-1 && message == nil:
			return strings.Join(names, "."), field
		case message == nil:
			return "", nil
		}
	}
	return "", nil
}

// keeps returns the effects that keep fields of the arguments.
func (e *evaluation) keeps() []*writv1.Effect {
	if len(e.entry.keptArguments) == 0 {
		return nil
	}
	var effects []*writv1.Effect
	for _, field := range keptFields(e.entry.keptArguments, e.canonical) {
		effects = append(effects, &writv1.Effect{Effect: &writv1.Effect_Keep{Keep: field}})
	}
	return effects
}

// KeptResult returns the fields of a result, in canonical JSON, that conditions on
// later calls ask for.
func (b *Bundle) KeptResult(tool *tools.Tool, canonical []byte) []*writv1.KeptField {
	entry := b.entries[tool.Name]
	if entry == nil || len(entry.keptResults) == 0 {
		return nil
	}
	return keptFields(entry.keptResults, canonical)
}

// keptFields reads fields from canonical JSON. One that is too large is kept
// without its value: then nothing can be said of it.
func keptFields(kept []keptPath, canonical []byte) []*writv1.KeptField {
	leaves, _, _, err := atoms.Leaves(canonical)
	if err != nil {
		return nil
	}
	var fields []*writv1.KeptField
	for i := range kept {
		text := ""
		for j := range leaves {
			if leaves[j].Path == kept[i].path {
				text = leaves[j].JSON()
			}
		}
		field := &writv1.KeptField{Path: kept[i].name}
		if value := kept[i].value(text); len(value) <= keptBytes {
			field.Value = value
		}
		fields = append(fields, field)
	}
	return fields
}
