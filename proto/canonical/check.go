// SPDX-License-Identifier: Apache-2.0

package canonical

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkMessage walks the bytes of one message. It reads no value that it does not
// need and allocates nothing for bytes that are canonical.
func checkMessage(b []byte, p *plan, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: nested deeper than %d", ErrNotCanonical, maxDepth)
	}
	var (
		last   protowire.Number
		oneofs uint64
		mapKey []byte // key of the last entry of the map field we are in
	)
	for len(b) > 0 {
		f, rest, err := nextTag(b, p)
		if err != nil {
			return err
		}
		switch {
		case f.number < last:
			return refuse(f, "out of order")
		case f.number == last && (f.packed || !f.list && !f.isMap):
			return refuse(f, "written twice")
		case f.number != last:
			mapKey = nil
		}
		last = f.number
		if f.oneof > 0 {
			bit := uint64(1) << (f.oneof % 64)
			if oneofs&bit != 0 {
				return refuse(f, "second member of a oneof")
			}
			oneofs |= bit
		}
		value, after, err := takeValue(f, rest)
		if err != nil {
			return err
		}
		if f.isMap {
			if mapKey, err = checkEntry(f, value, mapKey, depth-1); err != nil {
				return err
			}
		} else if err := checkValue(f, value, depth); err != nil {
			return err
		}
		b = after
	}
	return nil
}

func refuse(f *field, why string) error {
	return fmt.Errorf("%w: field %d: %s", ErrNotCanonical, f.number, why)
}

// nextTag reads a tag, and finds its field.
func nextTag(b []byte, p *plan) (*field, []byte, error) {
	tag, n := shortestVarint(b)
	if n == 0 {
		return nil, nil, fmt.Errorf("%w: bad tag", ErrNotCanonical)
	}
	number, wire := protowire.DecodeTag(tag)
	f := p.find(number)
	if f == nil {
		return nil, nil, fmt.Errorf("%w: unknown field %d", ErrNotCanonical, number)
	}
	if wire != f.framed {
		return nil, nil, refuse(f, "wrong wire type")
	}
	return f, b[n:], nil
}

// shortestVarint reads a varint, and returns 0 bytes for one that is not the shortest.
func shortestVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 { // nearly all tags and lengths
		return uint64(b[0]), 1
	}
	v, n = protowire.ConsumeVarint(b)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, 0
	}
	return v, n
}

// takeValue cuts the bytes of what stands in a message, without its length, off b.
func takeValue(f *field, b []byte) (value, rest []byte, err error) {
	return takeAs(f, f.framed, b)
}

func takeAs(f *field, wire protowire.Type, b []byte) (value, rest []byte, err error) {
	n := 0
	switch wire {
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.VarintType:
		if _, n = shortestVarint(b); n == 0 {
			return nil, nil, refuse(f, "bad varint")
		}
	case protowire.BytesType:
		v, m := shortestVarint(b)
		if m == 0 {
			return nil, nil, refuse(f, "bad length")
		}
		b = b[m:]
		if v > uint64(len(b)) {
			return nil, nil, refuse(f, "truncated")
		}
		n = int(v) //nolint:gosec // not above len(b)
	default:
		return nil, nil, refuse(f, "is a group")
	}
	if n > len(b) {
		return nil, nil, refuse(f, "truncated")
	}
	return b[:n], b[n:], nil
}

func checkValue(f *field, v []byte, depth int) error {
	switch {
	case f.packed:
		return checkPacked(f, v)
	case f.kind == protoreflect.MessageKind:
		return checkMessage(v, f.message(), depth-1)
	case f.kind == protoreflect.StringKind && !utf8.Valid(v):
		return refuse(f, "not UTF-8")
	case f.wire != protowire.BytesType && !inRange(f.kind, v):
		return refuse(f, "out of range")
	case !f.presence && !f.list && isDefault(v, f.wire):
		return refuse(f, "default written")
	default:
		return nil
	}
}

func isDefault(v []byte, wire protowire.Type) bool {
	if wire == protowire.BytesType {
		return len(v) == 0
	}
	for _, c := range v {
		if c != 0 {
			return false
		}
	}
	return true
}

// inRange says whether the scalar v, whose form is known to be right, is one that
// a writer of the kind makes.
func inRange(k protoreflect.Kind, v []byte) bool {
	switch k {
	case protoreflect.FloatKind:
		bits, _ := protowire.ConsumeFixed32(v)
		return floatBits(float64(math.Float32frombits(bits))) == bits
	case protoreflect.DoubleKind:
		bits, _ := protowire.ConsumeFixed64(v)
		return doubleBits(math.Float64frombits(bits)) == bits
	}
	u, _ := shortestVarint(v)
	switch k {
	case protoreflect.BoolKind:
		return u <= 1
	case protoreflect.Uint32Kind, protoreflect.Sint32Kind:
		return u <= math.MaxUint32
	case protoreflect.Int32Kind, protoreflect.EnumKind:
		i := int64(u) //nolint:gosec // sign extension is the encoding
		return i >= math.MinInt32 && i <= math.MaxInt32
	default:
		return true
	}
}

func checkPacked(f *field, v []byte) error {
	if len(v) == 0 {
		return refuse(f, "empty")
	}
	for len(v) > 0 {
		item, rest, err := takeAs(f, f.wire, v)
		if err != nil {
			return err
		}
		if !inRange(f.kind, item) {
			return refuse(f, "out of range")
		}
		v = rest
	}
	return nil
}

// checkEntry checks one entry of a map, which has a key above last, and returns
// that key.
func checkEntry(f *field, b, last []byte, depth int) ([]byte, error) {
	var parts [2][]byte
	for i, part := range []*field{f.key, f.value} {
		tag, n := protowire.ConsumeVarint(b)
		if n < 0 || tag != protowire.EncodeTag(part.number, part.wire) || n != protowire.SizeVarint(tag) {
			return nil, refuse(f, "bad map entry")
		}
		value, rest, err := takeValue(part, b[n:])
		if err != nil {
			return nil, err
		}
		if err := checkValue(part, value, depth+1); err != nil {
			return nil, err
		}
		parts[i], b = value, rest
	}
	if len(b) > 0 {
		return nil, refuse(f, "bad map entry")
	}
	if last != nil && compareRawKeys(f.key.kind, last, parts[0]) >= 0 {
		return nil, refuse(f, "map keys out of order")
	}
	if parts[0] == nil {
		parts[0] = []byte{}
	}
	return parts[0], nil
}

// compareRawKeys orders map keys as compareKeys does, from their encodings.
func compareRawKeys(k protoreflect.Kind, a, b []byte) int {
	switch k {
	case protoreflect.StringKind:
		return bytes.Compare(a, b)
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		x, _ := protowire.ConsumeFixed32(a)
		y, _ := protowire.ConsumeFixed32(b)
		if k == protoreflect.Sfixed32Kind {
			return cmp.Compare(int32(x), int32(y)) //nolint:gosec // the bits are the encoding
		}
		return cmp.Compare(x, y)
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		x, _ := protowire.ConsumeFixed64(a)
		y, _ := protowire.ConsumeFixed64(b)
		if k == protoreflect.Sfixed64Kind {
			return cmp.Compare(int64(x), int64(y)) //nolint:gosec // the bits are the encoding
		}
		return cmp.Compare(x, y)
	}
	x, _ := protowire.ConsumeVarint(a)
	y, _ := protowire.ConsumeVarint(b)
	switch k {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return cmp.Compare(protowire.DecodeZigZag(x), protowire.DecodeZigZag(y))
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return cmp.Compare(int64(x), int64(y)) //nolint:gosec // the bits are the encoding
	default:
		return cmp.Compare(x, y)
	}
}
