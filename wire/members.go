// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// eachMember calls visit for every member of the object in text, which MUST have
// passed schemas.Check: the scan looks for where values end, and not whether they
// are JSON. Name and value point into text, unless the name has escapes.
func eachMember(text []byte, visit func(name []byte, value jsontext.Value)) error {
	at := skipSpace(text, 0)
	if at == len(text) || text[at] != '{' {
		return errShape
	}
	for at = skipSpace(text, at+1); at < len(text) && text[at] != '}'; {
		name, value, next := member(text, at)
		if next < 0 {
			return errShape
		}
		visit(name, value)
		at = skipSpace(text, next)
		if at < len(text) && text[at] == ',' {
			at = skipSpace(text, at+1)
		}
	}
	if skipSpace(text, min(at+1, len(text))) != len(text) || at >= len(text) {
		return errShape
	}
	return nil
}

// eachElement calls visit for every element of the list in text, which MUST have
// passed schemas.Check.
func eachElement(text []byte, visit func(value jsontext.Value)) error {
	at := skipSpace(text, 0)
	if at == len(text) || text[at] != '[' {
		return errShape
	}
	for at = skipSpace(text, at+1); at < len(text) && text[at] != ']'; {
		next := valueEnd(text, at)
		if next < 0 {
			return errShape
		}
		visit(text[at:next])
		at = skipSpace(text, next)
		if at < len(text) && text[at] == ',' {
			at = skipSpace(text, at+1)
		}
	}
	return nil
}

// member returns the member that begins at a place, and where it ends; -1 where
// there is none.
func member(text []byte, at int) (name []byte, value jsontext.Value, next int) {
	end := stringEnd(text, at)
	if end < 0 {
		return nil, nil, -1
	}
	name = text[at+1 : end-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, text[at:end])
		if err != nil {
			return nil, nil, -1
		}
		name = unquoted
	}
	at = skipSpace(text, end)
	if at == len(text) || text[at] != ':' {
		return nil, nil, -1
	}
	at = skipSpace(text, at+1)
	next = valueEnd(text, at)
	if next < 0 {
		return nil, nil, -1
	}
	return name, text[at:next], next
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n') {
		at++
	}
	return at
}

// stringEnd returns where the string that begins at a place ends; -1 if none does.
func stringEnd(text []byte, at int) int {
	if at >= len(text) || text[at] != '"' {
		return -1
	}
	for at++; at < len(text); at++ {
		switch text[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return -1
}

// valueEnd returns where the value that begins at a place ends; -1 if none does.
func valueEnd(text []byte, at int) int {
	if at >= len(text) {
		return -1
	}
	switch text[at] {
	case '"':
		return stringEnd(text, at)
	case '{', '[':
		return compositeEnd(text, at)
	}
	if end := bytes.IndexAny(text[at:], ",}] \t\r\n"); end > 0 {
		return at + end
	}
	return -1
}

func compositeEnd(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			if at = stringEnd(text, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}
