// SPDX-License-Identifier: Apache-2.0

package order

import (
	"encoding/binary"
	"slices"
)

// machine is an automaton as Thompson makes it: each node has one call, or up to two
// ways on without one.
type machine struct {
	names []string
	nodes []way
}

// way is where a node leads: by a call to one node, or without one to two.
type way struct {
	// name is the call, or noName.
	name int
	to   [2]int
}

const (
	noName = -1
	noNode = -1
)

func (m *machine) add(w way) (int, error) {
	if len(m.nodes) >= mostNodes {
		return 0, errTooLarge
	}
	m.nodes = append(m.nodes, w)
	return len(m.nodes) - 1, nil
}

// build adds a part so that what follows it is the node then, and returns where it begins.
func (m *machine) build(n *node, then int) (int, error) {
	switch n.kind {
	case sequence:
		var err error
		for _, part := range slices.Backward(n.parts) {
			if then, err = m.build(part, then); err != nil {
				return 0, err
			}
		}
		return then, nil
	case alternative:
		return m.either(n.parts, then)
	case repetition:
		return m.repeat(n, then)
	default:
		name, _ := slices.BinarySearch(m.names, n.name)
		return m.add(way{name: name, to: [2]int{then, noNode}})
	}
}

func (m *machine) either(parts []*node, then int) (int, error) {
	first, err := m.build(parts[0], then)
	if err != nil || len(parts) == 1 {
		return first, err
	}
	second, err := m.either(parts[1:], then)
	if err != nil {
		return 0, err
	}
	return m.add(way{name: noName, to: [2]int{first, second}})
}

func (m *machine) repeat(n *node, then int) (int, error) {
	part := n.parts[0]
	var err error
	if n.high == endless {
		// The loop needs a node before there is what it leads to.
		loop, err := m.add(way{name: noName, to: [2]int{noNode, then}})
		if err != nil {
			return 0, err
		}
		inner, err := m.build(part, loop)
		if err != nil {
			return 0, err
		}
		m.nodes[loop].to[0] = inner
		then = loop
	}
	end := then
	for range max(0, n.high-n.low) {
		inner, err := m.build(part, then)
		if err != nil {
			return 0, err
		}
		if then, err = m.add(way{name: noName, to: [2]int{inner, end}}); err != nil {
			return 0, err
		}
	}
	for range n.low {
		if then, err = m.build(part, then); err != nil {
			return 0, err
		}
	}
	return then, nil
}

// determine makes an expression a deterministic automaton.
func determine(root *node) (*Order, error) {
	m := &machine{names: namesOf(root)}
	last, err := m.add(way{name: noName, to: [2]int{noNode, noNode}})
	if err != nil {
		return nil, err
	}
	first, err := m.build(root, last)
	if err != nil {
		return nil, err
	}
	o := &Order{names: m.names}
	states := make(map[string]State)
	var sets [][]int
	state := func(set []int) State {
		name := text(set)
		if found, ok := states[name]; ok {
			return found
		}
		states[name] = State(len(sets))
		sets = append(sets, set)
		o.done = append(o.done, slices.Contains(set, last))
		return states[name]
	}
	state(m.closure([]int{first}))
	for at := 0; at < len(sets); at++ {
		if len(sets) > mostStates {
			return nil, errTooLarge
		}
		row := make([]State, len(o.names))
		for name := range row {
			row[name] = none
			if after := m.after(sets[at], name); len(after) > 0 {
				row[name] = state(m.closure(after))
			}
		}
		o.next = append(o.next, row)
	}
	return o, nil
}

// closure returns the nodes that are reached without a call, sorted.
func (m *machine) closure(from []int) []int {
	seen := make(map[int]bool)
	for stack := from; len(stack) > 0; {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if at == noNode || seen[at] {
			continue
		}
		seen[at] = true
		if m.nodes[at].name == noName {
			stack = append(stack, m.nodes[at].to[0], m.nodes[at].to[1])
		}
	}
	set := make([]int, 0, len(seen))
	for at := range seen {
		set = append(set, at)
	}
	slices.Sort(set)
	return set
}

// after returns the nodes that a call leads to.
func (m *machine) after(set []int, name int) []int {
	var found []int
	for _, at := range set {
		if m.nodes[at].name == name {
			found = append(found, m.nodes[at].to[0])
		}
	}
	return found
}

// text names a set of nodes.
func text(set []int) string {
	b := make([]byte, 0, 4*len(set))
	for _, at := range set {
		b = binary.AppendUvarint(b, uint64(at))
	}
	return string(b)
}
