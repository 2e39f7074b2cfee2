// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"errors"
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Violation is a rule that a message breaks.
type Violation struct {
	// Field is the path of JSON names, empty for a rule of the message.
	Field string
	// Rule is the rule's id, such as "string.max_len".
	Rule string
	// Message says what the rule asks. It holds no value of the message.
	Message string
}

// validator holds the compiled rules of some messages. It does not change.
type validator struct {
	rules protovalidate.Validator
	known map[protoreflect.FullName]bool
	// said are the messages that custom rules state as they are. Others are made by
	// an expression, which may put values into them.
	said map[string]bool
}

// newValidator compiles the rules of the messages and of all they reach.
func newValidator(used []protoreflect.MessageDescriptor) (*validator, error) {
	v := &validator{known: make(map[protoreflect.FullName]bool), said: make(map[string]bool)}
	for _, message := range used {
		v.known[message.FullName()] = true
		v.collect(message, make(map[protoreflect.FullName]bool))
	}
	var err error
	v.rules, err = protovalidate.New(protovalidate.WithMessageDescriptors(used...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("making the validator: %w", err)
	}
	// Broken rules show when they are first used.
	var problems []error
	for _, message := range used {
		var broken *protovalidate.CompilationError
		if err := v.rules.Validate(newMessage(message).Interface()); errors.As(err, &broken) {
			problems = append(problems, At(message, "the rules of %s do not compile: %v", message.FullName(), broken))
		}
	}
	return v, errors.Join(problems...)
}

func (v *validator) has(name protoreflect.FullName) bool { return v.known[name] }

// collect notes what the custom rules say.
func (v *validator) collect(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[message.FullName()] {
		return
	}
	seen[message.FullName()] = true
	rules := proto.GetExtension(message.Options(), validate.E_Message).(*validate.MessageRules)
	v.say(rules.GetCel())
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		v.sayField(proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules))
		if field.IsMap() {
			field = field.MapValue()
		}
		if field.Message() != nil {
			v.collect(field.Message(), seen)
		}
	}
}

func (v *validator) sayField(rules *validate.FieldRules) {
	if rules == nil {
		return
	}
	v.say(rules.GetCel())
	v.sayField(rules.GetRepeated().GetItems())
	v.sayField(rules.GetMap().GetKeys())
	v.sayField(rules.GetMap().GetValues())
}

func (v *validator) say(rules []*validate.Rule) {
	for _, rule := range rules {
		v.said[rule.GetMessage()] = true
	}
}

// Validate returns the rules that a message of this type breaks, in the order of
// its fields. A rule that cannot be evaluated is broken.
func (m *Message) Validate(message protoreflect.Message) []Violation {
	err := m.rules.rules.Validate(message.Interface())
	if err == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) || len(broken.Violations) == 0 {
		return []Violation{{Rule: "unevaluated", Message: "a rule of the message cannot be evaluated"}}
	}
	violations := make([]Violation, 0, len(broken.Violations))
	for _, found := range broken.Violations {
		violations = append(violations, m.violation(found.Proto))
	}
	return violations
}

func (m *Message) violation(found *validate.Violation) Violation {
	v := Violation{Field: m.pathOf(found.GetField()), Rule: found.GetRuleId(), Message: found.GetMessage()}
	if isCustom(found.GetRule()) && !m.rules.said[v.Message] || v.Message == "" {
		v.Message = "must keep the rule " + v.Rule
	}
	return v
}

// isCustom reports whether a rule is an expression of the schema's author.
func isCustom(rule *validate.FieldPath) bool {
	elements := rule.GetElements()
	if len(elements) == 0 {
		return true
	}
	name := elements[len(elements)-1].GetFieldName()
	return strings.HasPrefix(name, "cel")
}

// pathOf writes a path in JSON names. It ends at a sensitive field: keys below it
// may be values.
func (m *Message) pathOf(path *validate.FieldPath) string {
	text, p := "", m.plan
	for _, element := range path.GetElements() {
		f := p.named(element.GetFieldName())
		if f == nil {
			return join(text, element.GetFieldName())
		}
		text = join(text, f.name)
		if f.sensitivity != 0 {
			return text
		}
		text += subscriptOf(element)
		if f.message == nil {
			return text
		}
		p = f.message
	}
	return text
}

func (p *plan) named(name string) *field {
	for _, f := range p.inOrder {
		if string(f.descriptor.Name()) == name {
			return f
		}
	}
	return nil
}

func subscriptOf(element *validate.FieldPathElement) string {
	switch key := element.GetSubscript().(type) {
	case *validate.FieldPathElement_Index:
		return fmt.Sprintf("[%d]", key.Index)
	case *validate.FieldPathElement_BoolKey:
		return fmt.Sprintf(`["%t"]`, key.BoolKey)
	case *validate.FieldPathElement_IntKey:
		return fmt.Sprintf(`["%d"]`, key.IntKey)
	case *validate.FieldPathElement_UintKey:
		return fmt.Sprintf(`["%d"]`, key.UintKey)
	case *validate.FieldPathElement_StringKey:
		return "[" + string(appendText(nil, key.StringKey)) + "]"
	}
	return ""
}

func newMessage(descriptor protoreflect.MessageDescriptor) protoreflect.Message {
	return dynamicpb.NewMessage(descriptor)
}
