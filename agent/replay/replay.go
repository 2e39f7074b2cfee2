// SPDX-License-Identifier: Apache-2.0

// Package replay decides recorded calls again (SEMANTICS 19): a decision is a function,
// and its record holds the facts that it read.
//
// It promises that [Decide] says of every record either what is decided now, or why
// nothing can be: a guess is never made. It reads no ledger and verifies none: whoever
// hands it a record says where that came from.
//
//	again, err := replay.Decide(bundle, record, body)
//	if err == nil && again.Decision != nil && again.Same { ... }
package replay

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// Result is what came of deciding a recorded call again.
type Result struct {
	// Decision is the one that is made now; nil where none can be, and Why is then the
	// reason: a word, a colon, and what is the matter.
	Decision *writv1.Decision
	Why      string
	// Same says that it is the recorded one, to the byte.
	Same bool
	// Witnessed says that it rests on what the record says of values which it does not
	// hold.
	Witnessed bool
}

// Decide decides a recorded call again, over the facts of its record. What rests on a
// sensitive value, which no record holds, is witnessed by the facts; where it is not, as
// under a bundle that asks something else of it ("closed"), arguments that could not be read ("arguments"), a call
// that was refused around the function ("refused"), and one of which the bundle asks more
// than was recorded ("facts") cannot be decided again. It may be called by several
// goroutines. Its error is one of writing decisions down.
func Decide(bundle *policy.Bundle, record *writv1.Record, body *writv1.DecisionRecord) (Result, error) {
	call := &policy.Call{
		Principal: body.GetPrincipal(), Envelope: body.GetEnvelope(), Upstream: body.GetUpstream(),
		Arguments: tools.Arguments{JSON: body.GetArguments()},
	}
	call.Closed = closedArguments(record)
	switch {
	case body.GetOrigin() != writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE:
		return Result{Why: "refused: the call was refused before it was weighed, or after"}, nil
	case body.GetArguments() == nil:
		return Result{Why: "arguments: they could not be read, and are not kept"}, nil
	case len(call.Closed) > 0 && !heldUnder(bundle, body):
		return Result{Why: closed(call)}, nil
	}
	if missing := missingFacts(bundle, call, body.GetFacts()); missing != "" {
		return Result{Why: "facts: " + missing}, nil
	}
	made := policy.Decide(bundle, call, body.GetFacts())
	if made.Closed {
		return Result{Why: closed(call)}, nil
	}
	decision := made.Decision
	now, err := canonical.Marshal(decision)
	if err != nil {
		return Result{}, fmt.Errorf("write the decision: %w", err)
	}
	then, err := canonical.Marshal(body.GetDecision())
	if err != nil {
		return Result{}, fmt.Errorf("write the decision: %w", err)
	}
	return Result{Decision: decision, Same: bytes.Equal(now, then), Witnessed: len(call.Closed) > 0}, nil
}

func closed(call *policy.Call) string { return "closed: " + strings.Join(call.Closed, ", ") }

// heldUnder says whether the arguments held under the tool's schema, and the bundle has
// the tool with that schema: then they hold again, though not all of them are there.
func heldUnder(bundle *policy.Bundle, body *writv1.DecisionRecord) bool {
	tool := bundle.Tool(body.GetTool())
	return tool != nil && bytes.Equal(tool.SchemaDigest[:], body.GetSchemaDigest()) &&
		slices.ContainsFunc(body.GetDecision().GetChecks(), func(c *writv1.Check) bool {
			return c.GetStage() == "schema" && c.GetOutcome() == writv1.CheckOutcome_CHECK_OUTCOME_PASS
		})
}

// missingFacts names what a bundle asks about a call that was not recorded, because the
// bundle of then did not ask for it; "" where nothing is missing.
func missingFacts(bundle *policy.Bundle, call *policy.Call, facts *writv1.Facts) string {
	needs := bundle.Read(call)
	switch {
	case needs.Session && facts.GetSession() == nil:
		return "the session was not recorded"
	case needs.Values && facts.GetSession() == nil && len(facts.GetValues()) == 0:
		return "where the values came from was not recorded"
	}
	for _, key := range bundle.Balances(call, facts.GetSession()) {
		if !slices.ContainsFunc(facts.GetBalances(), func(b *writv1.Balance) bool { return b.GetBudget() == key.Budget }) {
			return "the balance of the budget " + key.Budget + " was not recorded"
		}
	}
	return ""
}

// closedArguments returns the paths of arguments that a record holds no value of.
func closedArguments(record *writv1.Record) []string {
	var paths []string
	for _, commitment := range record.GetCommitments() {
		if path, ok := strings.CutPrefix(commitment.GetPath(), "arguments."); ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}
