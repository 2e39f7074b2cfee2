// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Read reads arguments: one JSON object, and values that stand elsewhere. Nothing
// of json is kept. The error is a [*reasons.Error] that names the field and holds
// no value: DECODE_* for what is not JSON as the profile has it, SCHEMA_* for what
// is not of the message's type. What is wrong with the syntax is told first,
// wherever in the text it stands.
//
// Read does not validate rules: [Message.Validate] does.
func (m *Message) Read(json []byte, params []Param, l Limits) (protoreflect.Message, error) {
	r := newReader(l)
	defer r.release()
	r.tracking = len(params) > 0
	message, refusal := r.document(m.plan, json)
	if refusal == nil {
		refusal = r.params(m.plan, message, params)
	}
	if refusal != nil {
		return nil, refusal
	}
	return message, nil
}

func (r *reader) document(p *plan, json []byte) (protoreflect.Message, *reasons.Error) {
	if refusal := r.open(json); refusal != nil {
		return nil, refusal
	}
	message, refusal := r.object(p)
	if refusal == nil {
		if refusal = r.end(); refusal == nil {
			return message, nil
		}
	}
	if strings.HasPrefix(reasons.Name(refusal.Reason), "SCHEMA_") {
		if broken := r.check(json); broken != nil {
			return nil, broken
		}
	}
	return nil, refusal
}

// object reads a message.
func (r *reader) object(p *plan) (protoreflect.Message, *reasons.Error) {
	if refusal := r.begin('{', "an object"); refusal != nil {
		return nil, refusal
	}
	message := dynamicpb.NewMessage(p.descriptor)
	for {
		key, done, refusal := r.key()
		if refusal != nil {
			return nil, refusal
		}
		if done {
			return message, nil
		}
		f, known := p.byName[string(key)]
		if !known {
			return nil, unknownField(p, key)
		}
		if refusal := r.member(f, message); refusal != nil {
			return nil, within(f.name, refusal)
		}
	}
}

// begin reads the start of an object or array.
func (r *reader) begin(start jsontext.Kind, expected string) *reasons.Error {
	if kind := r.decoder.PeekKind(); kind != start && kind != 0 {
		return mismatch(expected, kind)
	}
	if _, err := r.decoder.ReadToken(); err != nil {
		return r.syntax(err)
	}
	return r.enter()
}

// key reads the next key of an object, or its end. The key is valid until the next
// read.
func (r *reader) key() ([]byte, bool, *reasons.Error) {
	if r.decoder.PeekKind() == '}' {
		return nil, true, r.leave()
	}
	raw, err := r.decoder.ReadValue()
	if err != nil {
		return nil, false, r.syntax(err)
	}
	if refusal := r.count(); refusal != nil {
		return nil, false, refusal
	}
	text, refusal := r.unquote(raw)
	return text, false, refusal
}

// leave reads the end of an object or array.
func (r *reader) leave() *reasons.Error {
	if _, err := r.decoder.ReadToken(); err != nil {
		return r.syntax(err)
	}
	r.depth--
	return nil
}

// unquote returns the text of a JSON string, valid until the next read.
func (r *reader) unquote(raw jsontext.Value) ([]byte, *reasons.Error) {
	if len(raw) >= 2 && bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	text, err := jsontext.AppendUnquote(r.scratch[:0], raw)
	if err != nil {
		return nil, r.syntax(err)
	}
	r.scratch = text
	return text, nil
}

// member reads a field's value and sets it.
func (r *reader) member(f *field, message protoreflect.Message) *reasons.Error {
	if f.oneof != nil && message.WhichOneof(f.oneof) != nil {
		return reasons.New(writv1.Reason_REASON_SCHEMA_FIELD_TWICE, "", "another field of %s is given too, and one is allowed", f.oneof.Name())
	}
	switch {
	case f.mapKey != nil:
		return r.entries(f, message.Mutable(f.descriptor).Map())
	case f.list:
		return r.elements(f, message.Mutable(f.descriptor).List())
	}
	value, refusal := r.value(f)
	if refusal != nil {
		return refusal
	}
	r.set(f, message, value)
	return nil
}

// given is a field of a message.
type given struct {
	message protoreflect.Message
	field   *field
}

func (r *reader) set(f *field, message protoreflect.Message, value protoreflect.Value) {
	message.Set(f.descriptor, value)
	if r.tracking && f.implicit && !message.Has(f.descriptor) {
		r.zeros = append(r.zeros, given{message, f})
	}
}

// elements reads an array.
func (r *reader) elements(f *field, list protoreflect.List) *reasons.Error {
	if refusal := r.begin('[', "an array of "+f.expected()); refusal != nil {
		return refusal
	}
	for r.decoder.PeekKind() != ']' {
		value, refusal := r.value(f)
		if refusal != nil {
			return within(index(list.Len()), refusal)
		}
		list.Append(value)
	}
	return r.leave()
}

// entries reads a map.
func (r *reader) entries(f *field, entries protoreflect.Map) *reasons.Error {
	if refusal := r.begin('{', "an object of "+f.mapValue.expected()); refusal != nil {
		return refusal
	}
	for {
		raw, done, refusal := r.key()
		if refusal != nil || done {
			return refusal
		}
		text := string(raw)
		key, refusal := f.mapKey.parse(text)
		if refusal != nil {
			refusal.Message = "a key: " + refusal.Message
			return refusal
		}
		if key.MapKey().String() != text {
			return f.mapKey.misshapen()
		}
		value, refusal := r.value(f.mapValue)
		if refusal != nil {
			return within(subscript(f, key.MapKey()), refusal)
		}
		entries.Set(key.MapKey(), value)
	}
}

// value reads one value, which is no list and no map.
func (r *reader) value(f *field) (protoreflect.Value, *reasons.Error) {
	if f.message != nil {
		message, refusal := r.object(f.message)
		if refusal != nil {
			return protoreflect.Value{}, refusal
		}
		return protoreflect.ValueOfMessage(message), nil
	}
	kind := r.decoder.PeekKind()
	if kind == '{' || kind == '[' || kind == 'n' {
		return protoreflect.Value{}, mismatch(f.expected(), kind)
	}
	raw, err := r.decoder.ReadValue()
	if err != nil {
		return protoreflect.Value{}, r.syntax(err)
	}
	if refusal := r.count(); refusal != nil {
		return protoreflect.Value{}, refusal
	}
	return r.scalar(f, kind, raw)
}

// scalar reads the text of a scalar, if it is of the class of its type.
func (r *reader) scalar(f *field, kind jsontext.Kind, raw jsontext.Value) (protoreflect.Value, *reasons.Error) {
	class := f.class()
	if kind == 'f' || kind == 't' {
		kind = 't'
	}
	if kind != class {
		return protoreflect.Value{}, mismatch(f.expected(), kind)
	}
	if class != '"' {
		return f.parse(string(raw))
	}
	text, refusal := r.unquote(raw)
	if refusal != nil {
		return protoreflect.Value{}, refusal
	}
	return f.parse(string(text))
}

// class is the class of JSON value that a scalar type is: 't' stands for both
// booleans.
func (f *field) class() jsontext.Kind {
	if f.form == formWrapper {
		return f.mapValue.class()
	}
	switch f.kind {
	case protoreflect.BoolKind:
		return 't'
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind, protoreflect.MessageKind:
		return '"'
	default:
		return '0'
	}
}

// expected names a value of the type.
func (f *field) expected() string {
	switch f.form {
	case formTimestamp:
		return "a string with an RFC 3339 time that ends in Z"
	case formDuration:
		return `a string with seconds that ends in "s"`
	case formWrapper:
		return f.mapValue.expected()
	}
	switch f.kind {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "a string"
	case protoreflect.BytesKind:
		return "a string with padded standard base64"
	case protoreflect.EnumKind:
		return "a string with the name of a value of " + string(f.descriptor.Enum().Name())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "a number"
	case protoreflect.MessageKind:
		return "an object"
	default:
		return "an integer of type " + f.kind.String() + " as a number"
	}
}

// mismatch says that a value is of another class.
func mismatch(expected string, kind jsontext.Kind) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_SCHEMA_TYPE_MISMATCH, "", "expected %s, found %s", expected, classOf(kind))
}

func classOf(kind jsontext.Kind) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null; leave the field out"
	default:
		return "no value"
	}
}

// unknownField names the message, and the key as far as it looks like a name: what
// does not may be a value in the wrong place.
func unknownField(p *plan, key []byte) *reasons.Error {
	field := ""
	if isName(string(key)) {
		field = string(key)
	}
	return reasons.New(writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD, field, "%s has no such field", p.descriptor.Name())
}
