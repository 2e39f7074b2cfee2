// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"buf.build/go/protovalidate"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// mostEnvelopeBytes bounds an envelope in a file, arguments included.
const mostEnvelopeBytes = 16 << 20

// ReadEnvelope reads an envelope from JSON, strictly: names are the proto's own,
// each at most once; null stands for nothing; nothing follows. In the place of
// args stands the JSON value itself, which is kept as it is written.
func ReadEnvelope(data []byte) (*writv1.Envelope, error) {
	if len(data) > mostEnvelopeBytes {
		return nil, fmt.Errorf("the envelope has more than %d bytes", mostEnvelopeBytes)
	}
	envelope := &writv1.Envelope{}
	decoder := jsontext.NewDecoder(bytes.NewReader(data))
	if err := readObject(decoder, envelope.ProtoReflect()); err != nil {
		return nil, fmt.Errorf("reading the envelope at %q, byte %d: %w", decoder.StackPointer(), decoder.InputOffset(), err)
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the envelope: something follows it at byte %d", decoder.InputOffset())
	}
	if err := protovalidate.Validate(envelope); err != nil {
		return nil, fmt.Errorf("reading the envelope: %w", err)
	}
	if size := proto.Size(envelope) - proto.Size(envelope.GetToolCall().GetArgs()); size > policy.MaxEnvelopeBytes {
		return nil, fmt.Errorf("reading the envelope: it has %d bytes beside its arguments, and %d are allowed", size, policy.MaxEnvelopeBytes)
	}
	return envelope, nil
}

// readObject reads one JSON object into message.
func readObject(decoder *jsontext.Decoder, message protoreflect.Message) error {
	if kind := decoder.PeekKind(); kind != '{' {
		return unexpected(decoder, "an object")
	}
	if _, err := decoder.ReadToken(); err != nil {
		return err
	}
	fields := message.Descriptor().Fields()
	for decoder.PeekKind() == '"' {
		name, err := decoder.ReadToken()
		if err != nil {
			return err
		}
		field := fields.ByName(protoreflect.Name(name.String()))
		if field == nil {
			return fmt.Errorf("%s has no such field", message.Descriptor().Name())
		}
		if err := readMember(decoder, message, field); err != nil {
			return err
		}
	}
	_, err := decoder.ReadToken()
	return err
}

func readMember(decoder *jsontext.Decoder, message protoreflect.Message, field protoreflect.FieldDescriptor) error {
	switch {
	case field.IsList():
		return readArray(decoder, message.Mutable(field).List(), field)
	case field.Message() == nil || field.Message().FullName() == "google.protobuf.Timestamp":
		value, err := readScalar(decoder, field)
		if err != nil {
			return err
		}
		message.Set(field, value)
		return nil
	case field.Message().FullName() == jsonName:
		text, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		message.Set(field, protoreflect.ValueOfMessage((&writv1.Json{Text: bytes.Clone(text)}).ProtoReflect()))
		return nil
	default:
		return readObject(decoder, message.Mutable(field).Message())
	}
}

func readArray(decoder *jsontext.Decoder, list protoreflect.List, field protoreflect.FieldDescriptor) error {
	if decoder.PeekKind() != '[' {
		return unexpected(decoder, "an array")
	}
	if _, err := decoder.ReadToken(); err != nil {
		return err
	}
	for kind := decoder.PeekKind(); kind != ']' && kind != 0; kind = decoder.PeekKind() {
		if field.Message() != nil {
			if err := readObject(decoder, list.AppendMutable().Message()); err != nil {
				return err
			}
			continue
		}
		value, err := readScalar(decoder, field)
		if err != nil {
			return err
		}
		list.Append(value)
	}
	_, err := decoder.ReadToken()
	return err
}

// unexpected reads on for the syntax error there may be, or says what was needed.
func unexpected(decoder *jsontext.Decoder, needed string) error {
	if _, err := decoder.ReadToken(); err != nil {
		return err
	}
	return errors.New(needed + " is needed here")
}

// readScalar reads a string, bytes in base64, a time, a small number or a bool.
func readScalar(decoder *jsontext.Decoder, field protoreflect.FieldDescriptor) (protoreflect.Value, error) {
	none := protoreflect.Value{}
	token, err := decoder.ReadToken()
	if err != nil {
		return none, err
	}
	kind := token.Kind()
	switch {
	case field.Kind() == protoreflect.StringKind && kind == '"':
		return protoreflect.ValueOfString(token.String()), nil
	case field.Kind() == protoreflect.BytesKind && kind == '"':
		text, err := base64.StdEncoding.Strict().DecodeString(token.String())
		return protoreflect.ValueOfBytes(text), err
	case field.Kind() == protoreflect.MessageKind && kind == '"':
		at, err := time.Parse(time.RFC3339Nano, token.String())
		return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), err
	case field.Kind() == protoreflect.Uint32Kind && kind == '0':
		number, err := strconv.ParseUint(token.String(), 10, 32)
		return protoreflect.ValueOfUint32(uint32(number)), err
	case field.Kind() == protoreflect.BoolKind && (kind == 't' || kind == 'f'):
		return protoreflect.ValueOfBool(token.Bool()), nil
	}
	return none, errors.New("a value of another type is needed here")
}
