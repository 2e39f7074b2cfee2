// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/writ-dev/writ/proto/reasons"
)

// Bounds of the well-known types (timestamp.proto, duration.proto).
const (
	maxDuration  = 315_576_000_000
	minTimestamp = -62_135_596_800
	maxTimestamp = 253_402_300_799
)

// Numbers of the fields of both messages.
const (
	secondsNumber = 1
	nanosNumber   = 2
)

// parseTime reads a Timestamp or Duration.
func (f *field) parseTime(text string) (protoreflect.Value, *reasons.Error) {
	read := parseTimestamp
	if f.form == formDuration {
		read = parseDuration
	}
	seconds, nanos, ok := read(text)
	if !ok {
		return protoreflect.Value{}, f.misshapen()
	}
	message := dynamicpb.NewMessage(f.descriptor.Message())
	fields := message.Descriptor().Fields()
	message.Set(fields.ByNumber(secondsNumber), protoreflect.ValueOfInt64(seconds))
	message.Set(fields.ByNumber(nanosNumber), protoreflect.ValueOfInt32(nanos))
	return protoreflect.ValueOfMessage(message), nil
}

// parseTimestamp reads "2006-01-02T15:04:05Z", with one to nine digits of fraction
// or none.
func parseTimestamp(text string) (int64, int32, bool) {
	text, utc := strings.CutSuffix(text, "Z")
	text, fraction, dotted := strings.Cut(text, ".")
	nanos, ok := parseFraction(fraction, dotted)
	const layout = "2006-01-02T15:04:05"
	if !utc || !ok || len(text) != len(layout) {
		return 0, 0, false
	}
	at, err := time.Parse(layout, text)
	if err != nil || at.Format(layout) != text || at.Unix() < minTimestamp || at.Unix() > maxTimestamp {
		return 0, 0, false
	}
	return at.Unix(), nanos, true
}

// parseDuration reads decimal seconds with one to nine digits of fraction or none.
func parseDuration(text string) (int64, int32, bool) {
	text, marked := strings.CutSuffix(text, "s")
	text, negative := strings.CutPrefix(text, "-")
	text, fraction, dotted := strings.Cut(text, ".")
	nanos, ok := parseFraction(fraction, dotted)
	if !marked || !ok || !isDigits(text) || text[0] == '0' && len(text) > 1 {
		return 0, 0, false
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds > maxDuration || seconds == maxDuration && nanos > 0 {
		return 0, 0, false
	}
	if negative {
		return -seconds, -nanos, true
	}
	return seconds, nanos, true
}

func parseFraction(digits string, dotted bool) (int32, bool) {
	const most = 9
	if !dotted {
		return 0, true
	}
	if !isDigits(digits) || len(digits) > most {
		return 0, false
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", most-len(digits)), 10, 32)
	return int32(n), err == nil
}

// secondsOf returns what a Timestamp or Duration holds.
func secondsOf(message protoreflect.Message) (int64, int64) {
	fields := message.Descriptor().Fields()
	return message.Get(fields.ByNumber(secondsNumber)).Int(), message.Get(fields.ByNumber(nanosNumber)).Int()
}

// appendTimestamp writes what parseTimestamp reads, without trailing zeros.
func appendTimestamp(dst []byte, message protoreflect.Message) []byte {
	seconds, nanos := secondsOf(message)
	dst = append(dst, '"')
	dst = time.Unix(seconds, nanos).UTC().AppendFormat(dst, "2006-01-02T15:04:05.999999999")
	return append(dst, 'Z', '"')
}

// appendDuration writes what parseDuration reads, without trailing zeros.
func appendDuration(dst []byte, message protoreflect.Message) []byte {
	seconds, nanos := secondsOf(message)
	dst = append(dst, '"')
	if seconds < 0 || nanos < 0 {
		dst = append(dst, '-')
		seconds, nanos = -seconds, -nanos
	}
	dst = strconv.AppendInt(dst, seconds, 10)
	if nanos != 0 {
		digits := strconv.FormatInt(nanos, 10)
		digits = strings.Repeat("0", 9-len(digits)) + digits
		dst = append(append(dst, '.'), strings.TrimRight(digits, "0")...)
	}
	return append(dst, 's', '"')
}
