// SPDX-License-Identifier: Apache-2.0

package canonical_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// prototypes are the types that the properties are tried on: all kinds of fields
// that the contract has, and those of the well-known types.
var prototypes = []proto.Message{
	&writv1.Record{}, &writv1.DecisionRecord{}, &writv1.OutcomeRecord{}, &writv1.StartRecord{},
	&writv1.Decision{}, &writv1.Facts{}, &writv1.TestSuite{}, &writv1.SyncRequest{},
	&structpb.Struct{}, &wrapperspb.DoubleValue{}, &wrapperspb.FloatValue{}, &timestamppb.Timestamp{},
}

func TestBytesThatAreNotCanonicalAreRefused(t *testing.T) {
	t.Parallel()
	tag := func(n protowire.Number, w protowire.Type) []byte { return protowire.AppendTag(nil, n, w) }
	str := func(n protowire.Number, s string) []byte {
		return protowire.AppendString(tag(n, protowire.BytesType), s)
	}
	varint := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(tag(n, protowire.VarintType), v)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, tc := range []struct {
		name string
		into proto.Message
		in   []byte
	}{
		{"fields out of order", &writv1.StartRecord{}, join(str(2, "b"), str(1, "a"))},
		{"a field written twice", &writv1.StartRecord{}, join(str(1, "a"), str(1, "a"))},
		{"an unknown field", &writv1.StartRecord{}, str(99, "x")},
		{"an empty string written", &writv1.StartRecord{}, str(1, "")},
		{"a zero integer written", &writv1.StartRecord{}, varint(3, 0)},
		{"a zero fixed64 written", &writv1.Record{}, protowire.AppendFixed64(tag(2, protowire.Fixed64Type), 0)},
		{"a false written", &writv1.ToolCall{}, varint(4, 0)},
		{"a true of 2", &writv1.ToolCall{}, varint(4, 2)},
		{"a long varint", &writv1.StartRecord{}, append(tag(3, protowire.VarintType), 0x81, 0x00)},
		{"a long length", &writv1.StartRecord{}, append(tag(1, protowire.BytesType), 0x81, 0x00, 'a')},
		{"a long tag", &writv1.StartRecord{}, []byte{0x98, 0x00, 0x01}},
		{"a length past the end", &writv1.StartRecord{}, append(tag(1, protowire.BytesType), 9, 'a')},
		{"a truncated fixed64", &writv1.Record{}, append(tag(2, protowire.Fixed64Type), 1, 2, 3)},
		{"a tag alone", &writv1.StartRecord{}, tag(1, protowire.BytesType)},
		{"another wire type", &writv1.StartRecord{}, str(3, "x")},
		{"a group", &writv1.StartRecord{}, join(tag(1, protowire.StartGroupType), tag(1, protowire.EndGroupType))},
		{"a string that is not UTF-8", &writv1.StartRecord{}, str(1, "\xff")},
		{"a uint32 of 33 bits", &writv1.BundleRecord{}, varint(3, 1<<32)},
		{"an enum of 33 bits", &writv1.Decision{}, varint(1, 1<<32)},
		{"a nested field out of order", &writv1.Decision{}, protowire.AppendBytes(tag(3, protowire.BytesType), join(str(2, "b"), str(1, "a")))},
		{"map keys out of order", &structpb.Struct{}, join(
			protowire.AppendBytes(tag(1, protowire.BytesType), join(str(1, "b"), protowire.AppendBytes(tag(2, protowire.BytesType), nil))),
			protowire.AppendBytes(tag(1, protowire.BytesType), join(str(1, "a"), protowire.AppendBytes(tag(2, protowire.BytesType), nil))))},
		{"a map key twice", &structpb.Struct{}, join(
			protowire.AppendBytes(tag(1, protowire.BytesType), join(str(1, "a"), protowire.AppendBytes(tag(2, protowire.BytesType), nil))),
			protowire.AppendBytes(tag(1, protowire.BytesType), join(str(1, "a"), protowire.AppendBytes(tag(2, protowire.BytesType), nil))))},
		{"a map entry without its value", &structpb.Struct{}, protowire.AppendBytes(tag(1, protowire.BytesType), str(1, "a"))},
		{"two members of a oneof", &structpb.Value{}, join(varint(4, 1), protowire.AppendBytes(tag(5, protowire.BytesType), nil))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := tc.into.ProtoReflect().New().Interface()
			if err := canonical.Unmarshal(tc.in, got); !errors.Is(err, canonical.ErrNotCanonical) {
				t.Errorf("Unmarshal(%x) = %v (message %v), want ErrNotCanonical", tc.in, err, got)
			}
		})
	}
}

func TestMessagesWithoutACanonicalFormAreRefused(t *testing.T) {
	t.Parallel()
	unknown := &writv1.Decision{Checks: []*writv1.Check{{Stage: "grant"}}}
	unknown.Checks[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	deep := structpb.NewNullValue()
	for range 70 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	for name, m := range map[string]proto.Message{
		"an unknown field below":       unknown,
		"a string that is not UTF-8":   &writv1.StartRecord{Version: "\xff"},
		"nested deeper than the limit": deep,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if b, err := canonical.Append([]byte("kept"), m); !errors.Is(err, canonical.ErrNotCanonical) || string(b) != "kept" {
				t.Errorf("Append = %q, %v, want dst as it was and ErrNotCanonical", b, err)
			}
		})
	}
}

func TestEveryMessageComesBackAndAgreesWithTheProtobufModule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom(prototypes).Draw(t, "type").ProtoReflect().New()
		fill(t, m, 3)
		got, err := canonical.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		// Not a promise of that module, but true of the one we link: a difference is
		// a mistake in one of two encoders written apart.
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%v\ngot  %x\nwant %x", m.Interface(), got, want)
		}
		apart := unlinked(t, m.Descriptor())
		if err := proto.Unmarshal(want, apart); err != nil {
			t.Fatal(err)
		}
		// Of a type that is not linked the package's own encoder writes.
		if own, err := canonical.Marshal(apart); err != nil || !bytes.Equal(own, want) {
			t.Fatalf("%v\nown  %x, %v\nwant %x", m.Interface(), own, err, want)
		}
		back := m.New().Interface()
		if err := canonical.Unmarshal(got, back); err != nil {
			t.Fatal(err)
		}
		if again, err := canonical.Marshal(back); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("again = %x, %v, want %x", again, err, got)
		}
	})
}

// unlinked returns a message of a copy of the type, as a bundle brings its own.
func unlinked(t *rapid.T, md protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	file, err := protodesc.NewFile(protodesc.ToFileDescriptorProto(md.ParentFile()), protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(file.Messages().ByName(md.Name()))
}

func FuzzUnmarshal(f *testing.F) {
	for i, m := range prototypes {
		b, err := canonical.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	full := &writv1.Record{LogId: make([]byte, 32), Index: 3, Epoch: 1, Tenant: "acme", Kind: writv1.RecordKind_RECORD_KIND_DECISION, Body: []byte{1}, Commitments: []*writv1.Commitment{{Path: "arguments.iban", Digest: make([]byte, 32)}}}
	b, err := canonical.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(0), b)
	for i, m := range prototypes {
		switch m.(type) {
		case *wrapperspb.FloatValue:
			f.Add(byte(i), []byte("\x0d\x00\x00\xc0\x7f")) // the NaN
			f.Add(byte(i), []byte("\x0d000\x80\xff"))      // a signalling one
		case *wrapperspb.DoubleValue:
			f.Add(byte(i), []byte("\x09\x01\x00\x00\x00\x00\x00\xf8\x7f")) // math.NaN
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		m := prototypes[int(which)%len(prototypes)].ProtoReflect().New().Interface()
		accepted := canonical.Unmarshal(b, m) == nil
		loose := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(b, loose); err != nil {
			if accepted {
				t.Fatalf("accepted %x, which the protobuf module refuses: %v", b, err)
			}
			return
		}
		again, err := canonical.Marshal(loose)
		if (err == nil && bytes.Equal(again, b)) != accepted {
			t.Fatalf("accepted %v: in %x, canonical %x, %v", accepted, b, again, err)
		}
	})
}

// fill sets a random choice of fields of m.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	fds := m.Descriptor().Fields()
	for i := range fds.Len() {
		fd := fds.Get(i)
		if !rapid.Bool().Draw(t, "set") || (depth == 0 && fd.Message() != nil) {
			continue
		}
		switch {
		case fd.IsMap():
			for range rapid.IntRange(0, 4).Draw(t, "entries") {
				v := m.Mutable(fd).Map().NewValue()
				m.Mutable(fd).Map().Set(value(t, fd.MapKey(), protoreflect.Value{}, depth).MapKey(), value(t, fd.MapValue(), v, depth))
			}
		case fd.IsList():
			l := m.Mutable(fd).List()
			for range rapid.IntRange(0, 4).Draw(t, "items") {
				l.Append(value(t, fd, l.NewElement(), depth))
			}
		default:
			m.Set(fd, value(t, fd, m.NewField(fd), depth))
		}
	}
}

func value(t *rapid.T, fd protoreflect.FieldDescriptor, v protoreflect.Value, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(-1, 5).Draw(t, "enum")))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(rapid.Float32().Draw(t, "float"))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, "double"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.StringN(0, 60, 300).Draw(t, "string"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"))
	default:
		fill(t, v.Message(), depth-1)
		return v
	}
}

func sample() *writv1.DecisionRecord {
	d := &writv1.DecisionRecord{
		Surface: writv1.Surface_SURFACE_EXT_AUTHZ, Tool: "payments.issue_refund", SchemaDigest: make([]byte, 32), Identity: make([]byte, 32),
		Principal: &writv1.Principal{Workload: "spiffe://example.org/desk", User: "u-1", Roles: []string{"agent"}, Tenant: "acme"},
		Envelope:  &writv1.Envelope{RequestId: "r-1", Session: "s-1", Intent: "refund", Retrieval: &writv1.Retrieval{KbDocIds: []string{"a", "b"}, TopK: 4}},
		Arguments: bytes.Repeat([]byte("x"), 200), Facts: &writv1.Facts{Time: &timestamppb.Timestamp{Seconds: 1}},
		Decision: &writv1.Decision{Verdict: writv1.Verdict_VERDICT_ALLOW, Reason: writv1.Reason(1)}, Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE,
	}
	for range 10 {
		d.Decision.Checks = append(d.Decision.Checks, &writv1.Check{Stage: "grant", Name: "role_allowed", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS})
	}
	return d
}

func BenchmarkAppend(b *testing.B) {
	m, buf := sample(), make([]byte, 0, 4096)
	b.Run("canonical", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := canonical.Append(buf, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (proto.MarshalOptions{Deterministic: true}).MarshalAppend(buf, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		in, _ := canonical.Marshal(m)
		for b.Loop() {
			if err := canonical.Check(in, m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
