// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// uses is what a tool's rules ask of facts.
type uses struct {
	session, values bool
	// tools are those whose steps are asked for, sorted.
	tools []string
}

func (u *uses) join(other *uses) {
	u.session = u.session || other.session
	u.values = u.values || other.values
	u.tools = append(u.tools, other.tools...)
	slices.Sort(u.tools)
	u.tools = slices.Compact(u.tools)
}

// asked finds what an expression asks of facts.
type asked struct {
	uses   uses
	fields []keptField
	faults []fault
	output bool
	ast    *ast.AST
}

// keptField is a field of an earlier call that an expression asks for.
type keptField struct {
	tool, path   string
	as           readAs
	line, column int
}

func (a *asked) visit(e ast.Expr) {
	switch {
	case e.Kind() == ast.IdentKind && e.AsIdent() == valuesName:
		a.uses.values = true
	case e.Kind() == ast.IdentKind && e.AsIdent() == "output":
		a.output = true
	case e.Kind() == ast.IdentKind && (e.AsIdent() == "session" || e.AsIdent() == "run"):
		a.uses.session = true
	case e.Kind() != ast.CallKind || !e.AsCall().IsMemberFunction():
	case a.overload(e, "session_called"), a.overload(e, "run_called"):
		tool, ok := literal(e.AsCall().Args()[0])
		if !ok {
			a.fault(e, "name the tool with a literal, so that writ knows which calls to keep")
			return
		}
		a.uses.tools = append(a.uses.tools, tool)
	case a.overload(e, "steps_where"):
		a.field(e, asAny)
	case a.overload(e, "steps_number"):
		a.field(e, asNumber)
	case a.overload(e, "steps_text"):
		a.field(e, asText)
	case a.overload(e, "steps_flag"):
		a.field(e, asFlag)
	}
}

func (a *asked) overload(e ast.Expr, id string) bool {
	reference, ok := a.ast.ReferenceMap()[e.ID()]
	return ok && slices.Contains(reference.OverloadIDs, id)
}

// field notes a field of earlier calls that an expression reads.
func (a *asked) field(e ast.Expr, as readAs) {
	path, ok := literal(e.AsCall().Args()[0])
	if !ok {
		a.fault(e, "name the field with a literal, so that writ knows what to keep")
		return
	}
	target := e.AsCall().Target()
	for target.Kind() == ast.CallKind && !a.overload(target, "session_called") && !a.overload(target, "run_called") {
		target = target.AsCall().Target()
	}
	if target.Kind() != ast.CallKind {
		a.fault(e, "ask for fields of session.called(...) or run.called(...) alone")
		return
	}
	tool, _ := literal(target.AsCall().Args()[0])
	line, column := a.place(e)
	a.fields = append(a.fields, keptField{tool: tool, path: path, as: as, line: line, column: column})
}

func (a *asked) place(e ast.Expr) (line, column int) {
	at := a.ast.SourceInfo().GetStartLocation(e.ID())
	return max(1, at.Line()), max(1, at.Column()+1)
}

func (a *asked) fault(e ast.Expr, format string, args ...any) {
	line, column := a.place(e)
	a.faults = append(a.faults, fault{severity: Fatal, line: line, column: column, message: fmt.Sprintf(format, args...)})
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}
