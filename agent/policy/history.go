// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

// The types of what conditions ask of a session and of provenance.
var (
	sessionType    = cel.OpaqueType("writ.Session")
	stepsType      = cel.OpaqueType("writ.Steps")
	valuesType     = cel.OpaqueType("writ.Values")
	provenanceType = cel.OpaqueType("writ.Provenance")
)

// valuesName is the variable that the macro provenance() reads. Conditions have no
// way to name it: an identifier does not begin with @.
const valuesName = "@values"

// history is what conditions may ask of the session and of provenance:
//
//	session.calls() session.writes() session.denials() session.classification()
//	session.attested() session.read_untrusted()
//	session.called("t").any() .count() .succeeded() .within(duration("1h"))
//	session.called("t").with({"args.a": args.a, "result.b": args.b})
//	provenance(args.x).known() .trusted() .untrusted() .of_request()
//	provenance(args.x).from("user") .sources() .within(duration("10m")) .with(args.y)
func history() []cel.EnvOption {
	return slices.Concat(sessionFunctions(), provenanceFunctions(), []cel.EnvOption{
		cel.Variable("session", sessionType),
		cel.Variable(valuesName, valuesType),
		cel.Macros(
			cel.GlobalMacro("provenance", 1, expandProvenance),
			cel.ReceiverMacro("with", 1, expandWith),
		),
	})
}

// expandProvenance turns provenance(x) into a call on the values of the call.
func expandProvenance(eh cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	return eh.NewMemberCall("of", eh.NewIdent(valuesName), args[0]), nil
}

// expandWith turns steps.with({"args.a": x}) into steps.where("args.a", x).any(),
// and provenance(x).with(y) into a call on the provenance of both.
func expandWith(eh cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if args[0].Kind() != ast.MapKind {
		return eh.NewMemberCall("beside", target, eh.NewMemberCall("of", eh.NewIdent(valuesName), args[0])), nil
	}
	out := target
	for _, entry := range args[0].AsMap().Entries() {
		pair := entry.AsMapEntry()
		out = eh.NewMemberCall("where", out, pair.Key(), pair.Value())
	}
	return eh.NewMemberCall("any", out), nil
}

func sessionFunctions() []cel.EnvOption {
	ask := func(name string, out *cel.Type, answer func(*writv1.SessionSummary) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.MemberOverload("session_"+name, []*cel.Type{sessionType}, out,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return answer(v.(sessionValue).GetSession()) })))
	}
	return []cel.EnvOption{
		ask("calls", cel.IntType, func(s *writv1.SessionSummary) ref.Val { return types.Int(s.GetCounts().GetCalls()) }),
		ask("writes", cel.IntType, func(s *writv1.SessionSummary) ref.Val { return types.Int(s.GetCounts().GetWrites()) }),
		ask("denials", cel.IntType, func(s *writv1.SessionSummary) ref.Val { return types.Int(s.GetCounts().GetDenials()) }),
		ask("classification", cel.IntType, func(s *writv1.SessionSummary) ref.Val { return types.Int(s.GetClassification()) }),
		ask("attested", cel.BoolType, func(s *writv1.SessionSummary) ref.Val { return types.Bool(s.GetAttested()) }),
		ask("read_untrusted", cel.BoolType, func(s *writv1.SessionSummary) ref.Val { return types.Bool(s.GetReadUntrusted()) }),
		cel.Function("called", cel.MemberOverload("session_called", []*cel.Type{sessionType, cel.StringType}, stepsType,
			cel.BinaryBinding(func(v, tool ref.Val) ref.Val { return v.(sessionValue).called(string(tool.(types.String))) }))),
		cel.Function("any", cel.MemberOverload("steps_any", []*cel.Type{stepsType}, cel.BoolType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return v.(stepsValue).any() }))),
		cel.Function("count", cel.MemberOverload("steps_count", []*cel.Type{stepsType}, cel.IntType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return v.(stepsValue).count() }))),
		cel.Function("succeeded", cel.MemberOverload("steps_succeeded", []*cel.Type{stepsType}, stepsType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				return v.(stepsValue).filter(func(s *writv1.Step) bool { return s.GetSucceeded() })
			}))),
		cel.Function("within", cel.MemberOverload("steps_within", []*cel.Type{stepsType, cel.DurationType}, stepsType,
			cel.BinaryBinding(func(v, d ref.Val) ref.Val { return v.(stepsValue).within(d.(types.Duration).Duration) }))),
		cel.Function("where", cel.MemberOverload("steps_where", []*cel.Type{stepsType, cel.StringType, cel.DynType}, stepsType,
			cel.FunctionBinding(func(in ...ref.Val) ref.Val {
				return in[0].(stepsValue).where(string(in[1].(types.String)), in[2])
			}))),
	}
}

func provenanceFunctions() []cel.EnvOption {
	ask := func(name string, answer func(provenanceValue) bool) cel.EnvOption {
		return cel.Function(name, cel.MemberOverload("provenance_"+name, []*cel.Type{provenanceType}, cel.BoolType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return types.Bool(answer(v.(provenanceValue))) })))
	}
	return []cel.EnvOption{
		cel.Function("of", cel.MemberOverload("values_of", []*cel.Type{valuesType, cel.DynType}, provenanceType,
			cel.BinaryBinding(func(v, of ref.Val) ref.Val { return v.(valuesValue).of(of) }))),
		ask("known", provenanceValue.known),
		ask("trusted", provenanceValue.trusted),
		ask("untrusted", provenanceValue.untrusted),
		ask("of_request", provenanceValue.ofRequest),
		cel.Function("from", cel.MemberOverload("provenance_from", []*cel.Type{provenanceType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(v, s ref.Val) ref.Val { return types.Bool(v.(provenanceValue).from(string(s.(types.String)))) }))),
		cel.Function("within", cel.MemberOverload("provenance_within", []*cel.Type{provenanceType, cel.DurationType}, cel.BoolType,
			cel.BinaryBinding(func(v, d ref.Val) ref.Val {
				return types.Bool(v.(provenanceValue).within(d.(types.Duration).Duration))
			}))),
		cel.Function("beside", cel.MemberOverload("provenance_beside", []*cel.Type{provenanceType, provenanceType}, cel.BoolType,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val {
				return types.Bool(a.(provenanceValue).beside(b.(provenanceValue)))
			}))),
		cel.Function("sources", cel.MemberOverload("provenance_sources", []*cel.Type{provenanceType}, cel.ListType(cel.StringType),
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				return types.DefaultTypeAdapter.NativeToValue(v.(provenanceValue).sources())
			}))),
	}
}

// opaque is what the values of our types have in common: they can be asked, and
// nothing else.
type opaque struct{ kind *cel.Type }

// ConvertToNative refuses.
func (o opaque) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("the value cannot be converted")
}

// ConvertToType gives the type itself alone.
func (o opaque) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.kind
	}
	return types.NewErr("the value cannot be converted")
}

// Equal refuses to compare.
func (o opaque) Equal(ref.Val) ref.Val { return types.NewErr("the value cannot be compared") }

// Type returns the type.
func (o opaque) Type() ref.Type { return o.kind }

// Value returns nothing.
func (o opaque) Value() any { return nil }

// sessionValue is the variable session.
type sessionValue struct {
	opaque
	*writv1.Facts
}

func (s sessionValue) called(tool string) ref.Val {
	out := stepsValue{opaque: opaque{stepsType}, now: s.GetTime().AsTime()}
	for _, step := range s.GetSession().GetSteps() {
		if step.GetTool() == tool {
			out.steps = append(out.steps, step)
		}
	}
	for _, of := range s.GetSession().GetStepCounts() {
		if of.GetTool() == tool {
			out.more = of.GetCount() - min(of.GetCount(), uint64(len(out.steps)))
		}
	}
	return out
}

// stepsValue is earlier calls of a tool.
type stepsValue struct {
	opaque
	steps []*writv1.Step
	// more is how many there were besides, that are not kept.
	more uint64
	now  time.Time
	// narrowed says that the steps were chosen by what those that are not kept
	// cannot be asked.
	narrowed bool
}

var errForgotten = errors.New("the session has forgotten calls that the condition asks for")

// any says whether there is one. Where none is found among those that are kept and
// others are not, nothing can be said.
func (s stepsValue) any() ref.Val {
	switch {
	case len(s.steps) > 0:
		return types.True
	case s.more == 0:
		return types.False
	case s.narrowed:
		return types.WrapErr(errForgotten)
	default:
		return types.True
	}
}

func (s stepsValue) count() ref.Val {
	if s.narrowed && s.more > 0 {
		return types.WrapErr(errForgotten)
	}
	return types.Int(uint64(len(s.steps)) + s.more)
}

func (s stepsValue) filter(keep func(*writv1.Step) bool) ref.Val {
	out := s
	out.narrowed = true
	out.steps = nil
	for _, step := range s.steps {
		if keep(step) {
			out.steps = append(out.steps, step)
		}
	}
	return out
}

// within keeps those of the last while. Those that are not kept are older than all
// that are.
func (s stepsValue) within(window time.Duration) ref.Val {
	out := s.filter(func(step *writv1.Step) bool { return s.now.Sub(step.GetTime().AsTime()) <= window }).(stepsValue)
	if len(out.steps) < len(s.steps) {
		out.more = 0
	}
	return out
}

// where keeps those whose field has the value. A field that was too large to be
// kept cannot be compared.
func (s stepsValue) where(path string, value ref.Val) ref.Val {
	want, ok := jsonText(value)
	if !ok {
		return types.NewErr("a %s cannot be compared with an earlier call's", value.Type().TypeName())
	}
	unknown := false
	out := s.filter(func(step *writv1.Step) bool {
		for _, field := range step.GetFields() {
			if field.GetPath() == path {
				unknown = unknown || field.GetValue() == ""
				return field.GetValue() == want
			}
		}
		return false
	}).(stepsValue)
	if unknown && len(out.steps) == 0 {
		return types.WrapErr(errForgotten)
	}
	return out
}

// jsonText returns the canonical JSON of a scalar.
func jsonText(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return atoms.Quote(string(v)), true
	case types.Bool:
		return strconv.FormatBool(bool(v)), true
	}
	return plainText(value)
}

// plainText returns a scalar as the text of a leaf.
func plainText(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return string(v), true
	case types.Int:
		return strconv.FormatInt(int64(v), 10), true
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), true
	}
	return "", false
}

// valuesValue is the values of the call, of which provenance() asks.
type valuesValue struct {
	opaque
	evaluation *evaluation
}

// of returns the provenance of a value: of all leaves of it.
func (v valuesValue) of(value ref.Val) ref.Val {
	out := provenanceValue{opaque: opaque{provenanceType}, now: v.evaluation.now}
	if err := v.collect(&out, value, 0); err != nil {
		return types.WrapErr(err)
	}
	return out
}

const deepest = 16

func (v valuesValue) collect(out *provenanceValue, value ref.Val, depth int) error {
	if depth > deepest {
		return errors.New("the value is nested too deeply")
	}
	if text, ok := plainText(value); ok {
		out.labels = append(out.labels, v.evaluation.labelOf(text))
		return nil
	}
	switch value := value.(type) {
	case types.Bool, types.Null:
		return nil
	case traits.Lister:
		for it := value.Iterator(); it.HasNext() == types.True; {
			if err := v.collect(out, it.Next(), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if message, ok := value.Value().(proto.Message); ok {
		return v.message(out, message.ProtoReflect(), depth)
	}
	out.labels = append(out.labels, nil)
	return nil
}

func (v valuesValue) message(out *provenanceValue, message protoreflect.Message, depth int) error {
	var err error
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Kind() == protoreflect.EnumKind || field.Kind() == protoreflect.BoolKind {
			return true
		}
		if field.IsMap() {
			out.labels = append(out.labels, nil)
			return true
		}
		err = v.collect(out, v.evaluation.bundle.adapter.NativeToValue(value.Interface()), depth+1)
		return err == nil
	})
	return err
}

// labelOf returns what is known of a value of the arguments; nil where nothing is.
func (e *evaluation) labelOf(text string) *writv1.ValueProvenance {
	for i := range e.leaves {
		if e.leaves[i].Text == text && !e.leaves[i].Bool {
			return e.labels[e.leaves[i].Path]
		}
	}
	return nil
}

// provenanceValue is where a value came from: the labels of its leaves, nil where
// nothing is known. A value without leaves meets whatever is asked.
type provenanceValue struct {
	opaque
	labels []*writv1.ValueProvenance
	now    time.Time
}

func (p provenanceValue) all(holds func(*writv1.ValueProvenance) bool) bool {
	return !slices.ContainsFunc(p.labels, func(l *writv1.ValueProvenance) bool { return l == nil || !holds(l) })
}

func trustedLabel(l *writv1.ValueProvenance) bool {
	return l.GetTrust() == writv1.Trust_TRUST_TRUSTED
}

func (p provenanceValue) known() bool {
	return p.all(func(*writv1.ValueProvenance) bool { return true })
}

func (p provenanceValue) trusted() bool { return p.all(trustedLabel) }

// untrusted says whether some leaf is known, and only from untrusted sources.
func (p provenanceValue) untrusted() bool {
	return slices.ContainsFunc(p.labels, func(l *writv1.ValueProvenance) bool { return l != nil && !trustedLabel(l) })
}

func (p provenanceValue) ofRequest() bool {
	return p.all(func(l *writv1.ValueProvenance) bool { return trustedLabel(l) && (l.GetOfRequest() || saidByUser(l)) })
}

func (p provenanceValue) from(source string) bool {
	return p.all(func(l *writv1.ValueProvenance) bool { return slices.Contains(l.GetSources(), source) })
}

func (p provenanceValue) within(window time.Duration) bool {
	return p.all(func(l *writv1.ValueProvenance) bool {
		return trustedLabel(l) && p.now.Sub(l.GetTrustedTime().AsTime()) <= window
	})
}

// beside says whether one object of a trusted lookup holds both values. What the
// user said belongs to anything.
func (p provenanceValue) beside(other provenanceValue) bool {
	all := slices.Concat(p.labels, other.labels)
	var common []uint32
	first := true
	for _, l := range all {
		switch {
		case l == nil:
			return false
		case saidByUser(l):
		case first:
			common, first = slices.Clone(l.GetObjects()), false
		default:
			common = slices.DeleteFunc(common, func(o uint32) bool { return !slices.Contains(l.GetObjects(), o) })
		}
	}
	return first || len(common) > 0
}

func (p provenanceValue) sources() []string {
	found := []string{}
	for _, l := range p.labels {
		found = append(found, l.GetSources()...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

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
	ast    *ast.AST
}

// keptField is a field of an earlier call that an expression asks for.
type keptField struct {
	tool, path   string
	line, column int
}

func (a *asked) visit(e ast.Expr) {
	switch {
	case e.Kind() == ast.IdentKind && e.AsIdent() == valuesName:
		a.uses.values = true
	case e.Kind() == ast.IdentKind && e.AsIdent() == "session":
		a.uses.session = true
	case e.Kind() != ast.CallKind || !e.AsCall().IsMemberFunction():
	case a.overload(e, "session_called"):
		tool, ok := literal(e.AsCall().Args()[0])
		if !ok {
			a.fault(e, "name the tool with a literal, so that writ knows which calls to keep")
			return
		}
		a.uses.tools = append(a.uses.tools, tool)
	case a.overload(e, "steps_where"):
		a.where(e)
	}
}

func (a *asked) overload(e ast.Expr, id string) bool {
	reference, ok := a.ast.ReferenceMap()[e.ID()]
	return ok && slices.Contains(reference.OverloadIDs, id)
}

func (a *asked) where(e ast.Expr) {
	path, ok := literal(e.AsCall().Args()[0])
	if !ok {
		a.fault(e, "name the field with a literal, so that writ knows what to keep")
		return
	}
	target := e.AsCall().Target()
	for target.Kind() == ast.CallKind && !a.overload(target, "session_called") {
		target = target.AsCall().Target()
	}
	if target.Kind() != ast.CallKind {
		a.fault(e, "ask for fields of session.called(...) alone")
		return
	}
	tool, _ := literal(target.AsCall().Args()[0])
	line, column := a.place(e)
	a.fields = append(a.fields, keptField{tool: tool, path: path, line: line, column: column})
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
