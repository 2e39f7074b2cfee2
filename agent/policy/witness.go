// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// A record holds no sensitive argument. So what rests on one is witnessed (SEMANTICS 19):
// how an expression came out that reads such a field is a fact, and is read in its place
// when the decision is made again.

// mostWitnesses bounds the witnesses of a decision (Facts.witnesses). What rests on one
// more cannot be decided again.
const mostWitnesses = 256

// expressionDigest names an expression in witnesses.
type expressionDigest [16]byte

func digestOfExpression(text string) expressionDigest {
	sum := sha256.Sum256([]byte("writ/expression/v1\n" + text))
	return expressionDigest(sum[:16])
}

// outcomeOf is how a truth is witnessed.
var outcomeOf = [...]writv1.WitnessOutcome{
	yes:   writv1.WitnessOutcome_WITNESS_OUTCOME_HOLDS,
	no:    writv1.WitnessOutcome_WITNESS_OUTCOME_DOES_NOT_HOLD,
	erred: writv1.WitnessOutcome_WITNESS_OUTCOME_ERROR,
}

// witness is [evaluation.holds] for an expression that reads a sensitive argument.
func (e *evaluation) witness(condition *program) truth {
	if len(e.call.Closed) == 0 {
		came := e.evaluate(condition)
		e.note(condition, came)
		return came
	}
	for _, w := range e.facts.GetWitnesses() {
		if string(w.GetExpression()) == string(condition.digest[:]) {
			return truth(max(0, slices.Index(outcomeOf[:], w.GetOutcome())))
		}
	}
	e.closed = true
	return erred
}

// note keeps how an expression came out, once.
func (e *evaluation) note(condition *program, came truth) {
	known := slices.ContainsFunc(e.witnesses, func(w *writv1.Witness) bool { return string(w.GetExpression()) == string(condition.digest[:]) })
	if !known && len(e.witnesses) < mostWitnesses {
		e.witnesses = append(e.witnesses, &writv1.Witness{Expression: condition.digest[:], Outcome: outcomeOf[came]})
	}
}

// blind says whether anything but expressions reads a sensitive field of a tool's
// arguments, or asks of every value where it came from: that is not witnessed.
func (t *entry) blind() bool {
	counts := slices.ContainsFunc(t.budgets, func(b *budget) bool { return b.dimension == writv1.Dimension_DIMENSION_BYTES_OUT })
	return len(t.demands) > 0 || t.tool.Options.GetSink() != nil || counts ||
		hides(seen{message: t.tool.Request.Descriptor().FullName()}, t.tool.Request.Descriptor(), make(map[seen]bool))
}

// seen is a message as it was walked through: within a sensitive field, or not.
type seen struct {
	message protoreflect.FullName
	within  bool
}

// hides says whether a field of a message that is sensitive, or is below one, is bound to
// the tenant or counts against budgets.
func hides(at seen, message protoreflect.MessageDescriptor, known map[seen]bool) bool {
	if known[at] {
		return false
	}
	known[at] = true
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		own := fieldPolicy(field)
		within := at.within || own.GetSensitivity() != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED
		if within && (own.GetBinding() == writv1.Binding_BINDING_TENANT || own.GetBudget() != nil) {
			return true
		}
		if field.IsMap() {
			field = field.MapValue()
		}
		if below := field.Message(); below != nil && hides(seen{below.FullName(), within}, below, known) {
			return true
		}
	}
	return false
}

// readsSensitive says whether an expression reads a field of args that is sensitive, or
// that holds one which is.
func readsSensitive(checked *ast.AST, args protoreflect.MessageDescriptor) bool {
	if args == nil {
		return false
	}
	names := ast.MatchDescendants(ast.NavigateAST(checked), func(e ast.NavigableExpr) bool {
		return e.Kind() == ast.IdentKind && e.AsIdent() == "args"
	})
	return slices.ContainsFunc(names, func(e ast.NavigableExpr) bool { return leadsToSensitive(args, selected(e)) })
}

// selected returns the fields that are selected one below the other, from an expression on.
func selected(e ast.NavigableExpr) []string {
	var path []string
	for {
		above, ok := e.Parent()
		if !ok || above.Kind() != ast.SelectKind || above.AsSelect().Operand().ID() != e.ID() {
			return path
		}
		path = append(path, above.AsSelect().FieldName())
		e = above
	}
}

// leadsToSensitive says whether a path passes, or ends above, a sensitive field. One that
// cannot be followed does.
func leadsToSensitive(message protoreflect.MessageDescriptor, path []string) bool {
	for len(path) > 0 {
		field := message.Fields().ByName(protoreflect.Name(path[0]))
		if field == nil || fieldPolicy(field).GetSensitivity() != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED {
			return true
		}
		path = path[1:]
		if field.IsMap() {
			field, path = field.MapValue(), path[min(1, len(path)):]
		}
		if message = field.Message(); message == nil {
			return false
		}
	}
	return sensitive(message)
}

// sensitive says whether a message has a sensitive field, at any depth.
func sensitive(message protoreflect.MessageDescriptor) bool {
	if strings.HasPrefix(string(message.FullName()), "google.protobuf.") {
		return false
	}
	found, whole := redactions(message)
	return len(found) > 0 || !whole
}
