// SPDX-License-Identifier: Apache-2.0

package proofs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd archive makes its reader keep; ours ask for 8 MiB.
const maxWindow = 64 << 20

// Compress returns the writer that compresses as the name of a file says: by zstd for
// .zst, by gzip for .gz and .tgz, and else not at all. It MUST be closed; that does not
// close w.
func Compress(name string, w io.Writer) (io.WriteCloser, error) {
	switch {
	case strings.HasSuffix(name, ".zst"):
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		return gzip.NewWriter(w), nil
	default:
		return plain{w}, nil
	}
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Decompress returns the reader of what may be compressed by gzip or zstd, which its
// first bytes say. It MUST be closed.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	magic, _ := in.Peek(4) // of what has fewer bytes the reader finds out
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		out, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return out, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		out, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return out.IOReadCloser(), nil
	default:
		return io.NopCloser(in), nil
	}
}
