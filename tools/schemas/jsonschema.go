// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// dialect is JSON Schema 2020-12.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// node is a JSON Schema under construction: keywords in the order they were set.
type node struct {
	keys   []string
	values [][]byte
}

// put sets a keyword to a JSON text, or takes it anew.
func (n *node) put(key string, value []byte) {
	for i, known := range n.keys {
		if known == key {
			n.values[i] = value
			return
		}
	}
	n.keys, n.values = append(n.keys, key), append(n.values, value)
}

func (n *node) text(key, value string) { n.put(key, appendText(nil, value)) }

func (n *node) json() []byte {
	out, first := []byte{'{'}, true
	for i, key := range n.keys {
		out = append(appendText(separate(out, &first), key), ':')
		out = append(out, n.values[i]...)
	}
	return append(out, '}')
}

// printer prints the messages that a schema refers to, once each.
type printer struct {
	root    *plan
	printed map[protoreflect.FullName]bool
	order   []*plan
}

// printSchema prints the type of a message. The message itself stands at the top,
// and what it holds in $defs, in the order in which it is met.
func printSchema(p *plan) []byte {
	w := &printer{root: p, printed: make(map[protoreflect.FullName]bool)}
	root := &node{}
	root.text("$schema", dialect)
	w.object(root, p)
	if body := w.definitions(); body != nil {
		root.put("$defs", body)
	}
	return root.json()
}

func (w *printer) definitions() []byte {
	out, first := []byte{'{'}, true
	for i := 0; i < len(w.order); i++ {
		n := &node{}
		w.object(n, w.order[i])
		out = append(appendText(separate(out, &first), string(w.order[i].descriptor.FullName())), ':')
		out = append(out, n.json()...)
	}
	if first {
		return nil
	}
	return append(out, '}')
}

// object prints a message.
func (w *printer) object(n *node, p *plan) {
	n.text("type", "object")
	describe(n, p.descriptor)
	properties, first := []byte{'{'}, true
	var required []string
	for _, f := range p.inOrder {
		properties = append(appendText(separate(properties, &first), f.name), ':')
		properties = append(properties, w.property(f).json()...)
		if f.mustBeGiven() {
			required = append(required, f.name)
		}
	}
	n.put("properties", append(properties, '}'))
	if len(required) > 0 {
		n.put("required", texts(required))
	}
	n.put("additionalProperties", []byte("false"))
	if rules := oneofRules(p); rules != nil {
		n.put("allOf", rules)
	}
}

// describe prints the comment before a descriptor.
func describe(n *node, descriptor protoreflect.Descriptor) {
	if comment := Comment(descriptor); comment != "" {
		n.text("description", comment)
	}
}

// Comment returns the comment before a descriptor, without the line breaks that
// only wrap it.
func Comment(descriptor protoreflect.Descriptor) string {
	comment := descriptor.ParentFile().SourceLocations().ByDescriptor(descriptor).LeadingComments
	var paragraphs []string
	for paragraph := range strings.SplitSeq(comment, "\n\n") {
		if text := strings.Join(strings.Fields(paragraph), " "); text != "" {
			paragraphs = append(paragraphs, text)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// property prints a field.
func (w *printer) property(f *field) *node {
	n := &node{}
	rules := fieldRules(f.descriptor)
	switch {
	case f.mapKey != nil:
		n.text("type", "object")
		describe(n, f.descriptor)
		value := w.single(f.mapValue)
		value.constrain(f.mapValue, rules.GetMap().GetValues())
		n.put("additionalProperties", value.json())
		n.mapRules(f, rules.GetMap())
	case f.list:
		n.text("type", "array")
		describe(n, f.descriptor)
		item := w.single(f)
		item.constrain(f, rules.GetRepeated().GetItems())
		n.put("items", item.json())
		n.listRules(rules.GetRepeated())
	default:
		n = w.single(f)
		describe(n, f.descriptor)
		n.constrain(f, rules)
	}
	return n
}

// single prints the type of one value.
func (w *printer) single(f *field) *node {
	n := &node{}
	if f.message != nil && f.message == w.root {
		n.text("$ref", "#")
		return n
	}
	if f.message != nil && f.mapKey == nil {
		name := f.message.descriptor.FullName()
		if !w.printed[name] {
			w.printed[name] = true
			w.order = append(w.order, f.message)
		}
		n.text("$ref", "#/$defs/"+string(name))
		return n
	}
	switch f.form {
	case formTimestamp:
		n.text("type", "string")
		n.text("format", "date-time")
		n.text("pattern", `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$`)
		return n
	case formDuration:
		n.text("type", "string")
		n.text("pattern", `^-?(0|[1-9][0-9]*)(\.[0-9]{1,9})?s$`)
		return n
	case formWrapper:
		return w.single(f.mapValue)
	}
	n.scalar(f)
	return n
}

// scalar prints the type of a scalar with the bounds of its kind.
func (n *node) scalar(f *field) {
	switch f.kind {
	case protoreflect.StringKind:
		n.text("type", "string")
	case protoreflect.BoolKind:
		n.text("type", "boolean")
	case protoreflect.BytesKind:
		n.text("type", "string")
		n.text("contentEncoding", "base64")
		n.text("pattern", "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
	case protoreflect.EnumKind:
		n.text("type", "string")
		n.put("enum", texts(f.enumNames(nil)))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		n.text("type", "number")
	default:
		n.text("type", "integer")
		least, most := bounds(f.kind)
		n.put("minimum", []byte(least))
		n.put("maximum", []byte(most))
	}
}

func bounds(kind protoreflect.Kind) (string, string) {
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return "-2147483648", "2147483647"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return "0", "4294967295"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "0", "18446744073709551615"
	default:
		return "-9223372036854775808", "9223372036854775807"
	}
}

func texts(values []string) []byte {
	out, first := []byte{'['}, true
	for _, value := range values {
		out = appendText(separate(out, &first), value)
	}
	return append(out, ']')
}
