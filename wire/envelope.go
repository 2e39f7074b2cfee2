// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"strconv"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxEnvelopeBytes bounds the claims that come with a call.
const maxEnvelopeBytes = 65536

var (
	errNull   = errors.New("null stands for nothing")
	errShape  = errors.New("another type of value is needed")
	errField  = errors.New("there is no such field")
	errPlaced = errors.New("the name and the arguments stand in the request itself")
)

// decoders are used again: one begins with a buffer of its own.
var decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(bytes.NewReader(nil)) }}

// readEnvelope reads claims: writ.v1.Envelope as JSON, where tool_call may hold
// "policy_checks" and "approved" only. Names are the proto's own, no value has a
// second form, and null is refused. What the rules of the message forbid is
// refused too.
func readEnvelope(text []byte) (*writv1.Envelope, *reasons.Error) {
	if len(text) > maxEnvelopeBytes {
		return nil, reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "envelope", "the envelope has more than %d bytes", maxEnvelopeBytes)
	}
	envelope := &writv1.Envelope{}
	decoder := decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(decoder)
	decoder.Reset(bytes.NewReader(text))
	err := readMessage(decoder, envelope.ProtoReflect())
	if err == nil {
		err = atEnd(decoder)
	}
	if err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "envelope", "the envelope is not writ.v1.Envelope in JSON")
	}
	if call := envelope.GetToolCall(); call != nil && (call.GetName() != "" || call.Args != nil) {
		return nil, reasons.Wrap(errPlaced, writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "envelope.tool_call", "the tool's name and arguments stand in the request itself")
	}
	if err := protovalidate.Validate(envelope); err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "envelope", "the envelope breaks the rules of writ.v1.Envelope")
	}
	return envelope, nil
}

// atEnd refuses whatever follows a value.
func atEnd(decoder *jsontext.Decoder) error {
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return errShape
	}
	return nil
}

// readMessage reads one JSON object into message.
func readMessage(decoder *jsontext.Decoder, message protoreflect.Message) error {
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != '{' {
		return errors.Join(err, errShape)
	}
	fields := message.Descriptor().Fields()
	for decoder.PeekKind() == '"' {
		name, err := decoder.ReadToken()
		if err != nil {
			return err
		}
		field := fields.ByName(protoreflect.Name(name.String()))
		if field == nil {
			return errField
		}
		if err := readField(decoder, message, field); err != nil {
			return err
		}
	}
	_, err := decoder.ReadToken()
	return err
}

func readField(decoder *jsontext.Decoder, message protoreflect.Message, field protoreflect.FieldDescriptor) error {
	switch {
	case decoder.PeekKind() == 'n':
		return errNull
	case field.IsList():
		return readList(decoder, message, field)
	case field.Message() != nil && field.Message().FullName() != "google.protobuf.Timestamp":
		return readMessage(decoder, message.Mutable(field).Message())
	}
	value, err := readScalar(decoder, field)
	if err != nil {
		return err
	}
	message.Set(field, value)
	return nil
}

func readList(decoder *jsontext.Decoder, message protoreflect.Message, field protoreflect.FieldDescriptor) error {
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != '[' {
		return errors.Join(err, errShape)
	}
	list := message.Mutable(field).List()
	for decoder.PeekKind() != ']' {
		if field.Message() != nil {
			if err := readMessage(decoder, list.AppendMutable().Message()); err != nil {
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

// readScalar reads a string, bytes in base64, a time, a small number or a bool.
func readScalar(decoder *jsontext.Decoder, field protoreflect.FieldDescriptor) (protoreflect.Value, error) {
	none := protoreflect.Value{}
	token, err := decoder.ReadToken()
	if err != nil {
		return none, err
	}
	switch {
	case field.Kind() == protoreflect.StringKind && token.Kind() == '"':
		return protoreflect.ValueOfString(token.String()), nil
	case field.Kind() == protoreflect.BytesKind && token.Kind() == '"':
		text, err := base64.StdEncoding.Strict().DecodeString(token.String())
		return protoreflect.ValueOfBytes(text), err
	case field.Kind() == protoreflect.MessageKind && token.Kind() == '"':
		at, err := time.Parse(time.RFC3339Nano, token.String())
		return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), err
	case field.Kind() == protoreflect.Uint32Kind && token.Kind() == '0':
		number, err := strconv.ParseUint(token.String(), 10, 32)
		return protoreflect.ValueOfUint32(uint32(min(number, math.MaxUint32))), err
	case field.Kind() == protoreflect.BoolKind && (token.Kind() == 't' || token.Kind() == 'f'):
		return protoreflect.ValueOfBool(token.Bool()), nil
	}
	return none, errShape
}
