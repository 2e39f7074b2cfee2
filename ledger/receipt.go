// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ErrReceipt is wrapped by every error about a receipt that proves nothing.
var ErrReceipt = errors.New("not a receipt")

// receiptMagic begins a receipt: "writ/receipt/v1", u32le length of the record,
// record, u8 count, inclusion path (32 bytes a hash, from the leaf up), and to the
// end the signed note of the head. The index stands in the record.
const receiptMagic = "writ/receipt/v1\n"

// maxReceipt bounds a receipt: a record, a path of a 64-bit tree, a note.
const maxReceipt = len(receiptMagic) + 4 + MaxRecordBytes + 1 + 64*32 + 4096

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// Receipt returns the proof that the record is in the ledger: its bytes, the
// inclusion path, the signed head of its batch. It is the same for a position
// whenever it is asked for.
func (p Position) Receipt() ([]byte, error) {
	if p.in == nil {
		return nil, fmt.Errorf("%w: nothing was recorded", ErrReceipt)
	}
	path, err := p.in.path(p.Index)
	if err != nil {
		return nil, fmt.Errorf("inclusion path of record %d: %w", p.Index, err)
	}
	record := p.in.record(p.slot)
	out := make([]byte, 0, len(receiptMagic)+5+len(record)+32*len(path)+512)
	out = append(out, receiptMagic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(record))) //nolint:gosec // at most MaxRecordBytes
	out = append(out, record...)
	out = append(out, byte(len(path)))
	for _, h := range path {
		out = append(out, h...)
	}
	return append(out, p.in.note()...), nil
}

// path computes an inclusion path in the tree of the batch's head. What lies left of
// the batch is in its compact range; what lies in it is computed again.
func (b *batch) path(index uint64) ([][]byte, error) {
	nodes := make(map[compact.NodeID][]byte, 2*len(b.leaves)+len(b.before))
	left := make([][]byte, len(b.before))
	for i, id := range compact.RangeNodes(0, b.first, nil) {
		left[i] = b.before[i][:]
		nodes[id] = left[i]
	}
	r, err := ranges.NewRange(0, b.first, left)
	if err != nil {
		return nil, err
	}
	for i := range b.leaves {
		if err := r.Append(b.leaves[i][:], func(id compact.NodeID, hash []byte) { nodes[id] = hash }); err != nil {
			return nil, err
		}
	}
	wanted, err := proof.Inclusion(index, b.end())
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(wanted.IDs))
	for _, id := range wanted.IDs {
		h, ok := nodes[id]
		if !ok {
			return nil, fmt.Errorf("no node %d at level %d", id.Index, id.Level)
		}
		hashes = append(hashes, h)
	}
	return wanted.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}

// VerifyReceipt verifies that the receipt's record is in the ledger of the key, and
// returns it and the head that proves it. It says nothing of when, or of what else
// the ledger holds.
func VerifyReceipt(receipt []byte, v note.Verifier) (*writv1.Record, Head, error) {
	raw, path, signed, err := parseReceipt(receipt)
	if err != nil {
		return nil, Head{}, err
	}
	// A note is not signed over its own lines of signatures: only the one form that we
	// write is taken, so that a receipt has one form.
	head, err := OpenSole(signed, v)
	if err != nil {
		return nil, Head{}, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	record := &writv1.Record{}
	if err := canonical.Unmarshal(raw, record); err != nil {
		return nil, Head{}, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	if id := LogID(head.Origin); string(record.GetLogId()) != string(id[:]) {
		return nil, Head{}, fmt.Errorf("%w: the record is of another ledger", ErrReceipt)
	}
	leaf := newHasher().leaf(raw)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, record.GetIndex(), head.Size, leaf[:], path, head.Root[:]); err != nil {
		return nil, Head{}, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	return record, head, nil
}

func parseReceipt(b []byte) (record []byte, path [][]byte, signed []byte, err error) {
	if len(b) > maxReceipt || len(b) < len(receiptMagic)+5 || string(b[:len(receiptMagic)]) != receiptMagic {
		return nil, nil, nil, fmt.Errorf("%w: bad beginning or length", ErrReceipt)
	}
	b = b[len(receiptMagic):]
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(n)+1 > uint64(len(b)) || n > MaxRecordBytes {
		return nil, nil, nil, fmt.Errorf("%w: cut short", ErrReceipt)
	}
	record, b = b[:n], b[n:]
	count := int(b[0])
	b = b[1:]
	if count > 64 || len(b) < 32*count {
		return nil, nil, nil, fmt.Errorf("%w: cut short", ErrReceipt)
	}
	path = slices.Collect(slices.Chunk(b[:32*count], 32))
	return record, path, b[32*count:], nil
}
