// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"time"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// DefaultDeadline is how long a run lasts whose contract does not say it.
const DefaultDeadline = time.Hour

// Beginning is a run that may begin.
type Beginning struct {
	// Contract, Feature and Intent name it.
	Contract, Feature, Intent string
	// Inputs are its inputs in canonical JSON.
	Inputs []byte
	// Deadline is how long it lasts at most.
	Deadline time.Duration
}

// Begin says whether a principal may begin a run of a workflow, and with what. Its
// errors are those of the caller: there is no such workflow, it may not be begun, its
// inputs are not what the contract says.
func (b *Bundle) Begin(who *writv1.Principal, workflow, intent string, inputs []byte) (*Beginning, *reasons.Error) {
	c, ok := b.contracts[workflow]
	if !ok {
		return nil, reasons.New(writv1.Reason_REASON_CONTRACT_UNKNOWN, "workflow", "the bundle has no such workflow")
	}
	intent, whose, ok := c.intentOf(intent)
	if !ok || !whose.matches(who) {
		return nil, reasons.New(writv1.Reason_REASON_CONTRACT_INTENT, "intent", "the principal may not begin the workflow for this intent")
	}
	made := &Beginning{Contract: workflow, Feature: c.GetFeature(), Intent: intent, Deadline: DefaultDeadline}
	if c.GetDeadline() != nil {
		made.Deadline = c.GetDeadline().AsDuration()
	}
	var refusal *reasons.Error
	made.Inputs, refusal = readPart(c.input, "inputs", inputs)
	if refusal == nil && len(made.Inputs) > inputsBytes {
		refusal = reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "inputs", "inputs have at most %d bytes", inputsBytes)
	}
	return made, refusal
}

// readPart reads the inputs or the output of a run, and returns it in canonical JSON.
func readPart(as *schemas.Message, field string, text []byte) ([]byte, *reasons.Error) {
	if as == nil {
		if len(text) > 0 && string(text) != "{}" {
			return nil, reasons.New(writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD, field, "the contract has none; leave them out")
		}
		return nil, nil
	}
	if len(text) == 0 {
		text = []byte("{}")
	}
	message, err := as.Read(text, nil, schemas.Limits{})
	if err != nil {
		wrong := reasons.Of(err)
		return nil, reasons.Wrap(err, wrong.Reason, within(field, wrong.Field), "%s", wrong.Message)
	}
	if violations := as.Validate(message); len(violations) > 0 {
		return nil, reasons.New(writv1.Reason_REASON_SCHEMA_RULE_VIOLATED, within(field, violations[0].Field), "%s", violations[0].Message)
	}
	return as.Append(nil, message), nil
}

func within(field, inner string) string {
	if inner == "" {
		return field
	}
	return field + "." + inner
}

// Concluding returns what facts [Bundle.Conclude] reads of the session that a run of a
// workflow is in: the tools whose steps.
func (b *Bundle) Concluding(workflow string) []string {
	if c, ok := b.contracts[workflow]; ok {
		return c.uses.tools
	}
	return nil
}

// Conclusion is how a run came out.
type Conclusion struct {
	// Result is by the contract, Checks what it came out by.
	Result writv1.WorkflowResult
	Checks []*writv1.Check
	// Output is the output in canonical JSON without sensitive fields.
	Output []byte
}

// Conclude judges a run that ends by its contract, from the facts and the output. It is
// a function of these, as [Decide] is: a run of whose contract the bundle knows nothing
// has failed.
func Conclude(b *Bundle, who *writv1.Principal, facts *writv1.Facts, output []byte) *Conclusion {
	run := facts.GetSession().GetRun()
	c := b.contracts[run.GetContract()]
	if c == nil {
		return &Conclusion{Result: writv1.WorkflowResult_WORKFLOW_RESULT_FAILED, Checks: []*writv1.Check{failing(
			"contract", "contract", writv1.Reason_REASON_CONTRACT_UNKNOWN, "", "the bundle no longer has the workflow")}}
	}
	e := &evaluation{bundle: b, call: &Call{Principal: who}, facts: facts, now: facts.GetTime().AsTime(), reading: &reading{}}
	made := &Conclusion{}
	spoiled := e.conclude(c, made, run, output)
	made.Checks = e.checks
	switch {
	case spoiled:
		made.Result = writv1.WorkflowResult_WORKFLOW_RESULT_UNACCEPTABLE
	case e.denied != nil:
		made.Result = writv1.WorkflowResult_WORKFLOW_RESULT_FAILED
	default:
		made.Result = writv1.WorkflowResult_WORKFLOW_RESULT_SUCCEEDED
	}
	return made
}

// conclude leaves the checks of a run that ends, and says whether something has come of
// it that must not.
func (e *evaluation) conclude(c *contract, made *Conclusion, run *writv1.RunSummary, output []byte) bool {
	readable := e.read(c, made, run, output)
	e.complete(c, run)
	spoiled := false
	for i := range c.unacceptable {
		outcome := &c.unacceptable[i]
		if readable && e.holds(outcome.condition) == no {
			e.pass(outcome.absent)
			continue
		}
		spoiled = true
		e.deny(outcome.present(c))
	}
	name := contractCheck(c.GetName(), "success")
	if readable && e.holds(c.success) == yes {
		e.pass(passing("contract", name))
		return spoiled
	}
	e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_CONDITION, "", "the workflow's success definition does not hold"))
	return spoiled
}

// read reads inputs and output, and says whether both could be.
func (e *evaluation) read(c *contract, made *Conclusion, run *writv1.RunSummary, output []byte) bool {
	inputs, err := c.readInputs(run.GetInputs())
	if err != nil {
		e.deny(failing("contract", contractCheck(c.GetName(), "inputs"), writv1.Reason_REASON_CONTRACT_UNKNOWN, "",
			"the run's inputs are not those of the contract that the bundle has now"))
		return false
	}
	text, refusal := readPart(c.output, "output", output)
	if refusal != nil {
		e.deny(failing("contract", contractCheck(c.GetName(), "output"), refusal.Reason, refusal.Field, refusal.Message))
		return false
	}
	e.scope.inputs = e.bundle.asValue(inputs)
	if c.output == nil {
		return true
	}
	message, err := c.output.Read(text, nil, schemas.Limits{})
	if err != nil {
		return false
	}
	e.scope.output = e.bundle.asValue(message)
	if public, _, err := c.output.AppendPublic(nil, message); err == nil && len(public) <= outputBytes {
		made.Output = public
	}
	e.pass(passing("contract", contractCheck(c.GetName(), "output")))
	return true
}

// outputBytes bounds an output that is recorded (WorkflowRecord.output in contract.proto).
const outputBytes = 16 << 10

// complete holds what was called against what must have been.
func (e *evaluation) complete(c *contract, run *writv1.RunSummary) {
	for _, name := range c.toolNames() {
		tool := c.tools[name]
		if tool.GetAtLeast() == 0 {
			continue
		}
		if counted(run, name) >= uint64(tool.GetAtLeast()) {
			e.pass(tool.inCount)
			continue
		}
		e.deny(failing("contract", contractCheck(c.GetName(), "arity"), writv1.Reason_REASON_CONTRACT_CONDITION, "",
			"the workflow takes at least "+times(name, tool.GetAtLeast())))
	}
	if c.order == nil {
		return
	}
	name := contractCheck(c.GetName(), "order")
	if at, ok := c.order.Walk(run.GetPath()); ok && c.order.Done(at) {
		e.pass(passing("contract", name))
		return
	}
	e.deny(failing("contract", name, writv1.Reason_REASON_CONTRACT_ORDER, "", "the calls of the run are not all that the workflow's order asks for"))
}

// MayBegin says whether a principal may begin a workflow for any intent.
func (b *Bundle) MayBegin(who *writv1.Principal, workflow string) bool {
	c, ok := b.contracts[workflow]
	if !ok {
		return false
	}
	for _, whose := range c.intents {
		if whose.matches(who) {
			return true
		}
	}
	return false
}
