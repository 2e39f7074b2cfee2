// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxMarks is how many combining marks in a row are printed: languages need fewer, and
// a stack of them runs over the lines above and below.
const maxMarks = 4

// rightToLeft are the blocks whose letters a terminal may put before what was written
// before them, so that a line would not read as it was printed.
var rightToLeft = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x0590, Hi: 0x08ff, Stride: 1}, {Lo: 0xfb1d, Hi: 0xfdff, Stride: 1}, {Lo: 0xfe70, Hi: 0xfeff, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x10800, Hi: 0x10fff, Stride: 1}, {Lo: 0x1e800, Hi: 0x1efff, Stride: 1}},
}

// blankBraille looks like a space, and is a symbol.
const blankBraille = 0x2800

// safe says whether a terminal shows a rune as one visible sign or space where it
// stands. Control and format characters, surrogates and private use are not printable;
// fillers and variation selectors are, and show nothing.
func safe(r rune) bool {
	return unicode.IsPrint(r) && r != blankBraille &&
		!unicode.In(r, rightToLeft, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// runes calls visit with every rune of s and whether it may be printed; a byte that is
// no text comes as a negative number.
func runes(s string, visit func(r rune, printed bool)) {
	marks := 0
	for i := 0; i < len(s); {
		if c := s[i]; c >= ' ' && c <= '~' { // most of most texts
			visit(rune(c), true)
			i, marks = i+1, 0
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			visit(-rune(s[i]), false)
			i++
			continue
		}
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		visit(r, safe(r) && marks <= maxMarks)
		i += size
	}
}

// printable returns s as a terminal may show it, on one line. What is escaped is so
// unambiguously: \xNN a byte, \u{N} a character, \\ a backslash.
func printable(s string) string {
	var b strings.Builder
	runes(s, func(r rune, printed bool) {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case printed:
			b.WriteRune(r)
		case r < 0:
			fmt.Fprintf(&b, `\x%02x`, -r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	})
	return b.String()
}

// printableJSON does the same to a JSON text, by the escapes that JSON has: its value
// stays what it was. Its lines and indentation stay too.
func printableJSON(text []byte) []byte {
	var b strings.Builder
	b.Grow(len(text))
	runes(string(text), func(r rune, printed bool) {
		switch {
		case printed || r == '\n':
			b.WriteRune(r)
		case r < 0:
			b.WriteRune(utf8.RuneError)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	})
	return []byte(b.String())
}

// maxCell is how many characters of a value stand in a table.
const maxCell = 48

// cell returns a value as it stands in a table: without a blank that could pass for
// the end of a column, and never mistaken for a value that is absent.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	out := printable(s)
	if utf8.RuneCountInString(out) > maxCell {
		out = string([]rune(out)[:maxCell-1]) + "…"
	}
	return apart(out)
}

// word returns a value as it stands beside others in a line, whole.
func word(s string) string { return apart(printable(s)) }

// Word writes a value as it stands in a list: what is not printed is escaped, and what
// could pass for two values, or for none, is quoted.
func Word(s string) string { return word(s) }

// apart quotes an escaped value that could pass for two, or for none.
func apart(escaped string) string {
	if escaped == "" || escaped == "-" || strings.ContainsAny(escaped, ` ",[]`) {
		return `"` + strings.ReplaceAll(escaped, `"`, `\"`) + `"`
	}
	return escaped
}
