// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing/fstest"

	"pgregory.net/rapid"

	"github.com/writ-dev/writ/ledger"
)

// disk is a disk in memory, which fails when it is told to, whose writer can be killed,
// and whose machine can lose its power: then what was not synced is gone, or some of it.
type disk struct {
	mu sync.Mutex
	// files are as programs see them, kept as they are on the disk. Names change on the
	// disk when the directory is synced; changes wait for that.
	files, kept map[string]*inode
	changes     []change
	// generation counts the writers: files that one before opened are closed to it.
	generation int
	// fail is asked before each operation, by its name. A write that fails writes short
	// bytes first.
	fail  func(op string) error
	short int
}

// inode is a file's contents: as programs see them, and as they are on the disk.
type inode struct {
	data, kept []byte
	// gone are what a failed sync left behind: the kernel takes these pages to be clean,
	// and no later sync writes them (https://lwn.net/Articles/752063/).
	gone []span
}

type span struct{ from, to int }

// change is a name that was given to a file, or taken away.
type change struct {
	name string
	file *inode // nil: taken away
}

var errKilled = errors.New("the writer was killed")

func newDisk() *disk { return &disk{files: map[string]*inode{}, kept: map[string]*inode{}} }

// breaks has the operations fail that fail says.
func (d *disk) breaks(short int, fail func(op string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.short, d.fail = short, fail
}

// heal ends that.
func (d *disk) heal() { d.breaks(0, nil) }

// kill ends the writer: what it wrote stays, and nothing that it does counts any more.
func (d *disk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation++
	d.fail, d.short = nil, 0
}

// ask is called with mu held.
func (d *disk) ask(op string, generation int) error {
	if generation != d.generation {
		return errKilled
	}
	if d.fail != nil {
		return d.fail(op)
	}
	return nil
}

// losePower leaves of everything what was synced, and of the rest some: of the changes of
// names the first, of a file's unsynced end some bytes and after them zeros, or holes.
func (d *disk) losePower(t *rapid.T, holes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation++
	d.fail, d.short = nil, 0
	for _, c := range d.changes[:rapid.IntRange(0, len(d.changes)).Draw(t, "names kept")] {
		c.apply(d.kept)
	}
	d.changes = nil
	d.files = maps.Clone(d.kept)
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		f.losePower(t, holes)
	}
}

func (f *inode) losePower(t *rapid.T, holes bool) {
	left := slices.Clone(f.kept)
	if fresh := len(f.data) - len(f.kept); fresh > 0 && bytes.HasPrefix(f.data, f.kept) {
		end := len(f.kept) + rapid.IntRange(0, fresh).Draw(t, "bytes kept")
		left = append(left, f.data[len(f.kept):end]...)
		for i := 0; holes && i < 3 && end > len(f.kept); i++ {
			from := rapid.IntRange(len(f.kept), end-1).Draw(t, "hole")
			clear(left[from:min(end, from+rapid.IntRange(1, 600).Draw(t, "wide"))])
		}
		left = append(left, make([]byte, rapid.IntRange(0, 5000).Draw(t, "zeros"))...)
	}
	f.data, f.kept, f.gone = left, slices.Clone(left), nil
}

func (c change) apply(to map[string]*inode) {
	if c.file == nil {
		delete(to, c.name)
		return
	}
	to[c.name] = c.file
}

func (d *disk) change(name string, f *inode) {
	c := change{name, f}
	c.apply(d.files)
	d.changes = append(d.changes, c)
}

// writer is the file system of one writer, which may be killed.
type writer struct {
	*disk
	generation int
}

func (d *disk) writer() ledger.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &writer{d, d.generation}
}

func (w *writer) OpenFile(name string, flag int, _ fs.FileMode) (ledger.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	op := "read"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := w.ask(op, w.generation); err != nil {
		return nil, err
	}
	name = filepath.Base(name)
	f := w.files[name]
	if f == nil && flag&os.O_CREATE == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if f == nil {
		f = &inode{}
		w.change(name, f)
	}
	if flag&os.O_TRUNC != 0 {
		f.data = nil
	}
	return &handle{w: w, inode: f}, nil
}

func (w *writer) ReadDir(string) ([]fs.DirEntry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask("readdir", w.generation); err != nil {
		return nil, err
	}
	names := fstest.MapFS{}
	for name := range w.files {
		names[name] = &fstest.MapFile{}
	}
	return names.ReadDir(".")
}

func (w *writer) Remove(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask("remove", w.generation); err != nil {
		return err
	}
	w.change(filepath.Base(name), nil)
	return nil
}

func (w *writer) Rename(from, to string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask("rename", w.generation); err != nil {
		return err
	}
	f := w.files[filepath.Base(from)]
	w.change(filepath.Base(to), f)
	w.change(filepath.Base(from), nil)
	return nil
}

func (w *writer) SyncDir(string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask("syncdir", w.generation); err != nil {
		return err
	}
	for _, c := range w.changes {
		c.apply(w.kept)
	}
	w.changes = nil
	return nil
}

// handle is an open file.
type handle struct {
	w      *writer
	inode  *inode
	offset int64
}

func (h *handle) do(op string, what func() (int, error)) (int, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if err := h.w.ask(op, h.w.generation); err != nil {
		return 0, err
	}
	return what()
}

func (h *handle) Read(b []byte) (int, error) {
	n, err := h.ReadAt(b, h.offset)
	h.offset += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *handle) ReadAt(b []byte, at int64) (int, error) {
	return h.do("read", func() (int, error) {
		if at >= int64(len(h.inode.data)) {
			return 0, io.EOF
		}
		n := copy(b, h.inode.data[at:])
		if n < len(b) {
			return n, io.EOF
		}
		return n, nil
	})
}

func (h *handle) Write(b []byte) (int, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	err := h.w.ask("write", h.w.generation)
	if errors.Is(err, errKilled) {
		return 0, err
	}
	if err != nil {
		b = b[:min(h.w.short, len(b))]
	}
	if end := int(h.offset) + len(b); end > len(h.inode.data) {
		h.inode.data = append(h.inode.data, make([]byte, end-len(h.inode.data))...)
	}
	copy(h.inode.data[h.offset:], b)
	h.inode.dirty(span{int(h.offset), int(h.offset) + len(b)})
	h.offset += int64(len(b))
	return len(b), err
}

func (h *handle) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fmt.Errorf("seek from %d is not there", whence)
	}
	h.offset = offset
	return offset, nil
}

func (h *handle) Truncate(size int64) error {
	_, err := h.do("truncate", func() (int, error) {
		if f := h.inode; int(size) < len(f.data) {
			f.data = slices.Clone(f.data[:size])
			f.dirty(span{int(size), math.MaxInt})
		}
		return 0, nil
	})
	return err
}

func (h *handle) Sync() error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	f := h.inode
	err := h.w.ask("sync", h.w.generation)
	switch {
	case errors.Is(err, errKilled):
		return err
	case err != nil:
		f.gone = append(f.gone, span{len(f.kept), len(f.data)})
		return err
	}
	f.kept = slices.Clone(f.data)
	for _, s := range f.gone {
		if s.from < len(f.kept) {
			clear(f.kept[s.from:min(s.to, len(f.kept))])
		}
	}
	return nil
}

func (h *handle) Close() error { return nil }

// dirty has what is written be synced again, though it was gone.
func (f *inode) dirty(s span) {
	var gone []span
	for _, g := range f.gone {
		for _, left := range []span{{g.from, min(g.to, s.from)}, {max(g.from, s.to), g.to}} {
			if left.from < left.to {
				gone = append(gone, left)
			}
		}
	}
	f.gone = gone
}

// uncovered counts the bytes that no signed head, seal or header covers.
func (d *disk) uncovered() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		if !strings.HasSuffix(name, ".dlog") {
			continue
		}
		n += int64(uncovered(f.data))
	}
	return n
}

// uncovered counts the bytes at the end of a segment that no signed head, seal or header
// covers.
func uncovered(b []byte) int {
	covered := 0
	for at := 0; at+9 <= len(b); {
		end := at + 9 + int(binary.LittleEndian.Uint32(b[at:]))
		if end <= at+9 || end > len(b) || !sound(b[at:end]) {
			break
		}
		if b[at+8] != 1 { // not a record
			covered = end
		}
		at = end
	}
	return len(b) - covered
}

// sound says whether the CRC of a frame is that of its bytes.
func sound(f []byte) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	return binary.LittleEndian.Uint32(f[4:]) == crc32.Update(crc32.Checksum(f[:4], table), table, f[8:])
}
