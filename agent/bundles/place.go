// SPDX-License-Identifier: Apache-2.0

package bundles

import "go.yaml.in/yaml/v3"

// place returns where the character at a line and column of a scalar's value
// (both from 1) stands in the file. It walks the value and the source side by
// side, so that block scalars, folded lines and quotes are seen through; where
// it loses the way, it names where the scalar begins.
func (d *document) place(node *yaml.Node, line, column int) (int, int) {
	value := []rune(node.Value)
	w := &walker{lines: d.lines, style: node.Style, line: node.Line - 1, column: node.Column - 1}
	switch {
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.next()
	case node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		w.column++
	}
	at := 0
	for target := offset(value, line, column); at < target; {
		advanced, ok := w.step(value[at])
		if !ok {
			return node.Line, node.Column
		}
		at += advanced
	}
	if at < len(value) {
		w.settle(value[at])
	}
	return w.line + 1, w.column + 1
}

// offset returns the index of the character at a line and column of a value.
func offset(value []rune, line, column int) int {
	at := 0
	for ; line > 1 && at < len(value); at++ {
		if value[at] == '\n' {
			line--
		}
	}
	return min(len(value), at+column-1)
}

// walker is a place in a file that follows the characters of a value.
type walker struct {
	lines        [][]rune
	style        yaml.Style
	line, column int
}

// next goes to the first character of the next line that is not a space.
func (w *walker) next() {
	w.line, w.column = w.line+1, 0
	w.skip()
}

func (w *walker) skip() {
	for w.line < len(w.lines) && w.column < len(w.lines[w.line]) && blank(w.lines[w.line][w.column]) {
		w.column++
	}
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }

// step goes past one character of the value, and tells by how many characters of
// the value it went on, which is none when only the source did.
func (w *walker) step(r rune) (int, bool) {
	if w.line >= len(w.lines) {
		return 0, false
	}
	line := w.lines[w.line]
	switch {
	case w.column >= len(line):
		w.next()
		return 0, true
	case line[w.column] == r:
		w.column++
		if r == '\'' && w.style&yaml.SingleQuotedStyle != 0 {
			w.column++
		}
		return 1, true
	case blank(r):
		return 1, true
	case blank(line[w.column]):
		w.column++
		return 0, true
	case line[w.column] == '\\' && w.style&yaml.DoubleQuotedStyle != 0:
		w.column += 2
		return 1, true
	default:
		return 0, false
	}
}

// settle goes over the space and the ends of lines before the character that was
// looked for.
func (w *walker) settle(r rune) {
	for w.line < len(w.lines) && !blank(r) {
		if w.column >= len(w.lines[w.line]) {
			w.next()
			continue
		}
		if !blank(w.lines[w.line][w.column]) {
			return
		}
		w.column++
	}
}
