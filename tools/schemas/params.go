// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Param is an argument that stands in a path, a query or a header, decoded.
type Param struct {
	// Field is the path of JSON names, with dots.
	Field string
	// Value is the text of a scalar, as it stands in JSON, without quotes.
	Value string
}

// params sets the fields that stand elsewhere. Each is given once in all.
func (r *reader) params(p *plan, message protoreflect.Message, params []Param) *reasons.Error {
	size := 0
	for _, param := range params {
		if size += len(param.Field) + len(param.Value); size > r.limits.Bytes {
			return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the parameters have more than %d bytes", r.limits.Bytes)
		}
		if refusal := r.count(); refusal != nil {
			return refusal
		}
		if refusal := r.param(p, message, param.Field, param.Value); refusal != nil {
			return refusal
		}
	}
	return nil
}

// param sets the field at a path below message.
func (r *reader) param(p *plan, message protoreflect.Message, path, value string) *reasons.Error {
	name, rest, deeper := strings.Cut(path, ".")
	f, known := p.byName[name]
	if !known {
		return unknownField(p, []byte(name))
	}
	if f.oneof != nil {
		if set := message.WhichOneof(f.oneof); set != nil && set != f.descriptor {
			return reasons.New(writv1.Reason_REASON_SCHEMA_FIELD_TWICE, f.name, "another field of %s is given too, and one is allowed", f.oneof.Name())
		}
	}
	if deeper {
		if f.message == nil || f.list || f.mapKey != nil {
			return reasons.New(writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD, f.name, "the field has no fields of its own that a parameter could set")
		}
		return wrapped(f.name, r.param(f.message, message.Mutable(f.descriptor).Message(), rest, value))
	}
	return wrapped(f.name, r.leaf(f, message, value))
}

func wrapped(name string, refusal *reasons.Error) *reasons.Error {
	if refusal == nil {
		return nil
	}
	return within(name, refusal)
}

func (r *reader) leaf(f *field, message protoreflect.Message, text string) *reasons.Error {
	if f.message != nil || f.list || f.mapKey != nil {
		return reasons.New(writv1.Reason_REASON_SCHEMA_TYPE_MISMATCH, "", "expected a field that is one scalar, found a parameter for a list, a map or a message")
	}
	if message.Has(f.descriptor) || slices.Contains(r.zeros, given{message, f}) {
		return reasons.New(writv1.Reason_REASON_SCHEMA_FIELD_TWICE, "", "the field is given in two places")
	}
	if !utf8.ValidString(text) {
		return reasons.New(writv1.Reason_REASON_DECODE_INVALID_UTF8, "", "a parameter is not valid UTF-8")
	}
	value, refusal := f.parse(text)
	if refusal != nil {
		return refusal
	}
	r.set(f, message, value)
	return nil
}

// Text returns the text of the scalar at a path as a [Param] holds it, and whether
// there is one: a field without presence has one wherever its message is there.
func (m *Message) Text(message protoreflect.Message, path string) (string, bool) {
	f, holder := m.find(message, path)
	if f == nil || !holder.IsValid() || !f.implicit && !holder.Has(f.descriptor) {
		return "", false
	}
	text := f.appendValue(nil, holder.Get(f.descriptor))
	if len(text) > 0 && text[0] == '"' {
		return unquoted(text), true
	}
	return string(text), true
}

// Given reports whether the scalar at a path is set, and not the zero value of a
// field without presence.
func (m *Message) Given(message protoreflect.Message, path string) bool {
	f, holder := m.find(message, path)
	return f != nil && holder.Has(f.descriptor)
}

// Scalars returns the paths of JSON names to the scalars of the message that are
// not among taken, in the order of their numbers. Messages are entered only where
// a path of taken leads into them. The second result names a field that is no
// scalar, and is neither taken nor entered.
func (m *Message) Scalars(taken []string) (paths []string, other string) {
	return m.plan.scalars("", taken)
}

func (p *plan) scalars(prefix string, taken []string) (paths []string, other string) {
	for _, f := range p.inOrder {
		path := join(prefix, f.name)
		entered := slices.ContainsFunc(taken, func(t string) bool { return strings.HasPrefix(t, path+".") })
		switch {
		case slices.Contains(taken, path):
		case f.list || f.mapKey != nil || f.message != nil && !entered:
			return nil, path
		case f.message != nil:
			inner, left := f.message.scalars(path, taken)
			if left != "" {
				return nil, left
			}
			paths = append(paths, inner...)
		default:
			paths = append(paths, path)
		}
	}
	return paths, ""
}

// Scalar reports whether the path of JSON names leads to one scalar.
func (m *Message) Scalar(path string) bool {
	f, _ := m.find(nil, path)
	return f != nil
}

// find walks to a scalar field, and to the message that holds it if there is one.
func (m *Message) find(message protoreflect.Message, path string) (*field, protoreflect.Message) {
	p := m.plan
	for {
		name, rest, deeper := strings.Cut(path, ".")
		f, known := p.byName[name]
		if !known || f.list || f.mapKey != nil || deeper != (f.message != nil) {
			return nil, nil
		}
		if !deeper {
			return f, message
		}
		if message != nil {
			message = message.Get(f.descriptor).Message()
		}
		p, path = f.message, rest
	}
}
