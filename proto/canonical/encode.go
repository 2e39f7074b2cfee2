// SPDX-License-Identifier: Apache-2.0

package canonical

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// appendGenerated appends what proto.Marshal makes of a message of a type that is
// linked into the program, if that is the canonical form: a message has one, so that
// bytes of it that pass the check are it. Otherwise, and for what has no canonical
// form, it reports false.
func appendGenerated(dst []byte, m proto.Message, p *plan) ([]byte, bool) {
	if !p.linked {
		return dst, false
	}
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, m)
	if err != nil || checkMessage(out[len(dst):], p, maxDepth) != nil {
		return dst, false
	}
	return out, true
}

func appendMessage(dst []byte, m protoreflect.Message, p *plan, depth int) ([]byte, error) {
	if depth == 0 {
		return dst, fmt.Errorf("%w: nested deeper than %d", ErrNotCanonical, maxDepth)
	}
	if len(m.GetUnknown()) > 0 {
		return dst, fmt.Errorf("%w: unknown fields", ErrNotCanonical)
	}
	if p.extendable {
		if err := refuseExtensions(m); err != nil {
			return dst, err
		}
	}
	var err error
	for i := range p.fields {
		f := &p.fields[i]
		if !m.Has(f.desc) {
			continue
		}
		if dst, err = appendField(dst, f, m.Get(f.desc), depth); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func refuseExtensions(m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if fd.IsExtension() {
			err = fmt.Errorf("%w: extension %s", ErrNotCanonical, fd.FullName())
		}
		return err == nil
	})
	return err
}

func appendField(dst []byte, f *field, v protoreflect.Value, depth int) ([]byte, error) {
	switch {
	case f.isMap:
		return appendMap(dst, f, v.Map(), depth)
	case f.packed:
		return appendPacked(dst, f, v.List()), nil
	case f.list:
		l := v.List()
		var err error
		for i := range l.Len() {
			if dst, err = appendTagged(dst, f, l.Get(i), depth); err != nil {
				return dst, err
			}
		}
		return dst, nil
	default:
		return appendTagged(dst, f, v, depth)
	}
}

func appendTagged(dst []byte, f *field, v protoreflect.Value, depth int) ([]byte, error) {
	dst = protowire.AppendTag(dst, f.number, f.wire)
	switch f.kind {
	case protoreflect.StringKind:
		s := v.String()
		if !utf8.ValidString(s) {
			return dst, fmt.Errorf("%w: %s is not UTF-8", ErrNotCanonical, f.desc.Name())
		}
		return protowire.AppendString(dst, s), nil
	case protoreflect.BytesKind:
		return protowire.AppendBytes(dst, v.Bytes()), nil
	case protoreflect.MessageKind:
		start := len(dst)
		dst = append(dst, 0)
		dst, err := appendMessage(dst, v.Message(), f.message(), depth-1)
		return putLength(dst, start), err
	case protoreflect.GroupKind:
		return dst, fmt.Errorf("%w: %s is a group", ErrNotCanonical, f.desc.Name())
	default:
		return appendScalar(dst, f.kind, v), nil
	}
}

// putLength writes into dst[start] how many bytes follow it, and makes room where
// one byte is not enough.
func putLength(dst []byte, start int) []byte {
	n := len(dst) - start - 1
	if n < 0x80 {
		dst[start] = byte(n)
		return dst
	}
	extra := protowire.SizeVarint(uint64(n)) - 1
	dst = append(dst, make([]byte, extra)...)
	copy(dst[start+1+extra:], dst[start+1:start+1+n])
	protowire.AppendVarint(dst[:start], uint64(n))
	return dst
}

func appendPacked(dst []byte, f *field, l protoreflect.List) []byte {
	if l.Len() == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, f.number, protowire.BytesType)
	start := len(dst)
	dst = append(dst, 0)
	for i := range l.Len() {
		dst = appendScalar(dst, f.kind, l.Get(i))
	}
	return putLength(dst, start)
}

func appendMap(dst []byte, f *field, m protoreflect.Map, depth int) ([]byte, error) {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return compareKeys(f.key.kind, a.Value(), b.Value()) })
	var err error
	for _, k := range keys {
		dst = protowire.AppendTag(dst, f.number, protowire.BytesType)
		start := len(dst)
		dst = append(dst, 0)
		if dst, err = appendTagged(dst, f.key, k.Value(), depth); err != nil {
			return dst, err
		}
		if dst, err = appendTagged(dst, f.value, m.Get(k), depth-1); err != nil {
			return dst, err
		}
		dst = putLength(dst, start)
	}
	return dst, nil
}

// compareKeys orders map keys: numbers by value, strings by bytes, false first.
func compareKeys(k protoreflect.Kind, a, b protoreflect.Value) int {
	switch k {
	case protoreflect.BoolKind:
		return cmp.Compare(protowire.EncodeBool(a.Bool()), protowire.EncodeBool(b.Bool()))
	case protoreflect.StringKind:
		return cmp.Compare(a.String(), b.String())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return cmp.Compare(a.Uint(), b.Uint())
	default:
		return cmp.Compare(a.Int(), b.Int())
	}
}

func appendScalar(dst []byte, k protoreflect.Kind, v protoreflect.Value) []byte {
	switch k {
	case protoreflect.BoolKind:
		return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool()))
	case protoreflect.EnumKind:
		return protowire.AppendVarint(dst, uint64(v.Enum())) //nolint:gosec // sign extension is the encoding
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return protowire.AppendVarint(dst, uint64(v.Int())) //nolint:gosec // sign extension is the encoding
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(dst, protowire.EncodeZigZag(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return protowire.AppendVarint(dst, v.Uint())
	case protoreflect.Fixed32Kind:
		return protowire.AppendFixed32(dst, uint32(v.Uint())) //nolint:gosec // 32 bits by type
	case protoreflect.Fixed64Kind:
		return protowire.AppendFixed64(dst, v.Uint())
	case protoreflect.Sfixed32Kind:
		return protowire.AppendFixed32(dst, uint32(v.Int())) //nolint:gosec // 32 bits by type
	case protoreflect.Sfixed64Kind:
		return protowire.AppendFixed64(dst, uint64(v.Int())) //nolint:gosec // the bits are the encoding
	case protoreflect.FloatKind:
		return protowire.AppendFixed32(dst, floatBits(v.Float()))
	default: // DoubleKind: the kinds of length-delimited values do not come here
		return protowire.AppendFixed64(dst, doubleBits(v.Float()))
	}
}

// The one NaN of each width: quiet, positive, without a payload (IEEE 754-2019,
// section 6.2). Which other one comes out of a conversion is the processor's choice.
const (
	nan32 = 0x7fc0_0000
	nan64 = 0x7ff8_0000_0000_0000
)

func floatBits(v float64) uint32 {
	if math.IsNaN(v) {
		return nan32
	}
	return math.Float32bits(float32(v))
}

func doubleBits(v float64) uint64 {
	if math.IsNaN(v) {
		return nan64
	}
	return math.Float64bits(v)
}
