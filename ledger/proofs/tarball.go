// SPDX-License-Identifier: Apache-2.0

package proofs

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// block is what tar counts in.
const block = 512

// errCut says that a bundle ends before its end.
var errCut = errors.New("it is cut short")

// header is the one block that stands before an entry: what archive/tar writes, with
// nothing in it that differs from one day or machine to the next.
func header(name string, size int64) ([]byte, error) {
	var out bytes.Buffer
	err := tar.NewWriter(&out).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	})
	if err == nil && out.Len() != block {
		err = errors.New("its name is too long")
	}
	return out.Bytes(), err
}

// padding is how many zeros stand after so many bytes.
func padding(size int64) int64 { return -size & (block - 1) }

// tarball reads a tar archive in the one form of a bundle, entry by entry.
type tarball struct {
	in   *bufio.Reader
	name string
	size int64
}

func newTarball(r io.Reader) *tarball { return &tarball{in: bufio.NewReaderSize(r, 64<<10)} }

// next goes to the next entry, and says with io.EOF that there is none.
func (t *tarball) next() error {
	got := make([]byte, block)
	if err := t.fill(got); err != nil {
		return err
	}
	if bytes.Equal(got, make([]byte, block)) {
		return t.end()
	}
	name, _, _ := bytes.Cut(got[:100], []byte{0})
	size, err := strconv.ParseInt(string(bytes.TrimRight(got[124:136], "\x00")), 8, 64)
	if err != nil || size < 0 {
		return errors.New("no header of an entry")
	}
	if want, err := header(string(name), size); err != nil || !bytes.Equal(want, got) {
		return errors.New("a header of an entry that is not as it is written")
	}
	t.name, t.size = string(name), size
	return nil
}

// end reads what stands at the end of an archive.
func (t *tarball) end() error {
	rest := make([]byte, block)
	if err := t.fill(rest); err != nil {
		return err
	}
	if !bytes.Equal(rest, make([]byte, block)) {
		return errors.New("something stands after the end")
	}
	switch _, err := t.in.ReadByte(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return err
	default:
		return errors.New("something stands after the end")
	}
}

// content reads the entry that next went to, which MUST have at most so many bytes.
func (t *tarball) content(most int) ([]byte, error) {
	if t.size > int64(most) {
		return nil, fmt.Errorf("%d bytes, at most %d", t.size, most)
	}
	out := make([]byte, t.size+padding(t.size))
	if err := t.fill(out); err != nil {
		return nil, err
	}
	for _, b := range out[t.size:] {
		if b != 0 {
			return nil, errors.New("something stands behind it")
		}
	}
	return out[:t.size:t.size], nil
}

// skip goes over the entry that next went to.
func (t *tarball) skip() error {
	if t.size > maxManifest {
		return fmt.Errorf("%s: %d bytes, at most %d", t.name, t.size, maxManifest)
	}
	n := t.size + padding(t.size)
	if _, err := io.CopyN(io.Discard, t.in, n); errors.Is(err, io.EOF) {
		return errCut
	} else if err != nil {
		return err
	}
	return nil
}

func (t *tarball) fill(b []byte) error {
	_, err := io.ReadFull(t.in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
