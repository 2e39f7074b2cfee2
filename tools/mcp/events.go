// SPDX-License-Identifier: Apache-2.0

package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// events reads a stream of server-sent events (WHATWG HTML, section 9.2), as much
// of it as MCP uses: the data of each event. All of the stream together is
// bounded.
type events struct {
	lines *bufio.Scanner
	first bool
}

func newEvents(body io.Reader) *events {
	// One byte beyond the bound tells a stream that ends there from one that goes on.
	lines := bufio.NewScanner(&bounded{from: body, left: maxAnswer})
	lines.Buffer(make([]byte, 0, 4096), maxAnswer+1)
	lines.Split(splitLine)
	return &events{lines: lines, first: true}
}

// next returns the data of the next event; empty for an event without data.
func (e *events) next() ([]byte, error) {
	var data []byte
	for e.lines.Scan() {
		line := e.lines.Bytes()
		if e.first {
			line, e.first = bytes.TrimPrefix(line, []byte("\ufeff")), false
		}
		if len(line) == 0 {
			return data, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		if string(field) == "data" {
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		}
	}
	if err := e.lines.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: the stream ended without an answer", ErrRefused)
}

// splitLine is bufio.ScanLines for all three line ends of event streams. A line
// that the stream breaks off is no line.
func splitLine(data []byte, atEOF bool) (int, []byte, error) {
	end := bytes.IndexAny(data, "\r\n")
	switch {
	case end < 0:
		return 0, nil, nil
	case data[end] == '\n':
		return end + 1, data[:end], nil
	case end+1 == len(data) && !atEOF:
		return 0, nil, nil // the next byte says whether it is CR or CR LF
	case end+1 < len(data) && data[end+1] == '\n':
		return end + 2, data[:end], nil
	default:
		return end + 1, data[:end], nil
	}
}

// bounded reads at most so many bytes, and errs where there are more.
type bounded struct {
	from io.Reader
	left int
}

// Read reads from the stream.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := io.LimitReader(b.from, int64(b.left)+1).Read(p)
	if n > b.left {
		return 0, errors.Join(ErrRefused, fmt.Errorf("more than %d bytes", maxAnswer))
	}
	b.left -= n
	return n, err
}
