// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Sizes that are taken for fields whose rules do not bound them. They are not a
// promise: a larger value is met by the limit at run time, where the condition
// errs.
const (
	assumedText  = 16384
	assumedItems = 1024
)

// checkCost refuses an expression that may cost more than costBound, by the
// sizes that the rules of the fields it reads allow.
func checkCost(env *cel.Env, checked *cel.Ast, of roots) *fault {
	estimate, err := env.EstimateCost(checked, sizes{roots: map[string]protoreflect.MessageDescriptor{
		"args":      of.args,
		"inputs":    of.inputs,
		"output":    of.output,
		"principal": (&writv1.Principal{}).ProtoReflect().Descriptor(),
		"claimed":   (&writv1.Envelope{}).ProtoReflect().Descriptor(),
	}})
	if err != nil {
		return &fault{line: 1, column: 1, message: "the cost of the expression cannot be bounded: " + err.Error()}
	}
	if estimate.Max > costBound {
		return &fault{line: 1, column: 1, message: fmt.Sprintf(
			"the expression may cost more than %d steps; bound the fields it reads with max_len, max_items or max_pairs, or make it simpler", costBound)}
	}
	return nil
}

// sizes tells CEL how large the values of fields may be.
type sizes struct {
	roots map[string]protoreflect.MessageDescriptor
}

// EstimateCallCost leaves the cost of calls to CEL.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// EstimateSize returns the size of a field, by its rules.
func (s sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	if len(path) == 1 && path[0] == "tool" {
		return upTo(128)
	}
	if s.roots[path[0]] == nil {
		return nil
	}
	place := place{message: s.roots[path[0]]}
	for _, step := range path[1:] {
		if !place.enter(step) {
			return nil
		}
	}
	if place.field == nil {
		return nil
	}
	return upTo(place.size())
}

func upTo(most uint64) *cost.SizeEstimate {
	size := cost.RangedSizeEstimate(0, most)
	return &size
}

// place is where a path has led: a message, or a field of one, or what a field
// that is a list or a map holds.
type place struct {
	message protoreflect.MessageDescriptor
	field   protoreflect.FieldDescriptor
	rules   *validate.FieldRules
	inside  bool
}

// enter follows one step of a path: a field's name, or "@items", "@keys",
// "@values".
func (p *place) enter(step string) bool {
	switch {
	case step == "@items" && p.field != nil && p.field.IsList():
		p.rules, p.inside = p.rules.GetRepeated().GetItems(), true
		p.message = p.field.Message()
		return true
	case step == "@keys" && p.field != nil && p.field.IsMap():
		p.rules, p.field, p.message, p.inside = p.rules.GetMap().GetKeys(), p.field.MapKey(), nil, true
		return true
	case step == "@values" && p.field != nil && p.field.IsMap():
		p.rules, p.field, p.inside = p.rules.GetMap().GetValues(), p.field.MapValue(), true
		p.message = p.field.Message()
		return true
	case p.message == nil:
		return false
	}
	field := p.message.Fields().ByName(protoreflect.Name(step))
	if field == nil {
		return false
	}
	rules, err := protovalidate.ResolveFieldRules(field)
	if err != nil {
		return false
	}
	p.field, p.rules, p.inside, p.message = field, rules, false, nil
	if !field.IsList() && !field.IsMap() {
		p.message = field.Message()
	}
	return true
}

// size returns the largest size that the rules allow, or the assumed one.
func (p *place) size() uint64 {
	switch {
	case p.field.IsList() && !p.inside:
		if rules := p.rules.GetRepeated(); rules != nil {
			return bounded(assumedItems, rules.MaxItems)
		}
		return assumedItems
	case p.field.IsMap() && !p.inside:
		if rules := p.rules.GetMap(); rules != nil {
			return bounded(assumedItems, rules.MaxPairs)
		}
		return assumedItems
	case p.field.Kind() == protoreflect.StringKind:
		if rules := p.rules.GetString(); rules != nil {
			return bounded(assumedText, rules.MaxLen, rules.Len, rules.MaxBytes, rules.LenBytes)
		}
		return assumedText
	case p.field.Kind() == protoreflect.BytesKind:
		if rules := p.rules.GetBytes(); rules != nil {
			return bounded(assumedText, rules.MaxLen, rules.Len)
		}
		return assumedText
	default:
		return 1
	}
}

// bounded returns the least of the bounds that are there, or the assumed size.
func bounded(assumed uint64, bounds ...*uint64) uint64 {
	least, found := assumed, false
	for _, bound := range bounds {
		if bound != nil && (!found || *bound < least) {
			least, found = *bound, true
		}
	}
	return least
}
