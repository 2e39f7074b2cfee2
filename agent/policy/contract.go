// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/agent/policy/order"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// mostPath bounds the calls of a run that its contract's order speaks of
// (RunSummary.path in session.proto).
const mostPath = 256

// inputsBytes bounds the inputs of a run (RunSummary.inputs in session.proto).
const inputsBytes = 4096

// contract is a contract of the bundle, compiled.
type contract struct {
	*writv1.Contract
	digest [32]byte
	// intents has whom each intent may be begun by.
	intents map[string]*selector
	// input and output are nil where there is none.
	input, output *schemas.Message
	// order is nil where the contract says nothing of it.
	order *order.Order
	tools map[string]*permitted
	// success and unacceptable are asked when a run ends; uses is what they ask of facts.
	success      *program
	unacceptable []unacceptable
	uses         uses

	intended *writv1.Check
}

// permitted is a tool that a contract permits.
type permitted struct {
	*writv1.ContractTool
	condition *program
	sources   []*retrieval
	// These are what it leaves when it passes.
	passed, inOrder, inCount, met *writv1.Check
}

// retrieval is a source that a contract permits its tools to retrieve from.
type retrieval struct {
	*writv1.ContractSource
	open   *selector
	passed *writv1.Check
}

// unacceptable is something that must not come of a run.
type unacceptable struct {
	*writv1.ContractOutcome
	condition *program
	// final says that it reads the output: it is asked at the end alone.
	final  bool
	absent *writv1.Check
}

// contractCheck names a check of a contract's.
func contractCheck(contract, what string) string { return contract + "." + what }

// contract holds a call in a run of a workflow against the workflow's contract. Outside
// any the grants see to it that it needs none. A bundle without contracts leaves no check.
func (e *evaluation) contract() {
	run := e.facts.GetSession().GetRun()
	if run == nil || len(e.bundle.contracts) == 0 {
		return
	}
	c := e.bundle.contracts[run.GetContract()]
	if c == nil {
		e.deny(failing("contract", "contract", writv1.Reason_REASON_CONTRACT_UNKNOWN, "",
			"the session is in a run of a workflow that the bundle no longer has; end the run"))
		return
	}
	if whose, ok := c.intents[run.GetIntent()]; !ok || !whose.matches(e.call.Principal) {
		e.deny(failing("contract", contractCheck(c.GetName(), "intent"), writv1.Reason_REASON_CONTRACT_INTENT, "",
			"the principal may not carry out the workflow for this intent"))
	} else {
		e.pass(c.intended)
	}
	tool := c.tools[e.entry.tool.Name]
	if tool == nil {
		e.deny(failing("contract", contractCheck(c.GetName(), "tools"), writv1.Reason_REASON_CONTRACT_TOOL, "",
			"the workflow does not permit this tool"))
		return
	}
	e.pass(tool.passed)
	e.within(c, tool, run)
}

// within holds a call of a permitted tool against the rest of the contract, and counts
// it.
func (e *evaluation) within(c *contract, tool *permitted, run *writv1.RunSummary) {
	inputs, err := c.readInputs(run.GetInputs())
	if err != nil {
		e.deny(failing("contract", contractCheck(c.GetName(), "inputs"), writv1.Reason_REASON_CONTRACT_UNKNOWN, "",
			"the run's inputs are not those of the contract that the bundle has now; end the run"))
		return
	}
	e.scope.inputs = e.bundle.asValue(inputs)
	e.often(c, tool, run)
	e.inOrder(c, tool, run)
	e.demanded(c, tool)
	for _, source := range tool.sources {
		e.retrieves(c, source)
	}
	e.spoiled(c)
	e.effects = append(e.effects, &writv1.Effect{Effect: &writv1.Effect_Advance{Advance: &writv1.Advance{
		Run: run.GetId(), Ordered: c.order != nil && c.order.Speaks(tool.GetTool()),
	}}})
}

// often holds how often the tool was called against how often it may be.
func (e *evaluation) often(c *contract, tool *permitted, run *writv1.RunSummary) {
	if tool.AtMost == nil {
		return
	}
	if counted(run, tool.GetTool()) >= uint64(tool.GetAtMost()) {
		e.deny(failing("contract", contractCheck(c.GetName(), "arity"), writv1.Reason_REASON_CONTRACT_TOO_OFTEN, "",
			fmt.Sprintf("the workflow permits %s in a run, and there were as many", times(tool.GetTool(), tool.GetAtMost()))))
		return
	}
	e.pass(tool.inCount)
}

// times says how many calls of a tool.
func times(tool string, count uint32) string {
	if count == 1 {
		return "one call of " + tool
	}
	return fmt.Sprintf("%d calls of %s", count, tool)
}

func counted(run *writv1.RunSummary, tool string) uint64 {
	for _, count := range run.GetCounts() {
		if count.GetTool() == tool {
			return count.GetCount()
		}
	}
	return 0
}

// inOrder holds the tool against those that may come next.
func (e *evaluation) inOrder(c *contract, tool *permitted, run *writv1.RunSummary) {
	if c.order == nil || !c.order.Speaks(tool.GetTool()) {
		return
	}
	name := contractCheck(c.GetName(), "order")
	at, ok := c.order.Walk(run.GetPath())
	switch {
	case !ok:
		e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_ORDER, "",
			"the calls so far are in no order that the workflow permits; end the run"))
		return
	case len(run.GetPath()) >= mostPath:
		e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_ORDER, "",
			fmt.Sprintf("a run has at most %d calls that stand in an order", mostPath)))
		return
	}
	if _, ok = c.order.Step(at, tool.GetTool()); ok {
		e.pass(tool.inOrder)
		return
	}
	next := "nothing more"
	if names := c.order.Next(at); len(names) > 0 {
		next = strings.Join(names, " or ")
	}
	e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_ORDER, "", "at this point of the workflow comes "+next))
}

// demanded evaluates what the contract demands of calls of the tool. What cannot be
// evaluated is not met.
func (e *evaluation) demanded(c *contract, tool *permitted) {
	if tool.condition == nil {
		return
	}
	if e.holds(tool.condition) == yes {
		e.pass(tool.met)
		return
	}
	message := tool.GetMessage()
	if message == "" {
		message = "what the workflow demands of the call does not hold"
	}
	name := contractCheck(c.GetName(), tool.GetTool())
	if tool.GetOnFailure() == writv1.OnFailure_ON_FAILURE_NEEDS_APPROVAL {
		e.ask(failing("contract", name, writv1.Reason_REASON_APPROVAL_REQUIRED, "", message))
		return
	}
	e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_CONDITION, "", message))
}

// retrieves holds a retrieval against its source: whom it is open to, and how much of
// it at a time. What the planner says it retrieved before may not be more either.
func (e *evaluation) retrieves(c *contract, source *retrieval) {
	name := contractCheck(c.GetName(), source.GetName())
	deny := func(field, format string, args ...any) {
		e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_SOURCE, field, fmt.Sprintf(format, args...)))
	}
	if !source.open.matches(e.call.Principal) {
		deny("", "the source is not open to the principal in this workflow")
		return
	}
	if source.TopK == nil {
		e.pass(source.passed)
		return
	}
	if claimed := e.call.Envelope.GetRetrieval(); claimed.GetTopK() > source.GetTopK() || len(claimed.GetKbDocIds()) > int(source.GetTopK()) {
		deny("retrieval", "at most %d documents may be retrieved at a time", source.GetTopK())
		return
	}
	if len(e.call.Closed) > 0 && leadsToSensitive(e.typed.Descriptor(), strings.Split(source.GetTopKField(), ".")) {
		e.closed = true
	}
	if asked := numberAt(e.typed, source.GetTopKField()); asked < 1 || asked > uint64(source.GetTopK()) {
		deny(source.GetTopKField(), "ask for 1 to %d documents", source.GetTopK())
		return
	}
	e.pass(source.passed)
}

// numberAt returns a field of a message that is a whole number, by its path; 0 where it
// is not set, and the largest number where it is negative.
func numberAt(message protoreflect.Message, path string) uint64 {
	steps := strings.Split(path, ".")
	for i, step := range steps {
		field := message.Descriptor().Fields().ByName(protoreflect.Name(step))
		if i < len(steps)-1 {
			message = message.Get(field).Message()
			continue
		}
		switch value := message.Get(field).Interface().(type) {
		case uint32:
			return uint64(value)
		case uint64:
			return value
		case int32:
			return uint64(int64(value))
		case int64:
			return uint64(value)
		}
	}
	return 0
}

// spoiled denies further calls that write where something has come of the run already
// that must not.
func (e *evaluation) spoiled(c *contract) {
	if e.entry.tool.Options.GetEffect() != writv1.ToolEffect_TOOL_EFFECT_WRITE {
		return
	}
	for i := range c.unacceptable {
		outcome := &c.unacceptable[i]
		if outcome.final {
			continue
		}
		if e.holds(outcome.condition) == no {
			e.pass(outcome.absent)
			continue
		}
		e.deny(outcome.present(c))
	}
}

func (u *unacceptable) present(c *contract) *writv1.Check {
	message := u.GetMessage()
	if message == "" {
		message = "something has come of the workflow that must not"
	}
	return failing("contract", contractCheck(c.GetName(), u.GetName()), writv1.Reason_REASON_CONTRACT_UNACCEPTABLE, "", message)
}

// readInputs reads the inputs of a run, as they were kept.
func (c *contract) readInputs(text []byte) (protoreflect.Message, error) {
	if c.input == nil {
		return nil, nil
	}
	return c.input.Read(text, nil, schemas.Limits{})
}

// asValue returns a message as CEL has it, nil for none.
func (b *Bundle) asValue(message protoreflect.Message) ref.Val {
	if message == nil {
		return nil
	}
	return b.adapter.NativeToValue(message.Interface())
}

// outside says whether only grants count that say that they need no contract: the
// session is in no run, and the bundle has contracts.
func (e *evaluation) outside() bool {
	return len(e.bundle.contracts) > 0 && e.facts.GetSession().GetRun() == nil
}

// misclaimed says whether the envelope claims another workflow or intent than those of
// the session's run. Where the bundle has no contracts they are labels.
func (e *evaluation) misclaimed() (workflow, intent bool) {
	if len(e.bundle.contracts) == 0 {
		return false, false
	}
	run, said := e.facts.GetSession().GetRun(), e.call.Envelope
	return said.GetWorkflow() != "" && said.GetWorkflow() != run.GetContract(),
		said.GetIntent() != "" && run != nil && said.GetIntent() != run.GetIntent()
}

// intentOf returns the intent that a run is begun for: the one that is named, or the
// only one.
func (c *contract) intentOf(named string) (string, *selector, bool) {
	if named == "" && len(c.GetIntents()) == 1 {
		named = c.GetIntents()[0].GetName()
	}
	whose, ok := c.intents[named]
	return named, whose, ok
}

// toolNames returns the tools that the contract permits, sorted.
func (c *contract) toolNames() []string {
	names := make([]string, 0, len(c.tools))
	for name := range c.tools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
