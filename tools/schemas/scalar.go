// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// parse reads the text of a scalar, by the one rule for JSON, paths and queries.
func (f *field) parse(text string) (protoreflect.Value, *reasons.Error) {
	switch f.form {
	case formTimestamp, formDuration:
		return f.parseTime(text)
	case formWrapper:
		value, refusal := f.mapValue.parse(text)
		if refusal != nil {
			return value, refusal
		}
		wrapper := dynamicpb.NewMessage(f.descriptor.Message())
		wrapper.Set(f.mapValue.descriptor, value)
		return protoreflect.ValueOfMessage(wrapper), nil
	}
	switch f.kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		if text == "true" || text == "false" {
			return protoreflect.ValueOfBool(text == "true"), nil
		}
	case protoreflect.EnumKind:
		if number, ok := f.names[text]; ok {
			return protoreflect.ValueOfEnum(number), nil
		}
	case protoreflect.BytesKind:
		if value, ok := decodeBase64(text); ok {
			return protoreflect.ValueOfBytes(value), nil
		}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return f.parseFloat(text)
	default:
		return f.parseInteger(text)
	}
	return protoreflect.Value{}, f.misshapen()
}

// misshapen says that a text of the right class is not in the type's one form.
func (f *field) misshapen() *reasons.Error {
	return reasons.New(writv1.Reason_REASON_SCHEMA_TYPE_MISMATCH, "", "expected %s, found another text", f.expected())
}

func (f *field) outOfRange() *reasons.Error {
	return reasons.New(writv1.Reason_REASON_SCHEMA_NUMBER_OUT_OF_RANGE, "", "expected %s, found one that does not fit without loss", f.expected())
}

// parseInteger reads decimal digits without fraction, exponent or leading zero.
func (f *field) parseInteger(text string) (protoreflect.Value, *reasons.Error) {
	digits := strings.TrimPrefix(text, "-")
	if !isDigits(digits) || digits[0] == '0' && len(digits) > 1 {
		return protoreflect.Value{}, f.misshapen()
	}
	if digits == "0" {
		text = digits
	}
	var err error
	var value protoreflect.Value
	switch f.kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		var n int64
		n, err = strconv.ParseInt(text, 10, 32)
		value = protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		var n uint64
		n, err = strconv.ParseUint(text, 10, 32)
		value = protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		var n int64
		n, err = strconv.ParseInt(text, 10, 64)
		value = protoreflect.ValueOfInt64(n)
	default:
		var n uint64
		n, err = strconv.ParseUint(text, 10, 64)
		value = protoreflect.ValueOfUint64(n)
	}
	if err != nil {
		return protoreflect.Value{}, f.outOfRange()
	}
	return value, nil
}

func isDigits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// parseFloat reads a JSON number whose decimal value is that of the shortest text
// of the float it gives: 0.1 is read, and one with more digits than the type can
// tell apart is not.
func (f *field) parseFloat(text string) (protoreflect.Value, *reasons.Error) {
	if !isNumber(text) {
		return protoreflect.Value{}, f.misshapen()
	}
	bits := 64
	if f.kind == protoreflect.FloatKind {
		bits = 32
	}
	number, err := strconv.ParseFloat(text, bits)
	if err != nil {
		return protoreflect.Value{}, f.outOfRange()
	}
	given, ok := decimalOf(text)
	shortest, _ := decimalOf(strconv.FormatFloat(number, 'e', -1, bits))
	if !ok || given != shortest {
		return protoreflect.Value{}, f.outOfRange()
	}
	if number == 0 {
		number = 0 // -0 is 0
	}
	if bits == 32 {
		return protoreflect.ValueOfFloat32(float32(number)), nil
	}
	return protoreflect.ValueOfFloat64(number), nil
}

// isNumber reports whether text has the grammar of a JSON number; in a query it
// may not.
func isNumber(text string) bool {
	text = strings.TrimPrefix(text, "-")
	mantissa, exponent, scaled := cutExponent(text)
	whole, fraction, dotted := strings.Cut(mantissa, ".")
	exponent = strings.TrimPrefix(exponent, "+")
	exponent = strings.TrimPrefix(exponent, "-")
	return isDigits(whole) && (whole[0] != '0' || len(whole) == 1) &&
		(!dotted || isDigits(fraction)) && (!scaled || isDigits(exponent))
}

func cutExponent(text string) (string, string, bool) {
	at := strings.IndexAny(text, "eE")
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+1:], true
}

// decimal is a decimal number: 0.digits times ten to the exponent.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

// decimalOf reads a number into its one decimal form.
func decimalOf(text string) (decimal, bool) {
	var d decimal
	text, d.negative = strings.CutPrefix(text, "-")
	mantissa, exponent, scaled := cutExponent(text)
	if scaled {
		n, err := strconv.Atoi(exponent)
		if err != nil || n > math.MaxInt32 || n < math.MinInt32 {
			return d, false
		}
		d.exponent = n
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	d.exponent += len(whole)
	all := whole + fraction
	significant := strings.TrimLeft(all, "0")
	d.exponent -= len(all) - len(significant)
	d.digits = strings.TrimRight(significant, "0")
	if d.digits == "" {
		return decimal{}, true
	}
	return d, true
}

// decodeBase64 reads padded standard base64 in its one form.
func decodeBase64(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false // which Go's decoder passes over
	}
	value, err := base64.StdEncoding.Strict().DecodeString(text)
	return value, err == nil
}
