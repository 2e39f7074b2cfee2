// SPDX-License-Identifier: Apache-2.0

package canonical

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// plan is what writer and reader need to know of a message type, computed once.
type plan struct {
	fields []field // ascending by number
	// low has the index plus 1 of the field of each low number; byNumber has the others.
	low        [lowNumbers]uint8
	byNumber   map[protowire.Number]int
	extendable bool
	linked     bool // the type is linked into the program
}

// lowNumbers are those that are looked up without a map: nearly all there are.
const lowNumbers = 64

// find returns the field of a number, or nil.
func (p *plan) find(number protowire.Number) *field {
	if number > 0 && number < lowNumbers {
		if i := p.low[number]; i > 0 {
			return &p.fields[i-1]
		}
		return nil
	}
	if i, ok := p.byNumber[number]; ok {
		return &p.fields[i]
	}
	return nil
}

// field is one field of a plan.
type field struct {
	desc     protoreflect.FieldDescriptor
	number   protowire.Number
	kind     protoreflect.Kind
	wire     protowire.Type // of one value
	framed   protowire.Type // of what stands in the message: a packed list is one
	list     bool
	packed   bool
	isMap    bool
	presence bool
	oneof    int // index of the real oneof in the message plus 1, or 0
	key      *field
	value    *field
	message  func() *plan // of a message field; late, because types recurse
}

// plans holds the plans of the types that are linked into the program. Types that
// are compiled at run time are not kept: a bundle may be loaded any number of times.
var plans sync.Map // protoreflect.MessageDescriptor -> *plan

func planOf(m protoreflect.Message) *plan {
	return planFor(m.Descriptor())
}

func planFor(md protoreflect.MessageDescriptor) *plan {
	if p, ok := plans.Load(md); ok {
		return p.(*plan)
	}
	p := newPlan(md)
	if p.linked = linked(md); p.linked {
		plans.Store(md, p)
	}
	return p
}

func linked(md protoreflect.MessageDescriptor) bool {
	t, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	return err == nil && t.Descriptor() == md
}

func newPlan(md protoreflect.MessageDescriptor) *plan {
	fds := md.Fields()
	p := &plan{
		fields:     make([]field, 0, fds.Len()),
		byNumber:   make(map[protowire.Number]int),
		extendable: md.ExtensionRanges().Len() > 0,
	}
	for i := range fds.Len() {
		p.fields = append(p.fields, newField(fds.Get(i)))
	}
	slices.SortFunc(p.fields, func(a, b field) int { return int(a.number) - int(b.number) })
	for i := range p.fields {
		if number := p.fields[i].number; number < lowNumbers {
			p.low[number] = uint8(i + 1) //nolint:gosec // fewer than 64
		} else {
			p.byNumber[number] = i
		}
	}
	return p
}

func newField(fd protoreflect.FieldDescriptor) field {
	f := field{
		desc:     fd,
		number:   fd.Number(),
		kind:     fd.Kind(),
		wire:     wireType(fd.Kind()),
		list:     fd.IsList(),
		packed:   fd.IsPacked(),
		isMap:    fd.IsMap(),
		presence: fd.HasPresence(),
	}
	f.framed = f.wire
	if f.packed || f.isMap {
		f.framed = protowire.BytesType
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		f.oneof = o.Index() + 1
	}
	switch {
	case f.isMap:
		k, v := newField(fd.MapKey()), newField(fd.MapValue())
		k.presence, v.presence = true, true // an entry writes both, always
		f.key, f.value = &k, &v
	case fd.Message() != nil:
		f.message = sync.OnceValue(func() *plan { return planFor(fd.Message()) })
	}
	return f
}

// wireType is the wire type of one value of a kind. Groups are -1: never valid.
func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return -1
	default:
		return protowire.VarintType
	}
}
