// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// The types of what conditions ask of a session and of provenance.
var (
	sessionType    = cel.OpaqueType("writ.Session")
	runType        = cel.OpaqueType("writ.Run")
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
//	session.called("t").number("result.a") .text("args.b") .flag("result.c"): the latest's
//	run.called("t") within a contract: as session.called, since the run began; run.intent()
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
	read := func(name string, out *cel.Type, answer func(stepsValue, string) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.MemberOverload("steps_"+name, []*cel.Type{stepsType, cel.StringType}, out,
			cel.BinaryBinding(func(v, path ref.Val) ref.Val { return answer(v.(stepsValue), string(path.(types.String))) })))
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
		cel.Function("called", cel.MemberOverload("run_called", []*cel.Type{runType, cel.StringType}, stepsType,
			cel.BinaryBinding(func(v, tool ref.Val) ref.Val { return v.(runValue).called(string(tool.(types.String))) }))),
		cel.Function("intent", cel.MemberOverload("run_intent", []*cel.Type{runType}, cel.StringType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return types.String(v.(runValue).GetSession().GetRun().GetIntent()) }))),
		read("number", cel.IntType, stepsValue.number),
		read("text", cel.StringType, stepsValue.text),
		read("flag", cel.BoolType, stepsValue.flag),
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
