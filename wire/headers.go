// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"mime"
	"strconv"
	"strings"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	headerContentType     = "content-type"
	headerContentEncoding = "content-encoding"
	headerContentLength   = "content-length"
	headerIdempotencyKey  = "idempotency-key"
	headerEnvelope        = "x-writ-envelope"
	headerPartialBody     = "x-envoy-auth-partial-body"

	typeJSON    = "application/json"
	typeProblem = "application/problem+json"

	// maxKeyBytes bounds an idempotency key, as writ.v1 does in its services.
	maxKeyBytes = 256
)

// HeaderSession is the header with the token of the caller's session. Envoy's generated
// configuration takes it off what is sent on.
const HeaderSession = "x-writ-session"

// overrides are headers by which some servers take another method or path than
// the request line's.
var overrides = []string{
	"x-http-method-override", "x-http-method", "x-method-override",
	"x-original-url", "x-rewrite-url",
}

// one returns the only value of a header that decides something. Two values that
// differ are refused, because the service behind may believe the other.
func (r *Request) one(name string) (value string, present bool, refusal *reasons.Error) {
	for i := range r.Headers {
		if r.Headers[i].Name != name {
			continue
		}
		if present && r.Headers[i].Value != value {
			return "", true, reasons.New(writv1.Reason_REASON_DECODE_HEADER_CONFLICT, name, "the header occurs more than once with different values")
		}
		value, present = r.Headers[i].Value, true
	}
	return value, present, nil
}

// plain refuses what makes a body or a request line readable in two ways.
func (r *Request) plain(limit int) *reasons.Error {
	for _, name := range overrides {
		if _, present, _ := r.one(name); present {
			return reasons.New(writv1.Reason_REASON_DECODE_HEADER_CONFLICT, name, "the header overrides the method or path")
		}
	}
	for i := range r.Headers {
		header := &r.Headers[i]
		if header.Name == headerPartialBody && header.Value != "false" {
			return reasons.New(writv1.Reason_REASON_DECODE_PARTIAL_BODY, "", "only a part of the body reached the agent")
		}
		if header.Name == headerContentLength && header.Value != strconv.Itoa(len(r.Body)) {
			return reasons.New(writv1.Reason_REASON_DECODE_PARTIAL_BODY, headerContentLength, "the body that reached the agent has another length")
		}
		if header.Name == headerContentEncoding && !strings.EqualFold(header.Value, "identity") {
			return reasons.New(writv1.Reason_REASON_DECODE_COMPRESSED, headerContentEncoding, "the body has a content encoding")
		}
	}
	if len(r.Body) > limit {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the body has more than %d bytes", limit)
	}
	return nil
}

// json refuses every content type but JSON in UTF-8.
func (r *Request) json() *reasons.Error {
	value, present, refusal := r.one(headerContentType)
	switch {
	case refusal != nil:
		return refusal
	case !present:
		return reasons.New(writv1.Reason_REASON_DECODE_CONTENT_TYPE, headerContentType, "the content type is missing; send %s", typeJSON)
	case !isJSON(value):
		return reasons.New(writv1.Reason_REASON_DECODE_CONTENT_TYPE, headerContentType, "the content type is not %s", typeJSON)
	}
	return nil
}

// isJSON reports whether a content type is JSON in UTF-8.
func isJSON(value string) bool {
	if value == typeJSON {
		return true
	}
	media, parameters, err := mime.ParseMediaType(value)
	if err != nil || media != typeJSON {
		return false
	}
	for name, parameter := range parameters {
		if name != "charset" || !strings.EqualFold(parameter, "utf-8") {
			return false
		}
	}
	return true
}

// idempotencyKey returns the key that stands in the header.
func (r *Request) idempotencyKey() (string, *reasons.Error) {
	value, present, refusal := r.one(headerIdempotencyKey)
	if refusal != nil || !present {
		return "", refusal
	}
	return value, checkKey(headerIdempotencyKey, value)
}

// checkKey refuses a key that another reader of the header could trim or cut.
func checkKey(field, key string) *reasons.Error {
	if key == "" || len(key) > maxKeyBytes || !visible(key) {
		return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, field, "an idempotency key is 1 to %d visible ASCII characters", maxKeyBytes)
	}
	return nil
}

// visible reports whether s is visible ASCII, without spaces.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// header returns the first value of a header of a response.
func (r *Response) header(name string) string {
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			return r.Headers[i].Value
		}
	}
	return ""
}

// plain refuses a response whose body is encoded or too large to be checked.
func (r *Response) plain(limit int) *reasons.Error {
	if encoding := r.header(headerContentEncoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return badAnswer("it has a content encoding")
	}
	if len(r.Body) > limit {
		return badAnswer("it is too large")
	}
	return nil
}
