// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// capture keeps the first limit bytes of a stream and drains the rest, so that a writer never waits on it.
// One goroutine owns it until drain has returned.
type capture struct {
	limit int64
	data  []byte
	over  bool
	// overflowed is called once, when the first byte beyond the limit arrives.
	overflowed func()
	// lines, if set, is shown everything that is kept.
	lines *lineWriter
}

// drain reads f to its end. An end that is not one (a deadline) is returned: what is kept is then cut.
func (c *capture) drain(f *os.File) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		c.keep(buf[:n])
		if errors.Is(err, io.EOF) {
			c.lines.flush()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *capture) keep(b []byte) {
	if c.over || len(b) == 0 {
		return
	}
	if room := c.limit - int64(len(c.data)); int64(len(b)) > room {
		c.over = true
		b = b[:room]
		c.overflowed()
	}
	c.data = append(c.data, b...)
	c.lines.write(b)
}

// lineWriter cuts a stream into lines of bounded length. A nil one does nothing.
type lineWriter struct {
	show func([]byte)
	line []byte
	long bool // the rest of the line is dropped
}

func (w *lineWriter) write(b []byte) {
	if w == nil {
		return
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			w.add(b)
			return
		}
		w.add(b[:i])
		w.show(w.line)
		w.line, w.long = w.line[:0], false
		b = b[i+1:]
	}
}

func (w *lineWriter) add(b []byte) {
	if w.long {
		return
	}
	if room := MaxProgressLine - len(w.line); len(b) > room {
		w.long = true
		b = b[:room]
	}
	w.line = append(w.line, b...)
}

// flush shows a last line that has no end.
func (w *lineWriter) flush() {
	if w != nil && len(w.line) > 0 {
		w.show(w.line)
	}
}
