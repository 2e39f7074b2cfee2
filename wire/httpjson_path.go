// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"unicode/utf8"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

const (
	// maxPathBytes bounds a path with its query.
	maxPathBytes = 8192
	// maxQueryKeys bounds the keys of a query.
	maxQueryKeys = 128
)

func ambiguous(what string) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_DECODE_PATH_AMBIGUOUS, "", "the path or query can be read in two ways: %s", what)
}

// plainPath refuses a path that two servers could take for different ones:
// decoded twice or not at all, with dot segments, empty segments, matrix
// parameters or a backslash.
func plainPath(path string) *reasons.Error {
	if len(path) > maxPathBytes {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the path has more than %d bytes", maxPathBytes)
	}
	if !strings.HasPrefix(path, "/") {
		return ambiguous("it does not begin with a slash")
	}
	if path == "/" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		decoded, refusal := decodePart(segment, false)
		switch {
		case refusal != nil:
			return refusal
		case decoded == "" || decoded == "." || decoded == "..":
			return ambiguous("an empty segment or a dot segment")
		case strings.ContainsAny(decoded, `/\;`):
			return ambiguous("an encoded slash, a backslash or a semicolon")
		}
	}
	return nil
}

// readQuery decodes a query once; every key occurs once.
func readQuery(query string) ([]schemas.Param, *reasons.Error) {
	if query == "" {
		return nil, nil
	}
	if len(query) > maxPathBytes || strings.Count(query, "&") >= maxQueryKeys {
		return nil, reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the query has more than %d bytes or %d keys", maxPathBytes, maxQueryKeys)
	}
	var params []schemas.Param
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(query, "&") {
		rawKey, rawValue, found := strings.Cut(pair, "=")
		key, refusal := decodePart(rawKey, true)
		value, refusalOfValue := decodePart(rawValue, true)
		switch {
		case refusal != nil || refusalOfValue != nil:
			return nil, first(refusal, refusalOfValue)
		case !found || key == "" || strings.Contains(pair, ";"):
			return nil, ambiguous("a pair that is not one key and one value")
		case seen[key]:
			return nil, ambiguous("a repeated key")
		}
		seen[key] = true
		params = append(params, schemas.Param{Field: key, Value: value})
	}
	return params, nil
}

// decodePart decodes percent escapes once. In a query "+" is a space (the form
// encoding). What could be decoded again, control characters and bytes that are
// not UTF-8 (overlong forms too) are refused.
func decodePart(part string, form bool) (string, *reasons.Error) {
	var decoded strings.Builder
	decoded.Grow(len(part))
	for i := 0; i < len(part); i++ {
		switch c := part[i]; {
		case c == '%':
			if i+2 >= len(part) || hex(part[i+1]) < 0 || hex(part[i+2]) < 0 {
				return "", ambiguous("a broken percent escape")
			}
			decoded.WriteByte(byte(hex(part[i+1])<<4 | hex(part[i+2])))
			i += 2
		case c == '+' && form:
			decoded.WriteByte(' ')
		case c <= ' ' || c >= 0x7f || strings.IndexByte("#\\\"<>^`{|}", c) >= 0:
			return "", ambiguous("a character that must be escaped")
		default:
			decoded.WriteByte(c)
		}
	}
	text := decoded.String()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", ambiguous("control characters or invalid UTF-8")
	}
	if escaped(text) {
		return "", ambiguous("an escape within an escape")
	}
	return text, nil
}

// escaped reports whether text holds what looks like a percent escape.
func escaped(text string) bool {
	for i := 0; i+2 < len(text); i++ {
		if text[i] == '%' && hex(text[i+1]) >= 0 && hex(text[i+2]) >= 0 {
			return true
		}
	}
	return false
}

// hex returns the value of a hexadecimal digit, or -1.
func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
