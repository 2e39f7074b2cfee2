// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Limits bounds a JSON text. A limit is the most that is read; zero takes the
// default (AgentLimits in config.proto).
type Limits struct {
	// Bytes is the length of the text. Default: 1 MiB.
	Bytes int
	// Depth is how many objects and arrays are open at once. Default: 64.
	Depth int
	// Values counts scalars, objects, arrays and keys. Default: 100,000.
	Values int
}

func (l Limits) orDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 1 << 20
	}
	if l.Depth == 0 {
		l.Depth = 64
	}
	if l.Values == 0 {
		l.Values = 100_000
	}
	return l
}

// Check judges the syntax of a JSON text by the rules of [Message.Read]: for calls
// of tools that are not known. The error is a [*reasons.Error].
func Check(json []byte, l Limits) error {
	r := newReader(l)
	defer r.release()
	if refusal := r.check(json); refusal != nil {
		return refusal
	}
	return nil
}

// reader reads one JSON text, token by token.
type reader struct {
	decoder *jsontext.Decoder
	source  bytes.Reader
	limits  Limits
	depth   int
	values  int
	// zeros are the fields without presence that were given as zero, while params
	// follow: the message does not tell that they were given.
	tracking bool
	zeros    []given
	scratch  []byte
}

var readers = sync.Pool{New: func() any { return &reader{decoder: jsontext.NewDecoder(bytes.NewReader(nil))} }}

func newReader(l Limits) *reader {
	r := readers.Get().(*reader)
	r.limits = l.orDefaults()
	return r
}

// release gives the reader back. It holds nothing of what was read.
func (r *reader) release() {
	r.source.Reset(nil)
	r.decoder.Reset(&r.source)
	clear(r.zeros)
	clear(r.scratch[:cap(r.scratch)])
	r.zeros, r.tracking = r.zeros[:0], false
	readers.Put(r)
}

// open begins a text, whose size and encoding it judges.
func (r *reader) open(json []byte) *reasons.Error {
	r.depth, r.values = 0, 0
	if len(json) > r.limits.Bytes {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the JSON text has more than %d bytes", r.limits.Bytes)
	}
	if !utf8.Valid(json) {
		return reasons.New(writv1.Reason_REASON_DECODE_INVALID_UTF8, "", "the JSON text is not valid UTF-8")
	}
	r.source.Reset(json)
	r.decoder.Reset(&r.source)
	return nil
}

// check reads a whole text for its syntax alone.
func (r *reader) check(json []byte) *reasons.Error {
	if refusal := r.open(json); refusal != nil {
		return refusal
	}
	for {
		if refusal := r.step(); refusal != nil {
			return refusal
		}
		if r.depth == 0 {
			return r.end()
		}
	}
}

// step reads one token.
func (r *reader) step() *reasons.Error {
	token, err := r.decoder.ReadToken()
	if err != nil {
		return r.syntax(err)
	}
	switch token.Kind() {
	case '{', '[':
		return r.enter()
	case '}', ']':
		r.depth--
		return nil
	default:
		return r.count()
	}
}

// enter counts an object or array that begins.
func (r *reader) enter() *reasons.Error {
	r.depth++
	if r.depth > r.limits.Depth {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_DEEP, "", "values are nested deeper than %d", r.limits.Depth)
	}
	return r.count()
}

// count counts a value or key.
func (r *reader) count() *reasons.Error {
	r.values++
	if r.values > r.limits.Values {
		return reasons.New(writv1.Reason_REASON_DECODE_TOO_LARGE, "", "the JSON text has more than %d values and keys", r.limits.Values)
	}
	return nil
}

// end refuses whatever follows the value.
func (r *reader) end() *reasons.Error {
	_, err := r.decoder.ReadToken()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return reasons.New(writv1.Reason_REASON_DECODE_MALFORMED, "", "something follows the JSON value")
}

// syntax says what a decoder's error is. The error itself quotes the text, and is
// hidden on purpose.
func (r *reader) syntax(err error) *reasons.Error {
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return reasons.New(writv1.Reason_REASON_DECODE_DUPLICATE_KEY, "", "an object has the same key twice")
	case errors.Is(err, io.EOF):
		return reasons.New(writv1.Reason_REASON_DECODE_MALFORMED, "", "there is no JSON value")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return reasons.New(writv1.Reason_REASON_DECODE_MALFORMED, "", "the JSON text ends before its value does")
	case loneSurrogate(err):
		return reasons.New(writv1.Reason_REASON_DECODE_INVALID_UTF8, "", "a string has half of a surrogate pair")
	default:
		return reasons.New(writv1.Reason_REASON_DECODE_MALFORMED, "", "the JSON text is malformed at byte %d", r.decoder.InputOffset())
	}
}

// loneSurrogate recognises the decoder's error, which has no exported form. The
// text as a whole was UTF-8, so that only an escape can be at fault.
func loneSurrogate(err error) bool {
	var syntactic *jsontext.SyntacticError
	if !errors.As(err, &syntactic) || syntactic.Err == nil {
		return false
	}
	text := syntactic.Err.Error()
	return strings.Contains(text, "surrogate") || strings.Contains(text, "UTF-8")
}

// firstOfSchema is the first of the reasons SCHEMA_*.
const firstOfSchema = writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD
