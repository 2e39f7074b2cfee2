// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
)

// Report is how a bundle's tests came out.
type Report struct {
	// Cases are in the order of the files and of the cases in them.
	Cases []Case
}

// Case is how one test came out.
type Case struct {
	// File and Line say where the test stands.
	File string
	Line int
	// Name is what it shows.
	Name string
	// Differences say what came out otherwise than wanted, one a line; none means
	// that the test passed.
	Differences []string
	// Result is what was decided; of a scenario, on the first call that came out
	// otherwise than wanted, or else on the last.
	Result *policy.Result
	// Played is what came of the scenario; nil for a test of one call.
	Played *Played
	// Duration is how long it took.
	Duration time.Duration
}

// Failed returns the cases that did not pass.
func (r *Report) Failed() []Case {
	var failed []Case
	for _, c := range r.Cases {
		if len(c.Differences) > 0 {
			failed = append(failed, c)
		}
	}
	return failed
}

// RunTests decides every case of the suites under the bundle. The clock measures
// the cases; it decides nothing.
func RunTests(bundle *policy.Bundle, suites []Suite, clock func() time.Time) *Report {
	report := &Report{}
	for _, suite := range suites {
		for i, test := range suite.Tests {
			start := clock()
			call := CallOf(test.GetPrincipal(), test.GetEnvelope())
			facts := test.GetFacts()
			if facts == nil {
				facts = FreshFacts(bundle, call, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			}
			result := policy.Decide(bundle, call, facts)
			report.Cases = append(report.Cases, Case{
				File:        suite.File,
				Line:        suite.Lines[i],
				Name:        test.GetName(),
				Differences: differences(test.GetWant(), result.Decision),
				Result:      result,
				Duration:    clock().Sub(start),
			})
		}
	}
	return report
}

// AddPlays adds what came of scenarios to the report.
func (r *Report) AddPlays(all []Played) {
	for i := range all {
		p := &all[i]
		r.Cases = append(r.Cases, Case{
			File: p.File, Line: p.Line, Name: p.Scenario.GetName(), Differences: p.Differences,
			Result: p.telling(), Played: p, Duration: p.Duration,
		})
	}
}

// CallOf returns the call that an envelope proposes, arguments included, as if it
// had come in through the planners' face.
func CallOf(principal *writv1.Principal, envelope *writv1.Envelope) *policy.Call {
	call := &policy.Call{
		Principal: principal,
		Arguments: tools.Arguments{JSON: envelope.GetToolCall().GetArgs().GetText()},
		Envelope:  envelope,
	}
	if envelope.GetToolCall().GetArgs() != nil {
		call.Envelope = proto.CloneOf(envelope)
		call.Envelope.ToolCall.Args = nil
	}
	return call
}

// FreshFacts are the facts of a call that is the first of its session.
func FreshFacts(bundle *policy.Bundle, call *policy.Call, now time.Time) *writv1.Facts {
	facts := DefaultFacts(now)
	machine, needs := sessions.New(), bundle.Read(call)
	if needs.Session {
		facts.Session = machine.Summary(sessions.ID{}, sessions.OwnerOf(call.Principal), now, nil)
	}
	if needs.Values {
		facts.Values = machine.Values(sessions.ID{}, sessions.Ask(atoms.NewHasher(atoms.Key{}), needs.Leaves, needs.Sink))
	}
	if len(bundle.Shared()) > 0 {
		keys, untouched := bundle.Balances(call, facts.GetSession()), budgets.Machine{}
		facts.Balances, _ = untouched.Read(now, keys)
		whole(keys, facts.Balances)
	}
	return facts
}

// DefaultFacts returns facts in which nothing is taken from any budget and every
// pin matches.
func DefaultFacts(now time.Time) *writv1.Facts {
	return &writv1.Facts{
		Time: timestamppb.New(now),
		Pin:  &writv1.Pin{State: writv1.PinState_PIN_STATE_MATCHED},
	}
}

// differences says what a decision has otherwise than wanted.
func differences(want *writv1.Expectation, got *writv1.Decision) []string {
	var found []string
	if want.GetVerdict() != got.GetVerdict() {
		found = append(found, fmt.Sprintf("verdict: want %s, got %s", policy.VerdictName(want.GetVerdict()), policy.VerdictName(got.GetVerdict())))
	}
	if want.GetReason() != writv1.Reason_REASON_UNSPECIFIED && want.GetReason() != got.GetReason() {
		found = append(found, fmt.Sprintf("reason: want %s, got %s", reasons.Name(want.GetReason()), reasons.Name(got.GetReason())))
	}
	for _, name := range slices.Sorted(maps.Keys(want.GetChecks())) {
		found = append(found, checkDifferences(name, want.GetChecks()[name], got.GetChecks())...)
	}
	return found
}

// checkDifferences compares the checks of a name, or of "stage/name", with the
// outcome that all of them must have.
func checkDifferences(name string, want writv1.CheckOutcome, checks []*writv1.Check) []string {
	var found []string
	seen := false
	for _, check := range checks {
		if check.GetName() != name && check.GetStage()+"/"+check.GetName() != name {
			continue
		}
		seen = true
		if check.GetOutcome() == want {
			continue
		}
		difference := fmt.Sprintf("check %s: want %s, got %s", name, policy.OutcomeName(want), policy.OutcomeName(check.GetOutcome()))
		if check.GetMessage() != "" {
			difference += " (" + strings.TrimSpace(check.GetField()+" "+check.GetMessage()) + ")"
		}
		found = append(found, difference)
	}
	if !seen {
		found = append(found, fmt.Sprintf("check %s: want %s, got no such check", name, policy.OutcomeName(want)))
	}
	return found
}
