// SPDX-License-Identifier: Apache-2.0

// Package order compiles the order of calls that a contract permits: an expression
// over names of tools, such as
//
//	orders.look_up+ -> (policy.check | policy.waive) -> payments.refund?
//
// "a -> b" is b after a, "a | b" either of them, "a?", "a*", "a+", "a{2}", "a{2,}" and
// "a{2,5}" say how often, and parentheses group; "->" binds closer than "|".
//
// An expression is made a deterministic automaton once, when a bundle is loaded
// (Thompson, "Regular Expression Search Algorithm", CACM 11(6), 1968, and the subset
// construction of Rabin and Scott, 1959), so that weighing a call takes one step for
// each call before it, whatever the expression. Its size is bounded: an expression
// whose automaton would be larger is refused.
package order

import (
	"errors"
	"slices"
)

const (
	// MaxLength bounds an expression, in bytes.
	MaxLength = 4096
	// mostStates bounds the automaton.
	mostStates = 1024
	// mostNodes bounds what the expression says before it is made deterministic.
	mostNodes = 8192
	// mostRepeats bounds the numbers in braces.
	mostRepeats = 100
	// deepest bounds the nesting of parentheses.
	deepest = 32
)

// Order is a compiled expression. It is immutable.
type Order struct {
	// names are the tools it speaks of, sorted; next has the state after each of them
	// in each state, or none.
	names []string
	next  [][]State
	done  []bool
}

// State is how far a sequence of calls has come.
type State int

// Start is where every sequence begins.
const Start State = 0

// none is no state: the sequence is not permitted.
const none State = -1

// errTooLarge is returned for an expression whose automaton would be too large.
var errTooLarge = errors.New("the order is too large: it has more than 1,024 states; say less with braces")

// Names returns the tools that the order speaks of, sorted. They MUST NOT be changed.
func (o *Order) Names() []string { return o.names }

// Speaks says whether the order speaks of a tool.
func (o *Order) Speaks(name string) bool {
	_, ok := slices.BinarySearch(o.names, name)
	return ok
}

// Walk returns how far a sequence of calls has come, or false where the order does not
// permit it.
func (o *Order) Walk(path []string) (State, bool) {
	at := Start
	for _, name := range path {
		var ok bool
		if at, ok = o.Step(at, name); !ok {
			return at, false
		}
	}
	return at, true
}

// Step returns the state after one more call, or false where the order does not permit
// it.
func (o *Order) Step(at State, name string) (State, bool) {
	i, ok := slices.BinarySearch(o.names, name)
	if !ok {
		return none, false
	}
	to := o.next[at][i]
	return to, to != none
}

// Next returns the tools that may be called in a state, sorted.
func (o *Order) Next(at State) []string {
	var found []string
	for i, to := range o.next[at] {
		if to != none {
			found = append(found, o.names[i])
		}
	}
	return found
}

// Done says whether a sequence may end in a state.
func (o *Order) Done(at State) bool { return o.done[at] }

// Unreachable returns the tools that no sequence of permitted calls comes to, and
// whether none can be complete.
func (o *Order) Unreachable(permitted func(name string) bool) (names []string, endless bool) {
	seen := make([]bool, len(o.next))
	seen[Start] = true
	called := make([]bool, len(o.names))
	endless = true
	for queue := []State{Start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		endless = endless && !o.done[at]
		for i, to := range o.next[at] {
			if to == none || !permitted(o.names[i]) {
				continue
			}
			called[i] = true
			if !seen[to] {
				seen[to] = true
				queue = append(queue, to)
			}
		}
	}
	for i, name := range o.names {
		if !called[i] {
			names = append(names, name)
		}
	}
	return names, endless
}

// Least returns how often a complete sequence calls a tool at least.
func (o *Order) Least(name string) int {
	layer := []State{Start}
	seen := make([]bool, len(o.next))
	for count := 0; len(layer) > 0; count++ {
		layer = o.closure(layer, name, seen)
		if slices.ContainsFunc(layer, o.Done) {
			return count
		}
		layer = o.after(layer, name, seen)
	}
	return 0
}

// AtLeast says whether some complete sequence calls a tool as often as that.
func (o *Order) AtLeast(name string, count int) bool {
	layer := []State{Start}
	// A sequence that calls the tool more often than there are states goes in a circle,
	// and may go around as often as it likes.
	for range min(count, len(o.next)+1) {
		layer = o.after(o.closure(layer, name, make([]bool, len(o.next))), name, make([]bool, len(o.next)))
	}
	return len(layer) > 0
}

// closure returns the states that are reached from others without a call of name, and
// were not seen before.
func (o *Order) closure(from []State, name string, seen []bool) []State {
	var found []State
	for _, at := range from {
		if !seen[at] {
			seen[at] = true
			found = append(found, at)
		}
	}
	for i := 0; i < len(found); i++ {
		for j, to := range o.next[found[i]] {
			if to != none && o.names[j] != name && !seen[to] {
				seen[to] = true
				found = append(found, to)
			}
		}
	}
	return found
}

// after returns the states after a call of name that were not seen.
func (o *Order) after(from []State, name string, seen []bool) []State {
	var found []State
	for _, at := range from {
		if to, ok := o.Step(at, name); ok && !seen[to] && !slices.Contains(found, to) {
			found = append(found, to)
		}
	}
	return found
}
