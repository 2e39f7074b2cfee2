// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Restore puts back what [Message.AppendPublic] left out: it returns the canonical JSON of
// a public text with the removed values, by path, in their places, and how many of them
// found one. Where the message of then was of another schema some may not, and a text that
// this schema cannot read is refused. The values are taken as they are: whoever uses the
// result reads it as any JSON from outside.
func (m *Message) Restore(public []byte, values map[string][]byte, limits Limits) ([]byte, int, error) {
	message, err := m.Read(public, nil, limits)
	if err != nil {
		return nil, 0, err
	}
	w := &restorer{values: values}
	return w.object(nil, m.plan, message, ""), w.placed, nil
}

// restorer writes a message as publisher does, with the values that publisher leaves out.
type restorer struct {
	values map[string][]byte
	placed int
}

func (w *restorer) object(dst []byte, p *plan, message protoreflect.Message, path string) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range p.inOrder {
		at := join(path, f.name)
		if f.sensitivity != 0 {
			if value, ok := w.values[at]; ok {
				w.placed++
				dst = append(append(separate(dst, &first), f.key...), value...)
			}
			continue
		}
		if !message.Has(f.descriptor) {
			continue
		}
		value := message.Get(f.descriptor)
		dst = append(separate(dst, &first), f.key...)
		if f.message == nil || !f.message.guarded {
			dst = f.appendWhole(dst, value)
			continue
		}
		dst = f.appendGuarded(dst, value, at, w.object)
	}
	return append(dst, '}')
}
