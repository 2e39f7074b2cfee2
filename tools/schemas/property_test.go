// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/tools/schemas"
)

// drawn fills a message with values of its kinds.
func drawn(t *rapid.T, descriptor protoreflect.MessageDescriptor, depth int) protoreflect.Message {
	message := dynamicpb.NewMessage(descriptor)
	switch descriptor.FullName() {
	case "google.protobuf.Timestamp":
		setTime(message, rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), rapid.Int32Range(0, 999999999).Draw(t, "nanos"))
		return message
	case "google.protobuf.Duration":
		sign := rapid.SampledFrom([]int64{-1, 1}).Draw(t, "sign")
		setTime(message, sign*rapid.Int64Range(0, 315575999999).Draw(t, "seconds"), int32(sign)*rapid.Int32Range(0, 999999999).Draw(t, "nanos"))
		return message
	}
	for i := range descriptor.Fields().Len() {
		field := descriptor.Fields().Get(i)
		if rapid.IntRange(0, 3).Draw(t, string(field.Name())) > 0 || field.Message() != nil && depth == 0 {
			continue
		}
		switch {
		case field.IsMap():
			entries := message.Mutable(field).Map()
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				entries.Set(value(t, field.MapKey(), depth-1).MapKey(), value(t, field.MapValue(), depth-1))
			}
		case field.IsList():
			list := message.Mutable(field).List()
			for range rapid.IntRange(0, 3).Draw(t, "elements") {
				list.Append(value(t, field, depth-1))
			}
		default:
			message.Set(field, value(t, field, depth-1))
		}
	}
	return message
}

func setTime(message protoreflect.Message, seconds int64, nanos int32) {
	fields := message.Descriptor().Fields()
	message.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(seconds))
	message.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(nanos))
}

func value(t *rapid.T, field protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind:
		values := field.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rapid.IntRange(0, values.Len()-1).Draw(t, "enum")).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(rapid.Float32().Draw(t, "float") + 0)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, "double") + 0)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	default:
		return protoreflect.ValueOfMessage(drawn(t, field.Message(), depth))
	}
}

func TestWhatIsWrittenIsReadBackTheSame(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	rapid.Check(t, func(t *rapid.T) {
		message := drawn(t, every.Descriptor(), 2)
		text := every.Append(nil, message)
		if !json.Valid(text) {
			t.Fatalf("not JSON: %s", text)
		}
		back, err := every.Read(text, nil, schemas.Limits{})
		if err != nil {
			t.Fatalf("Read(%s): %v", text, err)
		}
		if !proto.Equal(message.Interface(), back.Interface()) {
			t.Fatalf("read back another message from %s", text)
		}
		if again := every.Append(nil, back); !bytes.Equal(text, again) {
			t.Fatalf("written again as %s, want %s", again, text)
		}
	})
}

func FuzzRead(f *testing.F) {
	every := typeOf(f, "kinds.v1.Every")
	for _, seed := range []string{
		`{}`, `{"i32":1,"text":"\u00e4"}`, `{"text":"a","text":"b"}`, `{"by_text":{"a":"1","\u0061":"2"}}`,
		`{"inner":{"inners":[{"real":1.5e-7}]},"at":"2026-01-01T00:00:00.5Z"}`, `{"text":"\ud800"}`, `[[[[`, `{"i64":-0}`,
		`{"took":"-1.5s","data":"AQI=","boxed_real":1e-320,"by_flag":{"true":{}}}`, `{"given-name":"x"} `, "{\"text\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		message, err := every.Read(text, nil, schemas.Limits{})
		if err != nil {
			return
		}
		if err := schemas.Check(text, schemas.Limits{}); err != nil {
			t.Fatalf("Check refuses what Read takes: %v", err)
		}
		if hasTwins(json.NewDecoder(bytes.NewReader(text))) {
			t.Fatalf("a key occurs twice in %q", text)
		}
		written := every.Append(nil, message)
		back, err := every.Read(written, nil, schemas.Limits{})
		if err != nil || !proto.Equal(message.Interface(), back.Interface()) {
			t.Fatalf("%q was written as %q, which reads as another message: %v", text, written, err)
		}
		agree(t, text, message)
	})
}

// agree holds a reading against that of protojson, which takes more.
func agree(t *testing.T, text []byte, message protoreflect.Message) {
	t.Helper()
	if bytes.Contains(text, []byte("given-name")) || bytes.Contains(text, []byte("-0")) {
		return // a dash in a name is ours, and protojson keeps the sign of zero
	}
	other := dynamicpb.NewMessage(message.Descriptor())
	if err := protojson.Unmarshal(text, other); err != nil {
		t.Fatalf("protojson refuses %q: %v", text, err)
	}
	if !proto.Equal(other, message.Interface()) {
		t.Fatalf("protojson reads another message from %q", text)
	}
}

// hasTwins reports whether an object of the text has a key twice.
func hasTwins(decoder *json.Decoder) bool {
	decoder.UseNumber()
	token, err := decoder.Token()
	delim, composite := token.(json.Delim)
	if err != nil || !composite {
		return false
	}
	seen := make(map[string]bool)
	for decoder.More() {
		if delim == '{' {
			key, err := decoder.Token()
			if err != nil {
				return false
			}
			if seen[key.(string)] {
				return true
			}
			seen[key.(string)] = true
		}
		if hasTwins(decoder) {
			return true
		}
	}
	_, err = decoder.Token()
	return err != nil
}
