// SPDX-License-Identifier: Apache-2.0

package policy

import (
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
type keptPath struct{ name, path string }

// asksOf returns what a checked expression asks of facts.
func asksOf(checked *cel.Ast) *asked {
	a := &asked{ast: checked.NativeRep()}
	ast.PreOrderVisit(a.ast.Expr(), ast.NewExprVisitor(a.visit))
	return a
}

// keep notes what a program on a tool asks of facts, and has the fields of earlier
// calls kept that it asks for. A field that is not there, or must not be kept, is a
// fault.
func (b *builder) keep(part Part, index int, p *program, on *entry) bool {
	on.uses.join(&p.uses)
	ok := true
	for _, tool := range p.uses.tools {
		if b.bundle.entries[tool] == nil {
			b.issue(part, index, "the condition asks for calls of %s, and the bundle has no such tool", tool)
			ok = false
		}
	}
	for _, field := range p.fields {
		if of := b.bundle.entries[field.tool]; of != nil && !of.keep(field.path) {
			issue := Issue{Part: part, Index: index, Line: field.line, Column: field.column, Message: "writ cannot keep " + field.path +
				" of " + field.tool + `: name a scalar field that is not sensitive as "args.field" or "result.field"; at most 32 a tool`}
			b.issues = append(b.issues, issue)
			ok = false
		}
	}
	return ok
}

// keep has a field kept; it says false where that cannot be.
func (t *entry) keep(name string) bool {
	root, path, _ := strings.Cut(name, ".")
	message, kept := t.tool.Request, &t.keptArguments
	if root == "result" {
		message, kept = t.tool.Response, &t.keptResults
	} else if root != "args" {
		return false
	}
	at, ok := jsonPath(message.Descriptor(), path)
	if !ok {
		return false
	}
	for _, k := range *kept {
		if k.name == name {
			return true
		}
	}
	*kept = append(*kept, keptPath{name, at})
	return len(*kept) <= mostKept
}

// jsonPath returns where a scalar field stands in canonical JSON.
func jsonPath(message protoreflect.MessageDescriptor, path string) (string, bool) {
	var names []string
	steps := strings.Split(path, ".")
	for i, step := range steps {
		field := message.Fields().ByName(protoreflect.Name(step))
		if field == nil || field.IsList() || field.IsMap() || fieldPolicy(field).GetSensitivity() != 0 {
			return "", false
		}
		names = append(names, schemas.JSONName(field))
		if i == len(steps)-1 {
			return strings.Join(names, "."), field.Message() == nil
		}
		if message = field.Message(); message == nil {
			return "", false
		}
	}
	return "", false
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
	for _, k := range kept {
		for i := range leaves {
			if leaves[i].Path != k.path {
				continue
			}
			field := &writv1.KeptField{Path: k.name}
			if text := leaves[i].JSON(); len(text) <= keptBytes {
				field.Value = text
			}
			fields = append(fields, field)
		}
	}
	return fields
}
