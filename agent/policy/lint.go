// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// lint refuses what would make a decision depend on more than its inputs, and
// warns of a condition that reads what the planner claims (SEMANTICS 7).
func lint(checked *cel.Ast) []fault {
	l := linter{ast: checked.NativeRep()}
	ast.PreOrderVisit(l.ast.Expr(), ast.NewExprVisitor(l.visit))
	return l.faults
}

type linter struct {
	ast    *ast.AST
	faults []fault
	warned bool
}

func (l *linter) visit(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() == "claimed" && !l.warned {
			l.warned = true
			l.add(e, Warning, "the condition reads what the planner claims; it is not verified")
		}
	case ast.CallKind:
		l.zone(e)
	case ast.ComprehensionKind:
		l.fold(e)
	}
}

func (l *linter) add(e ast.Expr, severity Severity, message string) {
	at := l.ast.SourceInfo().GetStartLocation(e.ID())
	l.faults = append(l.faults, fault{
		severity: severity, line: max(1, at.Line()), column: max(1, at.Column()+1), message: message,
	})
}

// zone refuses time zones by name: they are read from the machine's own
// database, which is a file and changes.
func (l *linter) zone(e ast.Expr) {
	reference, ok := l.ast.ReferenceMap()[e.ID()]
	if !ok {
		return
	}
	for _, overload := range reference.OverloadIDs {
		if !strings.HasSuffix(overload, "_with_tz") {
			continue
		}
		for _, argument := range e.AsCall().Args() {
			if !isOffset(argument) {
				l.add(argument, Fatal, `a time zone must be an offset written out, such as "+02:00"; names depend on the machine`)
				return
			}
		}
	}
}

func isOffset(e ast.Expr) bool {
	if e.Kind() != ast.LiteralKind {
		return false
	}
	text, ok := e.AsLiteral().(types.String)
	return ok && strings.Contains(string(text), ":")
}

// fold refuses to make a list of a map's entries, whose order is not defined.
// all, exists and exists_one do not depend on it.
func (l *linter) fold(e ast.Expr) {
	comprehension := e.AsComprehension()
	over := l.ast.GetType(comprehension.IterRange().ID()).Kind()
	if over != types.MapKind && over != types.DynKind {
		return
	}
	switch l.ast.GetType(comprehension.AccuInit().ID()).Kind() {
	case types.BoolKind, types.IntKind:
		return
	}
	l.add(e, Fatal, "the entries of a map have no order; use all, exists or exists_one, or name the keys")
}
