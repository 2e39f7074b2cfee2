// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const (
	// costBound is what an expression may cost at most, by the sizes its inputs
	// may have (cost.go), and what an evaluation is stopped at. A unit of CEL's
	// cost model is about a step; a million of them are some 50 ms.
	costBound = 1_000_000
	// expressionLength is the bound of Grant.condition and CheckRule.expression.
	expressionLength = 8192
	// expressionDepth bounds the nesting of an expression.
	expressionDepth = 64
)

// adapter makes CEL values of Go values.
type adapter = types.Adapter

// compiler compiles CEL expressions: one environment for what an expression may
// read, and one program for each expression and environment.
type compiler struct {
	base     *cel.Env
	adapter  adapter
	envs     map[roots]*cel.Env
	compiled map[source]outcome
}

// roots are the types of what an expression may read besides what all may: the
// arguments of a call, and within a contract the run with its inputs and output. Nil is
// what it may not.
type roots struct {
	args, inputs, output protoreflect.MessageDescriptor
	run                  bool
}

type source struct {
	roots      roots
	expression string
}

type outcome struct {
	program *program
	faults  []fault
}

// fault is something wrong with an expression, at a place in it.
type fault struct {
	severity     Severity
	line, column int
	message      string
}

// program is a compiled condition.
type program struct {
	cel    cel.Program
	uses   uses
	fields []keptField
	// output says that it reads the output of a run.
	output bool
	// sensitive says that it reads a sensitive argument, and digest names it then.
	sensitive bool
	digest    expressionDigest
}

// newCompiler returns a compiler over the types of files. Nothing that an
// expression may call depends on the machine: times are UTC, and zones are
// refused by [lint].
func newCompiler(files *protoregistry.Files) (*compiler, error) {
	options := []cel.EnvOption{
		cel.DefaultUTCTimeZone(true),
		cel.HomogeneousAggregateLiterals(),
		cel.ParserExpressionSizeLimit(expressionLength),
		cel.ParserRecursionLimit(expressionDepth),
		ext.Strings(),
		ext.Math(),
		ext.Sets(),
		cel.Types(&writv1.Principal{}, &writv1.Envelope{}),
		cel.Variable("principal", cel.ObjectType("writ.v1.Principal")),
		cel.Variable("claimed", cel.ObjectType("writ.v1.Envelope")),
		cel.Variable("tool", cel.StringType),
		cel.Variable("now", cel.TimestampType),
	}
	options = append(options, history()...)
	if files != nil {
		options = append(options, cel.TypeDescs(files))
	}
	base, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("making the base environment: %w", err)
	}
	return &compiler{
		base:     base,
		adapter:  base.CELTypeAdapter(),
		envs:     make(map[roots]*cel.Env),
		compiled: make(map[source]outcome),
	}, nil
}

// argumentsOf are the roots of a condition on calls of a tool.
func argumentsOf(tool *tools.Tool) roots { return roots{args: tool.Request.Descriptor()} }

// compile compiles an expression. One that cannot speak of the arguments is the same
// program for all tools.
func (c *compiler) compile(expression string, of roots) (*program, []fault) {
	if !strings.Contains(expression, "args") {
		of.args = nil
	}
	key := source{roots: of, expression: expression}
	done, ok := c.compiled[key]
	if !ok {
		done.program, done.faults = c.compileNew(key)
		c.compiled[key] = done
	}
	return done.program, done.faults
}

func (c *compiler) compileNew(key source) (*program, []fault) {
	env, err := c.env(key.roots)
	if err != nil {
		return nil, []fault{{message: "the types cannot be used in conditions: " + err.Error()}}
	}
	checked, issues := env.Compile(key.expression)
	if issues.Err() != nil {
		return nil, faultsOf(issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, []fault{{line: 1, column: 1, message: fmt.Sprintf("the expression must be a bool and is a %s", checked.OutputType())}}
	}
	asks := asksOf(checked)
	faults := append(lint(checked), asks.faults...)
	for _, fault := range faults {
		if fault.severity == Fatal {
			return nil, faults
		}
	}
	if fault := checkCost(env, checked, key.roots); fault != nil {
		return nil, append(faults, *fault)
	}
	compiled, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costBound))
	if err != nil {
		return nil, append(faults, fault{line: 1, column: 1, message: "the expression cannot be compiled: " + err.Error()})
	}
	return &program{
		cel: compiled, uses: asks.uses, fields: asks.fields, output: asks.output,
		sensitive: readsSensitive(checked.NativeRep(), key.roots.args), digest: digestOfExpression(key.expression),
	}, faults
}

// env returns the environment in which what may be read is declared.
func (c *compiler) env(of roots) (*cel.Env, error) {
	if of == (roots{}) {
		return c.base, nil
	}
	if env, ok := c.envs[of]; ok {
		return env, nil
	}
	var options []cel.EnvOption
	declare := func(name string, message protoreflect.MessageDescriptor) {
		if message != nil {
			options = append(options, cel.Variable(name, cel.ObjectType(string(message.FullName()))))
		}
	}
	declare("args", of.args)
	declare("inputs", of.inputs)
	declare("output", of.output)
	if of.run {
		options = append(options, cel.Variable("run", runType))
	}
	for _, message := range []protoreflect.MessageDescriptor{of.args, of.inputs, of.output} {
		if message != nil {
			options = append(options, cel.Container(string(message.ParentFile().Package())))
			break
		}
	}
	env, err := c.base.Extend(options...)
	if err != nil {
		return nil, err
	}
	c.envs[of] = env
	return env, nil
}

// faultsOf returns CEL's issues; its columns count from 0, ours from 1.
func faultsOf(issues *cel.Issues) []fault {
	faults := make([]fault, 0, len(issues.Errors()))
	for _, err := range issues.Errors() {
		line, column := max(1, err.Location.Line()), max(1, err.Location.Column()+1)
		faults = append(faults, fault{line: line, column: column, message: err.Message})
	}
	return faults
}

// truth is how a condition came out.
type truth int

const (
	yes truth = iota
	no
	erred
)

// holds evaluates a condition; none holds always.
func (e *evaluation) holds(condition *program) truth {
	switch {
	case condition == nil:
		return yes
	case condition.sensitive:
		return e.witness(condition)
	default:
		return e.evaluate(condition)
	}
}

func (e *evaluation) evaluate(condition *program) truth {
	e.scope.evaluation = e
	out, _, err := condition.cel.Eval(&e.scope)
	switch {
	case err != nil:
		return erred
	case out == types.True:
		return yes
	case out == types.False:
		return no
	default:
		return erred
	}
}

// activation gives an evaluation's variables to CEL, each converted once.
type activation struct {
	*evaluation
	args, who, said, inputs, output ref.Val
}

// ResolveName returns the variable of that name.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "args":
		if a.args == nil {
			a.args = a.bundle.adapter.NativeToValue(a.typed.Interface())
		}
		return a.args, true
	case "principal":
		if a.who == nil {
			a.who = a.bundle.adapter.NativeToValue(a.call.Principal)
		}
		return a.who, true
	case "claimed":
		if a.said == nil {
			a.said = a.bundle.adapter.NativeToValue(claimed(a.call.Envelope))
		}
		return a.said, true
	case "tool":
		return types.String(a.entry.tool.Name), true
	case "now":
		return types.Timestamp{Time: a.now}, true
	case "session":
		return sessionValue{opaque{sessionType}, a.facts}, true
	case "run":
		return runValue{opaque{runType}, a.facts}, true
	case "inputs":
		return a.inputs, a.inputs != nil
	case "output":
		return a.output, a.output != nil
	case valuesName:
		return valuesValue{opaque{valuesType}, a.evaluation}, true
	}
	return nil, false
}

// Parent returns nothing: there is no outer scope.
func (a *activation) Parent() cel.Activation { return nil }

// claimed returns the envelope, empty where there is none.
func claimed(envelope *writv1.Envelope) *writv1.Envelope {
	if envelope == nil {
		return &writv1.Envelope{}
	}
	return envelope
}
