// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Types of frames.
const (
	frameHeader byte = 0
	frameRecord byte = 1
	frameHead   byte = 2
	frameSeal   byte = 3
)

const (
	prefixBytes  = 9 // length, CRC, type
	headBytes    = 8 + 32 + 4 + 64
	sealBytes    = 8 + 32
	magic        = "WRITDLOG"
	version      = 1
	maxFrame     = prefixBytes + MaxRecordBytes
	segmentExtra = 2*prefixBytes + headBytes + sealBytes // what a batch may cost beyond its records
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn is wrapped by errors about bytes that are not a frame. The CRC is for
// torn writes and bit rot; what keeps people out are the tree and the signatures.
var errTorn = errors.New("not a frame")

// errRead is wrapped by errors of the file system: they say nothing of what is there.
var errRead = errors.New("cannot be read")

// errCut is the errTorn of a frame that the segment ends in.
var errCut = fmt.Errorf("%w: cut short", errTorn)

// beginFrame makes room for a frame's prefix; endFrame fills it in.
func beginFrame(dst []byte, kind byte) []byte {
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind)
}

// endFrame completes the frame that begins at start and goes on to the end of b.
func endFrame(b []byte, start int) {
	f := b[start:]
	binary.LittleEndian.PutUint32(f, uint32(len(f)-prefixBytes)) //nolint:gosec // at most maxFrame
	binary.LittleEndian.PutUint32(f[4:], frameSum(f))
}

func frameSum(f []byte) uint32 {
	return crc32.Update(crc32.Checksum(f[:4], castagnoli), castagnoli, f[8:])
}

// frame is a frame as it was read. The payload is valid until the next is read.
type frame struct {
	kind    byte
	payload []byte
	offset  int64 // of the frame in its segment
}

func (f frame) end() int64 { return f.offset + prefixBytes + int64(len(f.payload)) }

// parseFrame reads the frame at the beginning of b. It returns io.ErrUnexpectedEOF
// where b ends first, which is not yet an error for one who can read more.
func parseFrame(b []byte) (kind byte, payload []byte, err error) {
	if len(b) < prefixBytes {
		return 0, nil, io.ErrUnexpectedEOF
	}
	n, kind := binary.LittleEndian.Uint32(b), b[8]
	if kind > frameSeal || !validLength(kind, n) {
		return 0, nil, fmt.Errorf("%w: type %d, length %d", errTorn, kind, n)
	}
	if uint64(len(b)) < prefixBytes+uint64(n) {
		return 0, nil, io.ErrUnexpectedEOF
	}
	b = b[:prefixBytes+int(n)]
	if binary.LittleEndian.Uint32(b[4:]) != frameSum(b) {
		return 0, nil, fmt.Errorf("%w: wrong CRC", errTorn)
	}
	return kind, b[prefixBytes:], nil
}

func validLength(kind byte, n uint32) bool {
	switch kind {
	case frameHead:
		return n == headBytes
	case frameSeal:
		return n == sealBytes
	default:
		return n > 0 && n <= MaxRecordBytes
	}
}

// scanner reads the frames of a segment one after the other, without copying.
type scanner struct {
	r      *bufio.Reader
	offset int64
	last   int // bytes of the frame that was returned last
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, 1<<20)}
}

// next returns the next frame; io.EOF at the end of a whole frame; an error that wraps
// errRead where the file cannot be read; and one that wraps errTorn for anything else
// that is no frame, a cut one included.
func (s *scanner) next() (frame, error) {
	if s.last > 0 {
		n, err := s.r.Discard(s.last)
		s.offset += int64(n)
		s.last = 0
		if err != nil {
			return frame{}, fmt.Errorf("%w: %w", errRead, err)
		}
	}
	b, err := s.r.Peek(prefixBytes)
	if len(b) == 0 && errors.Is(err, io.EOF) {
		return frame{}, io.EOF
	}
	if len(b) == prefixBytes {
		want := prefixBytes + int(min(binary.LittleEndian.Uint32(b), MaxRecordBytes))
		b, err = s.r.Peek(want)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return frame{}, fmt.Errorf("%w: %w", errRead, err)
	}
	kind, payload, err := parseFrame(b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCut
	}
	if err != nil {
		return frame{offset: s.offset}, err
	}
	s.last = prefixBytes + len(payload)
	return frame{kind: kind, payload: payload, offset: s.offset}, nil
}

// header is the first frame of a segment.
type header struct {
	epoch  uint64
	first  uint64
	origin string
	hashes [][32]byte // compact range of the tree before first, left to right
}

func (h header) append(dst []byte) []byte {
	start := len(dst)
	dst = beginFrame(dst, frameHeader)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, version)
	dst = binary.LittleEndian.AppendUint64(dst, h.epoch)
	dst = binary.LittleEndian.AppendUint64(dst, h.first)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.origin))) //nolint:gosec // at most 512
	dst = append(dst, h.origin...)
	dst = append(dst, byte(len(h.hashes)))
	for i := range h.hashes {
		dst = append(dst, h.hashes[i][:]...)
	}
	endFrame(dst, start)
	return dst
}

func parseHeader(b []byte) (header, error) {
	const fixed = len(magic) + 4 + 8 + 8 + 2
	if len(b) < fixed || string(b[:len(magic)]) != magic {
		return header{}, errors.New("no segment header")
	}
	b = b[len(magic):]
	if v := binary.LittleEndian.Uint32(b); v != version {
		return header{}, fmt.Errorf("segment version %d, want %d", v, version)
	}
	h := header{epoch: binary.LittleEndian.Uint64(b[4:]), first: binary.LittleEndian.Uint64(b[12:])}
	n := int(binary.LittleEndian.Uint16(b[20:]))
	b = b[22:]
	if len(b) < n+1 {
		return header{}, errors.New("segment header is cut short")
	}
	h.origin = string(b[:n])
	count := int(b[n])
	b = b[n+1:]
	if len(b) != 32*count || count != rangeSize(h.first) {
		return header{}, fmt.Errorf("segment header has %d bytes of hashes, want %d", len(b), 32*rangeSize(h.first))
	}
	for c := range slices.Chunk(b, 32) {
		h.hashes = append(h.hashes, [32]byte(c))
	}
	return h, nil
}

func appendSeal(dst []byte, size uint64, root [32]byte) []byte {
	start := len(dst)
	dst = beginFrame(dst, frameSeal)
	dst = binary.LittleEndian.AppendUint64(dst, size)
	dst = append(dst, root[:]...)
	endFrame(dst, start)
	return dst
}
