// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/agent/policy/order"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// contracts compiles the contracts, in the order of their names, and says of each what
// can never be: tools that nobody who may begin it is granted, steps that are not
// reached, numbers that contradict the order.
func (b *builder) contracts() {
	if len(b.source.Contracts) == 0 {
		return
	}
	b.bundle.contracts = make(map[string]*contract, len(b.source.Contracts))
	for _, i := range inOrder(b.source.Contracts) {
		maker := &contractMaker{builder: b, index: i, contract: &contract{
			Contract: b.source.Contracts[i], digest: digestOf(b.source.Contracts[i]),
			intents: make(map[string]*selector), tools: make(map[string]*permitted),
		}}
		maker.make()
		b.bundle.contracts[maker.contract.GetName()] = maker.contract
	}
	// Whether a session is in a run decides what its calls may be.
	for _, entry := range b.bundle.entries {
		entry.uses.session = true
	}
}

// contractMaker is a contract being compiled.
type contractMaker struct {
	*builder
	index int
	*contract
}

func (m *contractMaker) wrong(path, format string, args ...any) {
	m.issues = append(m.issues, Issue{Part: PartContract, Index: m.index, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (m *contractMaker) make() {
	m.contract.intended = passing("contract", contractCheck(m.GetName(), "intent"))
	for i, intent := range m.GetIntents() {
		if m.contract.intents[intent.GetName()] != nil {
			m.wrong(fmt.Sprintf("intents.%d", i), "the intent %s stands twice", intent.GetName())
		}
		m.contract.intents[intent.GetName()] = newSelector(intent.GetPrincipals())
	}
	m.contract.input = m.message("input", m.GetInput())
	m.contract.output = m.message("output", m.GetOutput())
	if m.contract.input != nil {
		if path := sensitiveField(m.contract.input.Descriptor(), nil); path != "" {
			m.wrong("input", "%s of %s is sensitive, and the inputs of a run are kept; let the workflow look it up", path, m.GetInput())
		}
	}
	m.permit()
	m.retrieve()
	m.arrange()
	m.judge()
}

// message returns the type of inputs or output; nil where there is none.
func (m *contractMaker) message(path, name string) *schemas.Message {
	if name == "" {
		return nil
	}
	found := m.source.Types[name]
	if found == nil {
		m.wrong(path, "the protos have no message %s; write its full name, with the package", name)
	}
	return found
}

// roots are what the contract's expressions may read.
func (m *contractMaker) roots() roots {
	out := roots{run: true}
	if m.contract.input != nil {
		out.inputs = m.contract.input.Descriptor()
	}
	return out
}

// permit compiles the tools.
func (m *contractMaker) permit() {
	for i, source := range m.GetTools() {
		name, path := source.GetTool(), fmt.Sprintf("tools.%d", i)
		entry := m.bundle.entries[name]
		switch {
		case entry == nil:
			m.wrong(path+".tool", "the bundle has no tool %s", name)
			continue
		case m.contract.tools[name] != nil:
			m.wrong(path+".tool", "%s stands twice", name)
			continue
		case source.AtMost != nil && source.GetAtLeast() > source.GetAtMost():
			m.wrong(path, "%s must be called at least %d times and may be called at most %d times", name, source.GetAtLeast(), source.GetAtMost())
		case !m.granted(entry):
			m.wrong(path+".tool", "no grant allows %s to anyone who may begin the workflow", name)
		}
		made := &permitted{
			ContractTool: source,
			passed:       passing("contract", contractCheck(m.GetName(), "tools")),
			inOrder:      passing("contract", contractCheck(m.GetName(), "order")),
			inCount:      passing("contract", contractCheck(m.GetName(), "arity")),
			met:          passing("contract", contractCheck(m.GetName(), name)),
		}
		if source.GetCondition() != "" {
			of := m.roots()
			of.args = entry.tool.Request.Descriptor()
			if program, ok := m.compileOn(PartContract, m.index, path+".condition", source.GetCondition(), of); ok {
				made.condition = program
				entry.uses.join(&program.uses)
			}
		}
		m.contract.tools[name] = made
	}
}

// granted says whether some grant may allow a tool to somebody who may begin the
// workflow. Conditions are not looked into.
func (m *contractMaker) granted(entry *entry) bool {
	for _, g := range m.source.Grants {
		if g.GetEffect() != writv1.GrantEffect_GRANT_EFFECT_ALLOW ||
			!slices.ContainsFunc(g.GetTools(), func(s string) bool { return Selects(s, entry.tool.Name) }) {
			continue
		}
		for _, intent := range m.GetIntents() {
			if meet(g.GetPrincipals(), intent.GetPrincipals()) {
				return true
			}
		}
	}
	return false
}

// meet says whether two selectors may speak of the same principal. Where both name
// roles they must have one in common: that somebody may hold two roles is no reason to
// think that those were meant.
func meet(a, b *writv1.PrincipalSelector) bool {
	common := func(a, b []string) bool {
		return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
	}
	workloads := len(a.GetWorkloads()) == 0 || len(b.GetWorkloads()) == 0 ||
		slices.ContainsFunc(a.GetWorkloads(), func(x string) bool {
			return slices.ContainsFunc(b.GetWorkloads(), func(y string) bool { return below(x, y) || below(y, x) })
		})
	return workloads && common(a.GetUsers(), b.GetUsers()) && common(a.GetRoles(), b.GetRoles()) && common(a.GetTenants(), b.GetTenants())
}

// below says whether a workload, or a pattern of workloads, is one that a pattern means.
func below(workload, pattern string) bool {
	prefix, ok := strings.CutSuffix(pattern, "*")
	return workload == pattern || ok && strings.HasPrefix(workload, prefix)
}

// retrieve compiles the sources.
func (m *contractMaker) retrieve() {
	names := make(map[string]bool)
	for i, source := range m.GetSources() {
		path := fmt.Sprintf("sources.%d", i)
		if names[source.GetName()] {
			m.wrong(path, "the source %s stands twice", source.GetName())
		}
		names[source.GetName()] = true
		if (source.TopK != nil) != (source.GetTopKField() != "") {
			m.wrong(path, "top_k and top_k_field go together: the field says how many are asked for")
			continue
		}
		made := &retrieval{
			ContractSource: source, open: newSelector(source.GetPrincipals()),
			passed: passing("contract", contractCheck(m.GetName(), source.GetName())),
		}
		for _, name := range source.GetTools() {
			tool := m.contract.tools[name]
			if tool == nil {
				m.wrong(path, "the contract does not permit %s", name)
				continue
			}
			if source.TopK != nil && !isNumber(m.bundle.entries[name].tool.Request.Descriptor(), source.GetTopKField()) {
				m.wrong(path+".top_k_field", "the request of %s has no whole number %s", name, source.GetTopKField())
				continue
			}
			tool.sources = append(tool.sources, made)
		}
	}
}

// isNumber says whether a message has a field of that path that is a whole number.
func isNumber(message protoreflect.MessageDescriptor, path string) bool {
	_, field := jsonPath(message, path)
	if field == nil {
		return false
	}
	switch field.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return true
	}
	return false
}

// arrange compiles the order and holds it against the tools.
func (m *contractMaker) arrange() {
	if m.GetOrder() == "" {
		return
	}
	made, err := order.Parse(m.GetOrder())
	if err != nil {
		m.unordered(err)
		return
	}
	m.contract.order = made
	for _, name := range made.Names() {
		if m.contract.tools[name] == nil {
			m.wrong("order", "the order names %s, which the contract does not permit", name)
		}
	}
	unreachable, endless := made.Unreachable(func(name string) bool { return m.contract.tools[name] != nil })
	if len(unreachable) > 0 {
		m.wrong("order", "no permitted order of calls reaches %s", strings.Join(unreachable, ", "))
	}
	if endless {
		m.wrong("order", "no permitted order of calls is complete: the workflow could never succeed")
	}
	for i, tool := range m.GetTools() {
		m.contradicts(fmt.Sprintf("tools.%d", i), tool)
	}
}

// unordered tells what is wrong with the order, and where in it.
func (m *contractMaker) unordered(err error) {
	issue := Issue{Part: PartContract, Index: m.index, Path: "order", Message: "the order cannot be read: " + err.Error()}
	var wrong *order.Error
	if errors.As(err, &wrong) {
		before := m.GetOrder()[:wrong.Offset]
		issue.Line = 1 + strings.Count(before, "\n")
		issue.Column = wrong.Offset - strings.LastIndexByte(before, '\n')
		issue.Message = "the order cannot be read: " + wrong.Message
	}
	m.issues = append(m.issues, issue)
}

// contradicts holds how often a tool may be called against the order.
func (m *contractMaker) contradicts(path string, tool *writv1.ContractTool) {
	name := tool.GetTool()
	if !m.contract.order.Speaks(name) {
		return
	}
	if least := m.contract.order.Least(name); tool.AtMost != nil && least > int(tool.GetAtMost()) {
		m.wrong(path, "the order asks for %d calls of %s, and at most %d are permitted", least, name, tool.GetAtMost())
	}
	if tool.GetAtLeast() > 0 && !m.contract.order.AtLeast(name, int(tool.GetAtLeast())) {
		m.wrong(path, "at least %d calls of %s are asked for, and the order never permits as many", tool.GetAtLeast(), name)
	}
}

// judge compiles what a run is judged by.
func (m *contractMaker) judge() {
	of := m.roots()
	if m.contract.output != nil {
		of.output = m.contract.output.Descriptor()
	}
	if program, ok := m.compileOn(PartContract, m.index, "success", m.GetSuccess(), of); ok {
		m.contract.success = program
		m.contract.uses.join(&program.uses)
	}
	names := map[string]bool{"intent": true, "tools": true, "arity": true, "order": true, "inputs": true, "output": true, "success": true}
	for i, source := range m.GetUnacceptable() {
		path := fmt.Sprintf("unacceptable.%d", i)
		if names[source.GetName()] {
			m.wrong(path, "the name %s is taken", source.GetName())
		}
		names[source.GetName()] = true
		program, ok := m.compileOn(PartContract, m.index, path+".condition", source.GetCondition(), of)
		if !ok {
			continue
		}
		m.contract.uses.join(&program.uses)
		made := unacceptable{
			ContractOutcome: source, condition: program, final: program.output,
			absent: passing("contract", contractCheck(m.GetName(), source.GetName())),
		}
		m.contract.unacceptable = append(m.contract.unacceptable, made)
		if made.final {
			continue
		}
		for name := range m.contract.tools {
			m.bundle.entries[name].uses.join(&program.uses)
		}
	}
}

// sensitiveField returns the path of a sensitive field of a message, or "".
func sensitiveField(message protoreflect.MessageDescriptor, above []protoreflect.FullName) string {
	if slices.Contains(above, message.FullName()) {
		return ""
	}
	above = append(above, message.FullName())
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if fieldPolicy(field).GetSensitivity() != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED {
			return string(field.Name())
		}
		inner := field.Message()
		if field.IsMap() {
			inner = field.MapValue().Message()
		}
		if inner == nil {
			continue
		}
		if path := sensitiveField(inner, above); path != "" {
			return string(field.Name()) + "." + path
		}
	}
	return ""
}
