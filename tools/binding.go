// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/tools/schemas"
)

// Binding is how a tool is called over HTTP: the google.api.http of its rpc. It
// does not change; several goroutines may use it.
//
// A template is literal segments and variables that are one segment each:
// "/v1/{shop}/orders/{order.id}". Fields that neither the path nor the body holds
// stand in the query, and are scalars. There is one binding a tool.
type Binding struct {
	request  *schemas.Message
	method   string
	segments []segment
	// taken are the fields in the path, query those in the query, as JSON names.
	taken, query []string
	body         string
}

// segment is a literal, or the field whose value it is.
type segment struct{ literal, field string }

var (
	// literal is the text of a segment that is written the same everywhere.
	literal = regexp.MustCompile(`^[A-Za-z0-9._~:@-]+$`)
	// variable is a field that is one segment.
	variable = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_.]*)(?:=\*)?\}$`)
)

func newBinding(request *schemas.Message, rule *annotations.HttpRule) (*Binding, error) {
	if len(rule.GetAdditionalBindings()) > 0 || rule.GetResponseBody() != "" {
		return nil, errors.New("additional_bindings and response_body are not read; give each path an rpc of its own")
	}
	b := &Binding{request: request}
	template := ""
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.method, template = "GET", pattern.Get
	case *annotations.HttpRule_Put:
		b.method, template = "PUT", pattern.Put
	case *annotations.HttpRule_Post:
		b.method, template = "POST", pattern.Post
	case *annotations.HttpRule_Delete:
		b.method, template = "DELETE", pattern.Delete
	case *annotations.HttpRule_Patch:
		b.method, template = "PATCH", pattern.Patch
	default:
		return nil, errors.New("the method must be get, put, post, delete or patch")
	}
	if err := b.readTemplate(template); err != nil {
		return nil, err
	}
	return b, b.readBody(rule.GetBody())
}

// String returns the method and the path, variables by the JSON names of their
// fields: "POST /v1/{shop}/orders".
func (b *Binding) String() string {
	var out strings.Builder
	out.WriteString(b.method + " ")
	for _, s := range b.segments {
		out.WriteByte('/')
		if s.field != "" {
			out.WriteString("{" + s.field + "}")
			continue
		}
		out.WriteString(s.literal)
	}
	return out.String()
}

func (b *Binding) readTemplate(template string) error {
	path, rooted := strings.CutPrefix(template, "/")
	if !rooted {
		return fmt.Errorf("the path %q does not begin with a slash", template)
	}
	for part := range strings.SplitSeq(path, "/") {
		if match := variable.FindStringSubmatch(part); match != nil {
			field, err := b.fieldOf(match[1])
			if err != nil {
				return err
			}
			b.segments = append(b.segments, segment{field: field})
			b.taken = append(b.taken, field)
			continue
		}
		if !literal.MatchString(part) || part == "." || part == ".." {
			return fmt.Errorf("segment %q of the path is neither plain text nor {field}", part)
		}
		b.segments = append(b.segments, segment{literal: part})
	}
	return nil
}

// fieldOf returns the JSON names of a path of field names that leads to a scalar.
func (b *Binding) fieldOf(path string) (string, error) {
	message := b.request.Descriptor()
	var names []string
	for name := range strings.SplitSeq(path, ".") {
		var field protoreflect.FieldDescriptor
		if message != nil {
			field = message.Fields().ByName(protoreflect.Name(name))
		}
		if field == nil {
			return "", fmt.Errorf("%s has no field %s", b.request.Descriptor().Name(), path)
		}
		names, message = append(names, schemas.JSONName(field)), field.Message()
	}
	found := strings.Join(names, ".")
	if !b.request.Scalar(found) {
		return "", fmt.Errorf("field %s cannot stand in a path: it is not a scalar", path)
	}
	if slices.Contains(b.taken, found) {
		return "", fmt.Errorf("field %s stands in the path twice", path)
	}
	return found, nil
}

// readBody takes over the body, and finds what is left for the query.
func (b *Binding) readBody(body string) error {
	if body != "" && (b.method == "GET" || b.method == "DELETE") {
		return fmt.Errorf("a %s has no body", b.method)
	}
	if body == "*" {
		b.body = body
		return nil
	}
	taken := slices.Clone(b.taken)
	if body != "" {
		field := b.request.Descriptor().Fields().ByName(protoreflect.Name(body))
		if field == nil {
			return fmt.Errorf("%s has no field %s for the body", b.request.Descriptor().Name(), body)
		}
		b.body = schemas.JSONName(field)
		for _, path := range b.taken {
			if path == b.body || strings.HasPrefix(path, b.body+".") {
				return fmt.Errorf("field %s stands in the path and in the body", path)
			}
		}
		taken = append(taken, b.body)
	}
	var other string
	if b.query, other = b.request.Scalars(taken); other != "" {
		return fmt.Errorf("field %s cannot stand in the query: it is not a scalar; give the binding a body", other)
	}
	return nil
}

// Method returns the HTTP method.
func (b *Binding) Method() string { return b.method }

// Body returns the JSON name of the field that is the body, "*" if the body is all
// that the path does not hold, or "" if there is none.
func (b *Binding) Body() string { return b.body }

// Template returns the segments of the path: the text of one that is literal, and ""
// for one that holds a field.
func (b *Binding) Template() []string {
	template := make([]string, len(b.segments))
	for i, s := range b.segments {
		template[i] = s.literal
	}
	return template
}

// Match reports whether a request is a call of the tool, and what its path binds.
// rawPath is the path as it was sent, without the query. A path that can be read
// in two ways does not match: with an empty or dot segment, an encoded slash, a
// semicolon or backslash, control characters, text that is not UTF-8 or escapes
// that give further escapes.
func (b *Binding) Match(method, rawPath string) ([]schemas.Param, bool) {
	if method != b.method || rawPath == "" || rawPath[0] != '/' {
		return nil, false
	}
	var params []schemas.Param
	rest, more := rawPath[1:], true
	for _, s := range b.segments {
		if !more {
			return nil, false
		}
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if s.field == "" {
			if part != s.literal {
				return nil, false
			}
			continue
		}
		value, ok := decode(part)
		if !ok || !plain(value) || value == "" || value == "." || value == ".." || strings.ContainsAny(value, `/\;`) {
			return nil, false
		}
		params = append(params, schemas.Param{Field: s.field, Value: value})
	}
	return params, !more
}

// Render returns the request that calls the tool: what Match and the reader of the
// query and body read back to the same message. A message that has no such request
// gives an empty path, and MUST NOT be sent: a field of the path is absent, empty
// or ambiguous, or one of the query has control characters or looks like an
// escape. Body is nil if the binding has none.
func (b *Binding) Render(message protoreflect.Message) (method, path, query string, body []byte) {
	path, ok := b.renderPath(message)
	if !ok {
		return b.method, "", "", nil
	}
	if query, ok = b.renderQuery(message); !ok {
		return b.method, "", "", nil
	}
	switch b.body {
	case "":
	case "*":
		body = b.request.AppendWithout(nil, message, b.taken)
	default:
		if body, ok = b.request.AppendField(nil, message, b.body); !ok {
			return b.method, "", "", nil
		}
	}
	return b.method, path, query, body
}

func (b *Binding) renderPath(message protoreflect.Message) (string, bool) {
	var path []byte
	for _, s := range b.segments {
		path = append(path, '/')
		if s.field == "" {
			path = append(path, s.literal...)
			continue
		}
		value, ok := b.request.Text(message, s.field)
		if !ok || !plain(value) || value == "" || value == "." || value == ".." || strings.ContainsAny(value, `/\;`) {
			return "", false
		}
		path = appendEscaped(path, value)
	}
	return string(path), true
}

func (b *Binding) renderQuery(message protoreflect.Message) (string, bool) {
	var query []byte
	for _, field := range b.query {
		if !b.request.Given(message, field) {
			continue
		}
		value, ok := b.request.Text(message, field)
		if !ok || !plain(value) {
			return "", false
		}
		if len(query) > 0 {
			query = append(query, '&')
		}
		query = append(appendEscaped(query, field), '=')
		query = appendEscaped(query, value)
	}
	return string(query), true
}

// appendEscaped escapes all but the characters that are the same everywhere
// (RFC 3986, unreserved).
func appendEscaped(dst []byte, text string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(text) {
		if c := text[i]; unreserved(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// decode decodes a segment once. Characters that a URI must escape are refused raw.
func decode(part string) (string, bool) {
	if !strings.Contains(part, "%") && strings.IndexFunc(part, raw) < 0 {
		return part, true
	}
	text := make([]byte, 0, len(part))
	for i := 0; i < len(part); i++ {
		c := part[i]
		switch {
		case c == '%' && i+2 < len(part) && hex(part[i+1]) >= 0 && hex(part[i+2]) >= 0:
			text = append(text, byte(hex(part[i+1])<<4|hex(part[i+2])))
			i += 2
		case c == '%' || raw(rune(c)):
			return "", false
		default:
			text = append(text, c)
		}
	}
	return string(text), true
}

// raw reports whether a character may not stand in a path as it is (RFC 3986, pchar).
func raw(c rune) bool {
	return c >= 0x80 || !unreserved(byte(c)) && !strings.ContainsRune("!$&'()*+,;=:@%", c)
}

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

// plain reports whether decoded text has one reading: UTF-8, no control characters,
// and nothing that could be decoded again.
func plain(text string) bool {
	for i := 0; i+2 < len(text); i++ {
		if text[i] == '%' && hex(text[i+1]) >= 0 && hex(text[i+2]) >= 0 {
			return false
		}
	}
	return utf8.ValidString(text) && strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) < 0
}
