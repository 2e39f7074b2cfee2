// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// Bounds of a filter.
const (
	// MaxLength is how many characters one has.
	MaxLength = 2048
	// MaxDepth is how deep parentheses nest.
	MaxDepth = 16
	// MaxComparisons is how many comparisons stand in it: a bit each.
	MaxComparisons = 64
)

// Error says what is wrong with a filter, and where.
type Error struct {
	// Column is the character at which it is, from 1.
	Column  int
	Message string
}

// Error says where and what.
func (e *Error) Error() string { return fmt.Sprintf("filter: column %d: %s", e.Column, e.Message) }

// Joint is how the parts of a node are joined.
type Joint int

// The joints. A node is one comparison, or one of these over its parts.
const (
	One Joint = iota
	And
	Or
	Not
)

// Node is a filter or a part of one.
type Node struct {
	Joint Joint
	// Parts are joined by And or Or; Not has one.
	Parts []*Node
	// Comparison is that of One.
	Comparison *Comparison
}

// Comparison compares a field with a value: a text, or a number for times (nanoseconds
// since the Unix epoch) and enums. Bytes are a text of themselves.
type Comparison struct {
	Field    Field
	Operator Operator
	Text     string
	Number   int64

	bit Bits
}

// Filter is a filter that was read. A nil one selects everything.
type Filter struct {
	// Root is the whole of it.
	Root *Node

	comparisons []*Comparison
}

// Parse reads a filter; of an empty one it is nil. Errors are of type *[Error].
func Parse(source string) (*Filter, error) {
	if utf8.RuneCountInString(source) > MaxLength {
		return nil, &Error{MaxLength + 1, fmt.Sprintf("a filter has at most %d characters", MaxLength)}
	}
	trimmed := strings.TrimLeftFunc(source, unicode.IsSpace)
	if trimmed == "" {
		return nil, nil
	}
	p := &parser{text: strings.TrimRightFunc(trimmed, unicode.IsSpace), before: utf8.RuneCountInString(source[:len(source)-len(trimmed)])}
	if err := p.scan(); err != nil {
		return nil, err
	}
	var in filtering.Parser
	in.Init(p.text)
	parsed, err := in.Parse()
	if err != nil {
		return nil, p.found(err)
	}
	p.positions = parsed.GetSourceInfo().GetPositions()
	root, err := p.node(parsed.GetExpr())
	if err != nil {
		return nil, err
	}
	return &Filter{Root: root, comparisons: p.comparisons}, nil
}

// parser reads one filter.
type parser struct {
	text        string
	before      int // characters that were cut off in front
	positions   map[int64]int32
	comparisons []*Comparison
}

// scan bounds the depth before anything is parsed: the parser calls itself.
func (p *parser) scan() error {
	var in filtering.Lexer
	in.Init(p.text)
	depth := 0
	for {
		token, err := in.Lex()
		if err != nil {
			if in.Position().Offset >= int32(len(p.text)) { //nolint:gosec // MaxLength
				return nil
			}
			return p.found(err)
		}
		switch token.Type {
		case filtering.TokenTypeLeftParen:
			if depth++; depth > MaxDepth {
				return p.at(token.Position.Offset, "parentheses nest more than %d deep", MaxDepth)
			}
		case filtering.TokenTypeRightParen:
			depth--
		default:
		}
	}
}

// at is an error at a byte.
func (p *parser) at(offset int32, format string, args ...any) error {
	end := min(max(int(offset), 0), len(p.text))
	return &Error{Column: p.before + utf8.RuneCountInString(p.text[:end]) + 1, Message: fmt.Sprintf(format, args...)}
}

func (p *parser) of(e *expr.Expr, format string, args ...any) error {
	return p.at(p.positions[e.GetId()], format, args...)
}

// placed is an error of the parser's that knows where it is.
type placed interface {
	Position() filtering.Position
	Message() string
}

// found is an error of the parser's: the innermost, which says what it came upon.
func (p *parser) found(err error) error {
	out := p.at(0, "it cannot be read")
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(placed); ok { //nolint:errorlint // each of the chain is looked at
			out = p.at(e.Position().Offset, "%s", e.Message())
		}
	}
	return out
}

// joints are the functions that the parser makes of what joins.
var joints = map[string]Joint{filtering.FunctionAnd: And, filtering.FunctionOr: Or, filtering.FunctionNot: Not}

func (p *parser) node(e *expr.Expr) (*Node, error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, p.of(e, "a comparison is wanted, such as tool = \"books.refund\"")
	}
	joint, joins := joints[call.GetFunction()]
	n := len(call.GetArgs())
	switch {
	case call.GetFunction() == filtering.FunctionFuzzyAnd && n == 2:
		return nil, p.of(call.GetArgs()[1], "AND or OR is wanted between two comparisons")
	case joins && (joint == Not) == (n == 1) && n <= 2 && n > 0:
		return p.join(joint, call.GetArgs())
	}
	if n != 2 || !slices.Contains([]string{"=", "!=", "<", "<=", ">", ">=", ":"}, call.GetFunction()) {
		return nil, p.of(e, "no function %q is known here", call.GetFunction())
	}
	return p.comparison(e, call)
}

// join joins parts; those that are joined alike become one's.
func (p *parser) join(joint Joint, args []*expr.Expr) (*Node, error) {
	out := &Node{Joint: joint}
	for _, arg := range args {
		part, err := p.node(arg)
		if err != nil {
			return nil, err
		}
		if part.Joint == joint && joint != Not {
			out.Parts = append(out.Parts, part.Parts...)
			continue
		}
		out.Parts = append(out.Parts, part)
	}
	return out, nil
}

func (p *parser) comparison(e *expr.Expr, call *expr.Expr_Call) (*Node, error) {
	left, right := call.GetArgs()[0], call.GetArgs()[1]
	field, known := named(left.GetIdentExpr().GetName())
	c := &Comparison{Field: field, Operator: Operator(call.GetFunction())}
	switch {
	case !known:
		return nil, p.of(left, "no such field; fields are %s", names())
	case !slices.Contains(field.operators(), c.Operator):
		return nil, p.of(e, "%s is compared with %s, not with %s", field, list(field.operators()), c.Operator)
	case len(p.comparisons) >= MaxComparisons:
		return nil, p.of(left, "a filter has at most %d comparisons", MaxComparisons)
	}
	value, err := p.value(field, right)
	if err != nil {
		return nil, err
	}
	if err := specs[field].read(c, value); err != nil {
		return nil, p.of(right, "%s", err)
	}
	if field == Check && (c.Text == "" || strings.Contains(c.Text, "\n")) {
		return nil, p.of(right, "a check has a name, on one line")
	}
	c.bit = 1 << len(p.comparisons)
	p.comparisons = append(p.comparisons, c)
	return &Node{Comparison: c}, nil
}

func list(operators []Operator) string {
	words := make([]string, len(operators))
	for i, o := range operators {
		words[i] = string(o)
	}
	return strings.Join(words, " ")
}

// value is the text of a value: in quotes, a word, words with dots between, or of a time
// timestamp("...").
func (p *parser) value(field Field, e *expr.Expr) (string, error) {
	switch {
	case e.GetIdentExpr() != nil:
		return e.GetIdentExpr().GetName(), nil
	case e.GetSelectExpr() != nil:
		operand, err := p.value(field, e.GetSelectExpr().GetOperand())
		return operand + "." + e.GetSelectExpr().GetField(), err
	case field == Time && e.GetCallExpr().GetFunction() == filtering.FunctionTimestamp && len(e.GetCallExpr().GetArgs()) == 1:
		return p.value(field, e.GetCallExpr().GetArgs()[0])
	}
	if quoted, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue); ok {
		return quoted.StringValue, nil
	}
	return "", p.of(e, "a value of %s stands in quotes", field)
}
