// SPDX-License-Identifier: Apache-2.0

package order

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Error is what is wrong with an expression, and where.
type Error struct {
	// Offset is the place in the expression, in bytes from 0.
	Offset int
	// Message says what is wrong.
	Message string
}

// Error returns the message and the place, counted from 1.
func (e *Error) Error() string { return fmt.Sprintf("%s (column %d)", e.Message, e.Offset+1) }

// Parse compiles an expression. Its errors are *[Error], but for one whose automaton
// would be too large.
func Parse(expression string) (*Order, error) {
	if len(expression) > MaxLength {
		return nil, &Error{Message: fmt.Sprintf("an order has at most %d bytes", MaxLength)}
	}
	p := &parser{text: expression}
	root, err := p.alternatives(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(p.text) {
		return nil, p.fail("here stands %q; join calls with -> or |", p.rest())
	}
	return determine(root)
}

// node is a part of an expression. A sequence or an alternative has parts; a name has
// none; a repetition has one, and bounds.
type node struct {
	kind      kind
	name      string
	parts     []*node
	low, high int
}

type kind int

const (
	call kind = iota
	sequence
	alternative
	repetition
)

// endless is the upper bound of a repetition that has none.
const endless = -1

type parser struct {
	text string
	at   int
}

func (p *parser) fail(format string, args ...any) *Error {
	return &Error{Offset: p.at, Message: fmt.Sprintf(format, args...)}
}

// rest returns a few characters of what follows, for messages.
func (p *parser) rest() string {
	const enough = 16
	return p.text[p.at:min(len(p.text), p.at+enough)]
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take passes over a word if it is what follows.
func (p *parser) take(word string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], word) {
		return false
	}
	p.at += len(word)
	return true
}

func (p *parser) alternatives(depth int) (*node, error) {
	if depth > deepest {
		return nil, p.fail("parentheses are nested deeper than %d", deepest)
	}
	return p.joined("|", alternative, func() (*node, error) {
		return p.joined("->", sequence, func() (*node, error) { return p.item(depth) })
	})
}

func (p *parser) joined(by string, kind kind, part func() (*node, error)) (*node, error) {
	out := &node{kind: kind}
	for {
		one, err := part()
		if err != nil {
			return nil, err
		}
		out.parts = append(out.parts, one)
		if !p.take(by) {
			break
		}
	}
	if len(out.parts) == 1 {
		return out.parts[0], nil
	}
	return out, nil
}

func (p *parser) item(depth int) (*node, error) {
	var one *node
	var err error
	if p.take("(") {
		if one, err = p.alternatives(depth + 1); err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.fail("a parenthesis is not closed")
		}
	} else if one, err = p.name(); err != nil {
		return nil, err
	}
	return p.often(one)
}

func (p *parser) name() (*node, error) {
	p.space()
	from := p.at
	for p.at < len(p.text) && isName(p.text[p.at]) {
		p.at++
	}
	if p.at == from {
		if p.at == len(p.text) {
			return nil, p.fail("the name of a tool is missing at the end")
		}
		return nil, p.fail("here must stand the name of a tool, not %q", p.rest())
	}
	return &node{name: p.text[from:p.at]}, nil
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.'
}

func (p *parser) often(one *node) (*node, error) {
	out := &node{kind: repetition, parts: []*node{one}}
	switch {
	case p.take("?"):
		out.high = 1
	case p.take("*"):
		out.high = endless
	case p.take("+"):
		out.low, out.high = 1, endless
	case p.take("{"):
		if err := p.bounds(out); err != nil {
			return nil, err
		}
	default:
		return one, nil
	}
	return out, nil
}

func (p *parser) bounds(out *node) error {
	var err error
	if out.low, err = p.number(); err != nil {
		return err
	}
	out.high = out.low
	if p.take(",") {
		out.high = endless
		p.space()
		if !strings.HasPrefix(p.text[p.at:], "}") {
			if out.high, err = p.number(); err != nil {
				return err
			}
		}
	}
	if out.high != endless && out.high < max(1, out.low) {
		return p.fail("the braces permit no call: say at least 1, and the smaller number first")
	}
	if !p.take("}") {
		return p.fail("a brace is not closed")
	}
	return nil
}

func (p *parser) number() (int, error) {
	p.space()
	from := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	n, err := strconv.Atoi(p.text[from:p.at])
	if err != nil || n > mostRepeats {
		p.at = from
		return 0, p.fail("in braces stand numbers up to %d", mostRepeats)
	}
	return n, nil
}

// namesOf returns the names in an expression, sorted.
func namesOf(n *node) []string {
	var names []string
	var visit func(*node)
	visit = func(n *node) {
		if n.kind == call {
			names = append(names, n.name)
		}
		for _, part := range n.parts {
			visit(part)
		}
	}
	visit(n)
	slices.Sort(names)
	return slices.Compact(names)
}
