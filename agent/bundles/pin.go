// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// mostDefinitionBytes and mostDefinitionDepth bound a tool's definition.
	mostDefinitionBytes = 1 << 20
	mostDefinitionDepth = 128
)

// definitionMembers are the members of an MCP tool's definition that its digest
// covers: what a model reads and what types a call. Titles, icons and hints are
// for people's screens.
var definitionMembers = []string{"name", "description", "inputSchema", "outputSchema"}

// DefinitionDigest returns the digest of an MCP tool's definition as the server
// lists it: "sha256:" and the SHA-256, in hexadecimal, of the canonical JSON of
// its name, description, inputSchema and outputSchema, as far as they are there.
// Canonical JSON is RFC 8785's, but with keys by code point. A definition that
// can be read in two ways has no digest: a key twice, a number that a double
// does not hold.
func DefinitionDigest(definition []byte) (string, error) {
	if len(definition) > mostDefinitionBytes {
		return "", fmt.Errorf("the definition has more than %d bytes", mostDefinitionBytes)
	}
	decoder := jsontext.NewDecoder(bytes.NewReader(definition))
	value, err := readTree(decoder, 0)
	if err != nil {
		return "", fmt.Errorf("reading the definition: %w", err)
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return "", errors.New("reading the definition: something follows it")
	}
	object, ok := value.(tree)
	if !ok {
		return "", errors.New("the definition is not an object")
	}
	if name, ok := object["name"].(string); !ok || name == `""` || name[0] != '"' {
		return "", errors.New("the definition has no name")
	}
	covered := tree{}
	for _, member := range definitionMembers {
		if value, ok := object[member]; ok {
			covered[member] = value
		}
	}
	sum := sha256.Sum256(covered.append(nil))
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// tree is a JSON object. Its values are trees, []any, and strings that hold the
// canonical text of anything else.
type tree map[string]any

func (t tree) append(dst []byte) []byte {
	keys := make([]string, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendValue(append(dst, quote(key)+":"...), t[key])
	}
	return append(dst, '}')
}

func appendValue(dst []byte, value any) []byte {
	switch v := value.(type) {
	case tree:
		return v.append(dst)
	case []any:
		dst = append(dst, '[')
		for i, entry := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, entry)
		}
		return append(dst, ']')
	case string:
		return append(dst, v...)
	}
	return dst
}

// quote returns text as a JSON string. Text that the decoder read is UTF-8.
func quote(text string) string {
	quoted, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		return strconv.Quote(text)
	}
	return string(quoted)
}

// readTree reads one value.
func readTree(decoder *jsontext.Decoder, depth int) (any, error) {
	if depth > mostDefinitionDepth {
		return nil, fmt.Errorf("values are nested deeper than %d", mostDefinitionDepth)
	}
	token, err := decoder.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '{':
		return readMembers(decoder, depth)
	case '[':
		return readEntries(decoder, depth)
	case '"':
		return quote(token.String()), nil
	case '0':
		return number(token.String())
	default:
		return token.String(), nil
	}
}

func readMembers(decoder *jsontext.Decoder, depth int) (any, error) {
	object := tree{}
	for decoder.PeekKind() == '"' {
		key, err := decoder.ReadToken()
		if err != nil {
			return nil, err
		}
		name := key.String()
		if object[name], err = readTree(decoder, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := decoder.ReadToken()
	return object, err
}

func readEntries(decoder *jsontext.Decoder, depth int) (any, error) {
	list := []any{}
	for kind := decoder.PeekKind(); kind != ']' && kind != 0; kind = decoder.PeekKind() {
		entry, err := readTree(decoder, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, entry)
	}
	_, err := decoder.ReadToken()
	return list, err
}

// number returns the one form of a number, as RFC 8785 writes doubles. A number
// that a double does not hold to its last digit is refused, since another would
// have the same digest.
func number(text string) (string, error) {
	double, err := strconv.ParseFloat(text, 64)
	if err != nil || len(text) > 400 {
		return "", errors.New("a number is out of range")
	}
	value := jsontext.Value(strconv.FormatFloat(double, 'g', -1, 64))
	if err := value.Canonicalize(); err != nil {
		return "", err
	}
	if double == 0 && strings.ContainsAny(mantissa(text), "123456789") {
		return "", errors.New("a number is out of range")
	}
	// The exponent is within a double's by now, so the exact values stay small.
	if double != 0 {
		exact, _ := new(big.Rat).SetString(text)
		written, _ := new(big.Rat).SetString(string(value))
		if exact == nil || written == nil || exact.Cmp(written) != 0 {
			return "", errors.New("a number has more digits than a double")
		}
	}
	return string(value), nil
}

func mantissa(text string) string {
	digits, _, _ := strings.Cut(strings.ToLower(text), "e")
	return digits
}
