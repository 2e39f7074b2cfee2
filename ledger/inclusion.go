// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// ErrInclusion is wrapped by every error about a proof that proves nothing.
var ErrInclusion = errors.New("not a proof of inclusion")

const (
	inclusionMagic = "c2sp.org/tlog-proof@v1"
	// maxPath is how many hashes the path of a 64-bit tree has at most.
	maxPath = 64
	// MaxNoteBytes bounds a signed note, as ledger_service.proto does.
	MaxNoteBytes = 4096
	// MaxInclusionBytes bounds the text of an Inclusion.
	MaxInclusionBytes = len(inclusionMagic) + 1 + len("index ") + 20 + 1 + maxPath*45 + 1 + MaxNoteBytes
)

// Inclusion proves that a record is in a ledger: where it stands, the path from its
// leaf to the root (RFC 6962), and the signed head. As text it is a C2SP tlog-proof
// without extra data, which other transparency tooling reads.
type Inclusion struct {
	Index uint64
	Path  [][]byte // 32 bytes a hash, from the leaf up
	Head  []byte   // the signed note
}

// AppendText appends the text of the proof.
func (p Inclusion) AppendText(dst []byte) []byte {
	dst = append(dst, inclusionMagic+"\nindex "...)
	dst = strconv.AppendUint(dst, p.Index, 10)
	dst = append(dst, '\n')
	for _, hash := range p.Path {
		dst = base64.StdEncoding.AppendEncode(dst, hash)
		dst = append(dst, '\n')
	}
	dst = append(dst, '\n')
	return append(dst, p.Head...)
}

// ParseInclusion reads the text of a proof in its one form: what it returns gives the
// same text again. It verifies nothing.
func ParseInclusion(text []byte) (Inclusion, error) {
	if len(text) > MaxInclusionBytes {
		return Inclusion{}, fmt.Errorf("%w: %d bytes", ErrInclusion, len(text))
	}
	proven, signed, ok := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(proven), "\n")
	if !ok || len(lines) < 2 || len(lines) > 2+maxPath || lines[0] != inclusionMagic {
		return Inclusion{}, fmt.Errorf("%w: no C2SP tlog-proof", ErrInclusion)
	}
	number, ok := strings.CutPrefix(lines[1], "index ")
	index, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return Inclusion{}, fmt.Errorf("%w: no index", ErrInclusion)
	}
	p := Inclusion{Index: index, Head: bytes.Clone(signed)}
	for _, line := range lines[2:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != 32 {
			return Inclusion{}, fmt.Errorf("%w: a line of its path is no hash", ErrInclusion)
		}
		p.Path = append(p.Path, hash)
	}
	if !bytes.Equal(p.AppendText(nil), text) {
		return Inclusion{}, fmt.Errorf("%w: a second spelling", ErrInclusion)
	}
	return p, nil
}

// Verify says whether record stands at the proof's index in the tree of a head. The
// caller MUST have verified the head: it is not read out of p.Head.
func (p Inclusion) Verify(record []byte, head Head) error {
	leaf := newHasher().leaf(record)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, head.Size, leaf[:], p.Path, head.Root[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrInclusion, err)
	}
	return nil
}

// VerifyConsistency says whether the tree of newer begins with that of older, which a
// path of [Prover.Consistency] shows. Both heads MUST have been verified.
func VerifyConsistency(older, newer Head, path [][]byte) error {
	if older.Origin != newer.Origin || older.Size > newer.Size {
		return fmt.Errorf("%w: heads of %s at %d and of %s at %d", ErrMismatch, older.Origin, older.Size, newer.Origin, newer.Size)
	}
	if older.Size == 0 && older.Root != [32]byte(rfc6962.DefaultHasher.EmptyRoot()) {
		return fmt.Errorf("%w: the empty tree has another root", ErrMismatch)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, newer.Size, path, older.Root[:], newer.Root[:]); err != nil {
		return fmt.Errorf("%w: the tree of size %d does not begin with that of size %d: %w", ErrMismatch, newer.Size, older.Size, err)
	}
	return nil
}

// OpenSole reads a note that v signed and nobody else, in its one form: whoever changes
// the lines of signatures, which no signature covers, changes what OpenSole takes.
func OpenSole(signed []byte, v note.Verifier) (Head, error) {
	if len(signed) > MaxNoteBytes {
		return Head{}, fmt.Errorf("%w: %d bytes", ErrHead, len(signed))
	}
	head, err := OpenHead(signed, v)
	if err != nil {
		return Head{}, err
	}
	if head.Origin != v.Name() {
		return Head{}, fmt.Errorf("%w: the head is of %s, the key of %s", ErrHead, head.Origin, v.Name())
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return Head{}, fmt.Errorf("%w: other signatures", ErrHead)
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return Head{}, fmt.Errorf("%w: a second spelling of the signature", ErrHead)
	}
	return head, nil
}

// Sole returns the note that OpenSole takes of one that v signed: the text with v's
// signature and no other.
func Sole(signed []byte, v note.Verifier) ([]byte, error) {
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHead, err)
	}
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHead, err)
	}
	out := append([]byte(n.Text), "\n— "+v.Name()+" "...)
	out = base64.StdEncoding.AppendEncode(out, sig)
	return append(out, '\n'), nil
}
