// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	headerMCPMethod   = "mcp-method"
	headerMCPName     = "mcp-name"
	headerParamPrefix = "mcp-param-"

	// maxMirrorDepth is how deep an argument may stand that a header mirrors.
	maxMirrorDepth = 8

	base64Prefix = "=?base64?"
	base64Suffix = "?="
)

// checkMirrors holds the headers that mirror the body (SEP-2243) against it.
// The stateless revision demands them; in the others they may be absent, and may
// not lie, since a server or a router behind might believe them.
func checkMirrors(request *Request, message *rpcMessage, stateless bool) *reasons.Error {
	need := stateless && message.id != nil
	if refusal := checkMirror(request, headerMCPMethod, message.method, need); refusal != nil {
		return refusal
	}
	call := message.method == methodCall
	if refusal := checkMirror(request, headerMCPName, message.name, need && call); refusal != nil {
		return refusal
	}
	return checkParams(request, message, call)
}

// checkParams holds the headers that mirror arguments against them.
func checkParams(request *Request, message *rpcMessage, call bool) *reasons.Error {
	found := newMirrored(request.Headers)
	if found == nil {
		return nil
	}
	if call {
		found.collect(message.arguments, maxMirrorDepth)
	}
	for i := range request.Headers {
		name, ok := strings.CutPrefix(request.Headers[i].Name, headerParamPrefix)
		if !ok {
			continue
		}
		decoded, valid := mirrorValue(request.Headers[i].Value)
		want, one := found.text(name)
		if !valid || !one || decoded != want {
			return mismatch(request.Headers[i].Name)
		}
	}
	return nil
}

func mismatch(header string) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_DECODE_HEADER_MISMATCH, header, "the header disagrees with the body, or is missing")
}

func checkMirror(request *Request, header, want string, need bool) *reasons.Error {
	value, present, refusal := request.one(header)
	if refusal != nil {
		return refusal
	}
	decoded, ok := mirrorValue(value)
	if present && (!ok || decoded != want) || !present && need {
		return mismatch(header)
	}
	return nil
}

// mirrorValue decodes "=?base64?...?=".
func mirrorValue(value string) (string, bool) {
	inner, ok := strings.CutPrefix(value, base64Prefix)
	if !ok {
		return value, true
	}
	inner, ok = strings.CutSuffix(inner, base64Suffix)
	if !ok {
		return value, true
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(decoded), err == nil
}

// mirrorOf returns text as a header's value, in base64 where plain text
// could be taken for something else.
func mirrorOf(text string) string {
	plain := !strings.HasPrefix(text, base64Prefix) && strings.TrimSpace(text) == text
	for i := range len(text) {
		plain = plain && text[i] >= ' ' && text[i] <= '~'
	}
	if plain {
		return text
	}
	return base64Prefix + base64.StdEncoding.EncodeToString([]byte(text)) + base64Suffix
}

// mirrored are the arguments that Mcp-Param headers may speak of, by squeezed
// name. The header's name is chosen by the server's schema, which is not at hand:
// the argument is the only one, however deep in objects, whose name is the header's
// but for case, "-" and "_". None or several cannot be held against it.
type mirrored map[string][]jsontext.Value

// newMirrored returns the names that headers ask for; nil if none does.
func newMirrored(headers []Header) mirrored {
	var names mirrored
	for i := range headers {
		if name, ok := strings.CutPrefix(headers[i].Name, headerParamPrefix); ok {
			if names == nil {
				names = make(mirrored)
			}
			names[squeeze(name)] = nil
		}
	}
	return names
}

// collect adds the members of object, and of the objects in it to a depth, whose
// names are asked for. Lists are not entered, since no header can speak of them.
// Each level is one more pass over the text, so that depth bounds the work.
func (m mirrored) collect(object jsontext.Value, depth int) {
	err := eachMember(object, func(member []byte, value jsontext.Value) {
		name := squeeze(string(member))
		if values, wanted := m[name]; wanted {
			m[name] = append(values, value)
		}
		if value.Kind() == '{' && depth > 1 {
			m.collect(value, depth-1)
		}
	})
	if err != nil {
		clear(m)
	}
}

// text returns the one argument of a header's name as a header carries it.
func (m mirrored) text(header string) (string, bool) {
	values := m[squeeze(header)]
	if len(values) != 1 {
		return "", false
	}
	return scalarText(values[0])
}

var separators = strings.NewReplacer("-", "", "_", "")

func squeeze(name string) string { return strings.ToLower(separators.Replace(name)) }

// scalarText returns a string, integer or bool as a header carries it.
func scalarText(value jsontext.Value) (string, bool) {
	switch value.Kind() {
	case '"':
		return stringOf(value), true
	case '0', 't', 'f':
		return string(value), true
	}
	return "", false
}
