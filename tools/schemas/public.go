// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Removed is a sensitive value that was left out of a text.
type Removed struct {
	// Path leads to it: JSON names, with dots, indices and keys.
	Path string
	// Value is its canonical JSON.
	Value []byte
	// Sensitivity is the option of its field.
	Sensitivity writv1.Sensitivity
}

// AppendPublic is [Message.Append] without the sensitive fields, which it returns.
// It refuses a message with text that is not UTF-8, which Read never gives.
func (m *Message) AppendPublic(dst []byte, message protoreflect.Message) ([]byte, []Removed, error) {
	if !m.plan.guarded {
		return m.plan.append(dst, message), nil, nil
	}
	w := &publisher{}
	dst = w.object(dst, m.plan, message, "")
	for _, removed := range w.removed {
		if !utf8.Valid(removed.Value) {
			return nil, nil, fmt.Errorf("writing %s: the text is not UTF-8", removed.Path)
		}
	}
	return dst, w.removed, nil
}

// publisher writes what is not sensitive.
type publisher struct{ removed []Removed }

func (w *publisher) object(dst []byte, p *plan, message protoreflect.Message, path string) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range p.inOrder {
		if !message.Has(f.descriptor) {
			continue
		}
		value, at := message.Get(f.descriptor), join(path, f.name)
		if f.sensitivity != 0 {
			w.removed = append(w.removed, Removed{Path: at, Value: f.appendWhole(nil, value), Sensitivity: f.sensitivity})
			continue
		}
		dst = append(separate(dst, &first), f.key...)
		if f.message == nil || !f.message.guarded {
			dst = f.appendWhole(dst, value)
			continue
		}
		dst = f.appendGuarded(dst, value, at, w.object)
	}
	return append(dst, '}')
}

// appendObject writes a message of a plan, which stands at a path.
type appendObject func(dst []byte, p *plan, message protoreflect.Message, path string) []byte

// appendGuarded writes the value of a field whose messages hold sensitive ones, each
// message by object.
func (f *field) appendGuarded(dst []byte, value protoreflect.Value, at string, object appendObject) []byte {
	first := true
	switch {
	case f.mapKey != nil:
		dst = append(dst, '{')
		for _, key := range sortedKeys(value.Map()) {
			dst = append(appendText(separate(dst, &first), key.String()), ':')
			dst = object(dst, f.message, value.Map().Get(key).Message(), at+subscript(f, key))
		}
		return append(dst, '}')
	case f.list:
		dst = append(dst, '[')
		for i := range value.List().Len() {
			dst = object(separate(dst, &first), f.message, value.List().Get(i).Message(), at+index(i))
		}
		return append(dst, ']')
	}
	return object(dst, f.message, value.Message(), at)
}

// redacted stands for a text that was redacted.
const redacted = "[redacted]"

// Redact replaces the sensitive values of a message in place, and returns their
// paths: a text by "[redacted]", or by hash of its bytes where the field says
// SENSITIVITY_HASH; whatever else is cleared. hash MUST be keyed.
func (m *Message) Redact(message protoreflect.Message, hash func([]byte) string) []string {
	var paths []string
	m.plan.walk(message, "", func(f *field, holder protoreflect.Message, path string) {
		if f.sensitivity == 0 || !holder.Has(f.descriptor) {
			return
		}
		paths = append(paths, path)
		f.redact(holder, hash)
	})
	return paths
}

func (f *field) redact(holder protoreflect.Message, hash func([]byte) string) {
	if f.kind != protoreflect.StringKind || f.mapKey != nil {
		holder.Clear(f.descriptor)
		return
	}
	stand := func(value protoreflect.Value) protoreflect.Value {
		if f.sensitivity == writv1.Sensitivity_SENSITIVITY_HASH {
			return protoreflect.ValueOfString(hash([]byte(value.String())))
		}
		return protoreflect.ValueOfString(redacted)
	}
	if !f.list {
		holder.Set(f.descriptor, stand(holder.Get(f.descriptor)))
		return
	}
	list := holder.Mutable(f.descriptor).List()
	for i := range list.Len() {
		list.Set(i, stand(list.Get(i)))
	}
}

// Tenants returns the values of the fields that are bound to the tenant, in every
// message that is there. A field without presence counts when it is empty too: a
// service behind may take that for every tenant.
func (m *Message) Tenants(message protoreflect.Message) []string {
	if !m.plan.bound {
		return nil
	}
	var tenants []string
	m.plan.walk(message, "", func(f *field, holder protoreflect.Message, _ string) {
		switch {
		case !f.tenant:
		case f.list:
			list := holder.Get(f.descriptor).List()
			for i := range list.Len() {
				tenants = append(tenants, list.Get(i).String())
			}
		case f.implicit || holder.Has(f.descriptor):
			tenants = append(tenants, holder.Get(f.descriptor).String())
		}
	})
	return tenants
}

// walk visits the sensitive and bound fields of every message that is there. What
// a sensitive field holds is not entered when it is sensitive itself, unless
// something below it is bound.
func (p *plan) walk(message protoreflect.Message, path string, visit func(*field, protoreflect.Message, string)) {
	for _, f := range p.inOrder {
		at := join(path, f.name)
		if f.message != nil && (f.message.guarded && f.sensitivity == 0 || f.message.bound) && message.Has(f.descriptor) {
			f.enter(message.Get(f.descriptor), at, visit)
		}
		if f.sensitivity != 0 || f.tenant {
			visit(f, message, at)
		}
	}
}

func (f *field) enter(value protoreflect.Value, at string, visit func(*field, protoreflect.Message, string)) {
	switch {
	case f.mapKey != nil:
		for _, key := range sortedKeys(value.Map()) {
			f.message.walk(value.Map().Get(key).Message(), at+subscript(f, key), visit)
		}
	case f.list:
		for i := range value.List().Len() {
			f.message.walk(value.List().Get(i).Message(), at+index(i), visit)
		}
	default:
		f.message.walk(value.Message(), at, visit)
	}
}
