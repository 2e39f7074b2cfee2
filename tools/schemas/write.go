// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"cmp"
	"encoding/base64"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Append appends the canonical JSON of a message of this type: no space, fields in
// the order of their numbers, those without presence only when they are not zero,
// map keys sorted, numbers in their shortest form, strings with the escapes JSON
// demands. [Message.Read] reads it back to the same message.
func (m *Message) Append(dst []byte, message protoreflect.Message) []byte {
	return m.plan.append(dst, message)
}

// AppendWithout is [Message.Append] without the scalars at the paths of JSON names.
func (m *Message) AppendWithout(dst []byte, message protoreflect.Message, paths []string) []byte {
	return m.plan.appendWithout(dst, message, "", paths)
}

func (p *plan) appendWithout(dst []byte, message protoreflect.Message, prefix string, paths []string) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range p.inOrder {
		path := join(prefix, f.name)
		if !message.Has(f.descriptor) || slices.Contains(paths, path) {
			continue
		}
		dst = append(separate(dst, &first), f.key...)
		value := message.Get(f.descriptor)
		if f.message != nil && !f.list && f.mapKey == nil {
			dst = f.message.appendWithout(dst, value.Message(), path, paths)
			continue
		}
		dst = f.appendWhole(dst, value)
	}
	return append(dst, '}')
}

// AppendField appends the canonical JSON of one field, and reports whether there
// is one: a field that cannot be absent always has one.
func (m *Message) AppendField(dst []byte, message protoreflect.Message, name string) ([]byte, bool) {
	f, known := m.plan.byName[name]
	if !known || f.descriptor.HasPresence() && !message.Has(f.descriptor) {
		return dst, false
	}
	return f.appendWhole(dst, message.Get(f.descriptor)), true
}

func (p *plan) append(dst []byte, message protoreflect.Message) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range p.inOrder {
		if !message.Has(f.descriptor) {
			continue
		}
		dst = append(separate(dst, &first), f.key...)
		dst = f.appendWhole(dst, message.Get(f.descriptor))
	}
	return append(dst, '}')
}

// separate puts a comma before all but the first.
func separate(dst []byte, first *bool) []byte {
	if *first {
		*first = false
		return dst
	}
	return append(dst, ',')
}

// appendWhole writes the value of a field: a list, a map or one value.
func (f *field) appendWhole(dst []byte, value protoreflect.Value) []byte {
	switch {
	case f.mapKey != nil:
		return f.appendMap(dst, value.Map())
	case f.list:
		list := value.List()
		dst = append(dst, '[')
		for i := range list.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = f.appendValue(dst, list.Get(i))
		}
		return append(dst, ']')
	}
	return f.appendValue(dst, value)
}

func (f *field) appendMap(dst []byte, entries protoreflect.Map) []byte {
	dst = append(dst, '{')
	first := true
	for _, key := range sortedKeys(entries) {
		dst = appendText(separate(dst, &first), key.String())
		dst = f.mapValue.appendValue(append(dst, ':'), entries.Get(key))
	}
	return append(dst, '}')
}

// sortedKeys returns the keys by value: numbers as numbers, text by its bytes.
func sortedKeys(entries protoreflect.Map) []protoreflect.MapKey {
	keys := make([]protoreflect.MapKey, 0, entries.Len())
	entries.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b protoreflect.MapKey) int {
	switch x := a.Interface().(type) {
	case int32, int64:
		return cmp.Compare(a.Int(), b.Int())
	case uint32, uint64:
		return cmp.Compare(a.Uint(), b.Uint())
	case string:
		return cmp.Compare(x, b.String())
	default:
		return cmp.Compare(a.String(), b.String())
	}
}

// appendValue writes one value.
func (f *field) appendValue(dst []byte, value protoreflect.Value) []byte {
	switch f.form {
	case formTimestamp:
		return appendTimestamp(dst, value.Message())
	case formDuration:
		return appendDuration(dst, value.Message())
	case formWrapper:
		return f.mapValue.appendValue(dst, value.Message().Get(f.mapValue.descriptor))
	}
	switch f.kind {
	case protoreflect.MessageKind:
		return f.message.append(dst, value.Message())
	case protoreflect.StringKind:
		return appendText(dst, value.String())
	case protoreflect.BytesKind:
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), value.Bytes())
		return append(dst, '"')
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, value.Bool())
	case protoreflect.EnumKind:
		return f.appendEnum(dst, value.Enum())
	case protoreflect.FloatKind:
		return appendFloat(dst, value.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(dst, value.Float(), 64)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(dst, value.Uint(), 10)
	default:
		return strconv.AppendInt(dst, value.Int(), 10)
	}
}

// appendEnum writes the first name of a number. A number without one cannot have
// been read; it is written as a number, which Read refuses.
func (f *field) appendEnum(dst []byte, number protoreflect.EnumNumber) []byte {
	if value := f.descriptor.Enum().Values().ByNumber(number); value != nil {
		return appendText(dst, string(value.Name()))
	}
	return strconv.AppendInt(dst, int64(number), 10)
}

// appendFloat writes the shortest number that reads back as the same float: plain
// between 1e-6 and 1e21, else with an exponent (ECMA-262, Number::toString).
func appendFloat(dst []byte, number float64, bits int) []byte {
	size := math.Abs(number)
	switch {
	case number == 0:
		return append(dst, '0')
	case size >= 1e-6 && size < 1e21:
		return strconv.AppendFloat(dst, number, 'f', -1, bits)
	default:
		return strconv.AppendFloat(dst, number, 'e', -1, bits)
	}
}

// appendText writes a JSON string with the escapes that JSON demands and no others.
func appendText(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			return appendEscaped(dst, text)
		}
	}
	dst = append(append(dst, '"'), text...)
	return append(dst, '"')
}

// appendEscaped writes a string that needs care. Text that is not UTF-8 cannot
// have been read; its broken bytes are replaced.
func appendEscaped(dst []byte, text string) []byte {
	quoted, err := jsontext.AppendQuote(dst, text)
	if err != nil && len(quoted) < len(dst)+2 {
		return append(dst, '"', '"')
	}
	return quoted
}

// unquoted returns the text of a JSON string that Append wrote.
func unquoted(text []byte) string {
	plain, err := jsontext.AppendUnquote(nil, text)
	if err != nil {
		return ""
	}
	return string(plain)
}
