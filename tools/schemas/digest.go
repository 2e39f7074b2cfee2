// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// digestDomain is the first line of what is hashed. It changes when the form does.
const digestDomain = "writ/schema/v1\n"

// digest hashes the closure of a message: every message and enum it reaches, by
// name, each with what bears on reading, writing and validating it. Every part
// has its length before it, so that no two types give the same bytes.
func digest(message protoreflect.MessageDescriptor) [32]byte {
	c := &closed{messages: make(map[protoreflect.FullName]protoreflect.MessageDescriptor), enums: make(map[protoreflect.FullName]protoreflect.EnumDescriptor)}
	c.reach(message)
	text := appendPart([]byte(digestDomain), []byte(message.FullName()))
	for _, name := range slices.Sorted(maps.Keys(c.messages)) {
		text = appendPart(text, describeMessage(c.messages[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.enums)) {
		text = appendPart(text, describeEnum(c.enums[name]))
	}
	return sha256.Sum256(text)
}

// closed collects what a message reaches.
type closed struct {
	messages map[protoreflect.FullName]protoreflect.MessageDescriptor
	enums    map[protoreflect.FullName]protoreflect.EnumDescriptor
}

func (c *closed) reach(message protoreflect.MessageDescriptor) {
	if _, done := c.messages[message.FullName()]; done {
		return
	}
	c.messages[message.FullName()] = message
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if enum := field.Enum(); enum != nil {
			c.enums[enum.FullName()] = enum
		}
		if held := field.Message(); held != nil {
			c.reach(held)
		}
	}
}

func describeMessage(message protoreflect.MessageDescriptor) []byte {
	text := appendPart(nil, []byte(message.FullName()))
	text = appendOption(text, proto.GetExtension(message.Options(), validate.E_Message))
	fields := make([]protoreflect.FieldDescriptor, message.Fields().Len())
	for i := range fields {
		fields[i] = message.Fields().Get(i)
	}
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	for _, field := range fields {
		text = appendPart(text, describeField(field))
	}
	oneofs := make(map[string]protoreflect.OneofDescriptor)
	for i := range message.Oneofs().Len() {
		if oneof := message.Oneofs().Get(i); !oneof.IsSynthetic() {
			oneofs[string(oneof.Name())] = oneof
		}
	}
	for _, name := range slices.Sorted(maps.Keys(oneofs)) {
		text = appendPart(text, []byte(name))
		text = appendOption(text, proto.GetExtension(oneofs[name].Options(), validate.E_Oneof))
	}
	return text
}

func describeField(field protoreflect.FieldDescriptor) []byte {
	text := binary.BigEndian.AppendUint32(nil, uint32(field.Number()))
	text = append(text, byte(field.Kind()), byte(field.Cardinality()), bit(field.HasPresence()), bit(field.IsMap()))
	text = appendPart(text, []byte(field.Name()))
	text = appendPart(text, []byte(JSONName(field)))
	switch {
	case field.Enum() != nil:
		text = appendPart(text, []byte(field.Enum().FullName()))
	case field.Message() != nil:
		text = appendPart(text, []byte(field.Message().FullName()))
	}
	if oneof := field.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
		text = appendPart(text, []byte(oneof.Name()))
	}
	text = appendOption(text, proto.GetExtension(field.Options(), validate.E_Field))
	return appendOption(text, proto.GetExtension(field.Options(), writv1.E_Field))
}

func bit(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func describeEnum(enum protoreflect.EnumDescriptor) []byte {
	text := appendPart(nil, []byte(enum.FullName()))
	for i := range enum.Values().Len() {
		value := enum.Values().Get(i)
		text = binary.BigEndian.AppendUint32(text, uint32(value.Number()))
		text = appendPart(text, []byte(value.Name()))
	}
	return text
}

// appendPart appends bytes after their length.
func appendPart(dst, part []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

// appendOption appends an option's set fields by number, so that the bytes rest on
// no encoder's habits.
func appendOption(dst []byte, option any) []byte {
	message, ok := option.(proto.Message)
	if !ok {
		return appendPart(dst, nil)
	}
	return appendPart(dst, describeOption(message.ProtoReflect()))
}

func describeOption(option protoreflect.Message) []byte {
	if !option.IsValid() {
		return nil
	}
	set := make(map[protoreflect.FieldNumber]protoreflect.FieldDescriptor)
	option.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set[field.Number()] = field
		return true
	})
	var text []byte
	for _, number := range slices.Sorted(maps.Keys(set)) {
		field, value := set[number], option.Get(set[number])
		text = binary.BigEndian.AppendUint32(text, uint32(number))
		if !field.IsList() {
			text = appendPart(text, describeValue(field, value))
			continue
		}
		list := value.List()
		text = binary.BigEndian.AppendUint32(text, uint32(list.Len()))
		for i := range list.Len() {
			text = appendPart(text, describeValue(field, list.Get(i)))
		}
	}
	return text
}

func describeValue(field protoreflect.FieldDescriptor, value protoreflect.Value) []byte {
	switch {
	case field.Message() != nil:
		return describeOption(value.Message())
	case field.Enum() != nil:
		return binary.BigEndian.AppendUint32(nil, uint32(value.Enum()))
	case field.Kind() == protoreflect.BytesKind:
		return value.Bytes()
	default:
		return []byte(value.String())
	}
}
