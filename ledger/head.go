// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ErrHead is wrapped by errors about notes that are no signed head.
var ErrHead = errors.New("not a signed head")

// Head is a state of a ledger: what a C2SP checkpoint says.
type Head struct {
	Origin string
	Size   uint64
	Root   [32]byte
}

// AppendText appends the text that a signature is over: origin, size and root, a
// line each. Time, epoch and tenant stand in records; a checkpoint has no
// extension lines here, for cosignatures may not cover them.
func (h Head) AppendText(dst []byte) []byte {
	dst = append(dst, h.Origin...)
	dst = append(dst, '\n')
	dst = strconv.AppendUint(dst, h.Size, 10)
	dst = append(dst, '\n')
	dst = base64.StdEncoding.AppendEncode(dst, h.Root[:])
	return append(dst, '\n')
}

// ParseHead reads the text of a checkpoint without extension lines.
func ParseHead(text string) (Head, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return Head{}, fmt.Errorf("%w: want three lines", ErrHead)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return Head{}, fmt.Errorf("%w: bad size", ErrHead)
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != 32 || len(lines[2]) != 44 {
		return Head{}, fmt.Errorf("%w: bad root", ErrHead)
	}
	return Head{Origin: lines[0], Size: size, Root: [32]byte(root)}, nil
}

// SignHead returns the signed note of a head. A signer that is not the ledger's own
// (a collector that acknowledges) says with it that it holds all of the tree.
func SignHead(h Head, s note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: string(h.AppendText(nil))}, s)
}

// OpenHead reads a signed note and verifies that v signed it. Whether the head's
// origin is the one that v's key may speak of is the caller's to compare.
func OpenHead(signed []byte, v note.Verifier) (Head, error) {
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrHead, err)
	}
	return ParseHead(n.Text)
}

// appendHead appends a head frame: what the note says beyond the origin, which the
// segment's header has.
func appendHead(dst []byte, h Head, s note.Signer) ([]byte, error) {
	sig, err := s.Sign(h.AppendText(make([]byte, 0, 640)))
	if err != nil {
		return dst, fmt.Errorf("sign head: %w", err)
	}
	start := len(dst)
	dst = beginFrame(dst, frameHead)
	dst = binary.LittleEndian.AppendUint64(dst, h.Size)
	dst = append(dst, h.Root[:]...)
	dst = binary.BigEndian.AppendUint32(dst, s.KeyHash())
	dst = append(dst, sig...)
	endFrame(dst, start)
	return dst, nil
}

// parseHead reads the payload of a head frame, which has headBytes. It does not
// look at the signature.
func parseHead(b []byte, origin string) Head {
	return Head{Origin: origin, Size: binary.LittleEndian.Uint64(b), Root: [32]byte(b[8:40])}
}

// verifyHead verifies the signature in the payload of a head frame.
func verifyHead(b []byte, h Head, v note.Verifier) error {
	if binary.BigEndian.Uint32(b[40:]) != v.KeyHash() {
		return fmt.Errorf("%w: signed with another key", ErrHead)
	}
	if !v.Verify(h.AppendText(make([]byte, 0, 640)), b[44:]) {
		return fmt.Errorf("%w: wrong signature", ErrHead)
	}
	return nil
}

// expandHead is the signed note that the payload of a head frame stands for.
func expandHead(b []byte, h Head) []byte {
	out := h.AppendText(make([]byte, 0, 2*len(h.Origin)+256))
	out = append(out, "\n— "...)
	out = append(out, h.Origin...)
	out = append(out, ' ')
	out = base64.StdEncoding.AppendEncode(out, b[40:])
	return append(out, '\n')
}
