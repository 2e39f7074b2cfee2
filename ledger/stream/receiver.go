// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxHead bounds a signed note, as ledger_service.proto does.
const maxHead = 4096

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// Holding is what is held of a ledger. The zero value but for Origin is nothing.
type Holding struct {
	Origin string
	Size   uint64
	Root   []byte   // 32 bytes; of the empty tree, or nil, where Size is 0
	Range  [][]byte // compact range of the tree, left to right
	Epoch  uint64   // of the last record; no later one may be of an earlier epoch
}

// Accepted is what a bundle adds to a holding. It does not hold until it is stored,
// with its Holding, at once.
type Accepted struct {
	// First is the index of the first of Records.
	First uint64
	// Records are those that were not yet held. There are none in a bundle that was
	// sent again.
	Records [][]byte
	// Decoded are the same records, read.
	Decoded []*writv1.Record
	// Head is the signed note that covers them.
	Head []byte
	// Holding is what is then held.
	Holding
}

// Receiver verifies one ledger as it comes in. It is for one goroutine. After an
// error it MUST NOT be used again, and neither when storing what it accepted failed.
type Receiver struct {
	held     Holding
	tree     *compact.Range
	verifier note.Verifier
	logID    [32]byte
	epoch    uint64
}

// NewReceiver returns a receiver that goes on from h, and takes heads that v
// verifies. The name of v MUST be the origin of h: it is compared.
func NewReceiver(h Holding, v note.Verifier) *Receiver {
	if h.Size == 0 {
		h.Root, h.Range, h.Epoch = rfc6962.DefaultHasher.EmptyRoot(), nil, 0
	}
	return &Receiver{held: h, verifier: v, logID: ledger.LogID(h.Origin), epoch: h.Epoch}
}

// Hello says where a sender is to go on, or why its ledger is not taken.
func (r *Receiver) Hello(h *writv1.Hello) (*writv1.Welcome, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if h.GetOrigin() != r.held.Origin {
		return nil, r.finding(Foreign, nil, nil, "hello from %q", h.GetOrigin())
	}
	head := ledger.Head{Origin: r.held.Origin, Root: [32]byte(rfc6962.DefaultHasher.EmptyRoot())}
	if len(h.GetHead()) > 0 {
		var err error
		if head, err = r.open(h.GetHead()); err != nil {
			return nil, err
		}
	}
	switch {
	case head.Size < r.held.Size:
		return nil, r.finding(Rollback, h.GetHead(), nil, "the ledger has %d records, %d are held", head.Size, r.held.Size)
	case head.Size == r.held.Size && !bytes.Equal(head.Root[:], r.held.Root):
		return nil, r.finding(Fork, h.GetHead(), nil, "two trees of size %d", head.Size)
	case h.GetOldestIndex() > r.held.Size:
		return nil, r.finding(Gap, h.GetHead(), nil, "the ledger begins at %d, %d are held", h.GetOldestIndex(), r.held.Size)
	}
	return &writv1.Welcome{DurableSize: r.held.Size, DurableRoot: r.held.Root, CreditBytes: Credit}, nil
}

// check makes sure that what is held is of one piece.
func (r *Receiver) check() error {
	if r.tree != nil {
		return nil
	}
	if r.verifier.Name() != r.held.Origin {
		return r.finding(UnknownKey, nil, nil, "the key is that of %q", r.verifier.Name())
	}
	tree, err := ranges.NewRange(0, r.held.Size, cloneHashes(r.held.Range))
	if err != nil {
		return fmt.Errorf("holding of %s: %w", r.held.Origin, err)
	}
	root, err := rootOf(tree)
	if err != nil || !bytes.Equal(root, r.held.Root) {
		return fmt.Errorf("holding of %s: its range does not give its root: %w", r.held.Origin, errors.Join(err, ledger.ErrMismatch))
	}
	r.tree = tree
	return nil
}

// Feed verifies a bundle. It MUST be stored before it is acknowledged. A bundle that
// was held already gives no records and the same holding; one that disagrees with
// what is held gives a *Finding.
func (r *Receiver) Feed(b *writv1.RecordBundle) (Accepted, error) {
	if err := r.check(); err != nil {
		return Accepted{}, err
	}
	head, err := r.open(b.GetHead())
	if err != nil {
		return Accepted{}, err
	}
	first, n := b.GetFirstIndex(), uint64(len(b.GetRecords()))
	switch {
	case n == 0 || n > 4096 || first+n < first || head.Size != first+n:
		return Accepted{}, r.finding(Malformed, b.GetHead(), nil, "%d records from %d under a head of size %d", n, first, head.Size)
	case first > r.held.Size:
		return Accepted{}, r.finding(Gap, b.GetHead(), nil, "a bundle begins at %d, %d are held", first, r.held.Size)
	case head.Size == r.held.Size && !bytes.Equal(head.Root[:], r.held.Root):
		return Accepted{}, r.finding(Fork, b.GetHead(), nil, "two trees of size %d", head.Size)
	case head.Size <= r.held.Size:
		return Accepted{First: r.held.Size, Head: b.GetHead(), Holding: r.held}, nil
	}
	return r.take(b, head)
}

// take takes the records of a bundle that are not yet held.
func (r *Receiver) take(b *writv1.RecordBundle, head ledger.Head) (Accepted, error) {
	out := Accepted{First: r.held.Size, Records: b.GetRecords()[r.held.Size-b.GetFirstIndex():], Head: b.GetHead()}
	tree, err := ranges.NewRange(0, r.held.Size, cloneHashes(r.tree.Hashes()))
	if err != nil {
		return Accepted{}, fmt.Errorf("range of %s: %w", r.held.Origin, err)
	}
	epoch := r.epoch
	for i, raw := range out.Records {
		index := out.First + uint64(i) //nolint:gosec // not negative
		record, err := ledger.CheckRecord(raw, r.logID, index)
		if err != nil {
			return Accepted{}, r.finding(Malformed, b.GetHead(), err, "record %d", index)
		}
		if record.GetEpoch() < epoch {
			return Accepted{}, r.finding(Malformed, b.GetHead(), nil, "record %d is of epoch %d, after %d", index, record.GetEpoch(), epoch)
		}
		epoch = record.GetEpoch()
		out.Decoded = append(out.Decoded, record)
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(raw), nil); err != nil {
			return Accepted{}, fmt.Errorf("range of %s: %w", r.held.Origin, err)
		}
	}
	root, err := rootOf(tree)
	if err != nil {
		return Accepted{}, fmt.Errorf("range of %s: %w", r.held.Origin, err)
	}
	if !bytes.Equal(root, head.Root[:]) {
		return Accepted{}, r.finding(Fork, b.GetHead(), nil, "the records sent, after those held, do not give the tree of size %d that is signed", head.Size)
	}
	r.tree, r.epoch = tree, epoch
	r.held = Holding{Origin: r.held.Origin, Size: head.Size, Root: root, Range: cloneHashes(tree.Hashes()), Epoch: epoch}
	out.Holding = r.held
	return out, nil
}

// open verifies a head.
func (r *Receiver) open(signed []byte) (ledger.Head, error) {
	if len(signed) > maxHead {
		return ledger.Head{}, r.finding(Malformed, nil, nil, "a head of %d bytes", len(signed))
	}
	head, err := ledger.OpenHead(signed, r.verifier)
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unverified):
		return head, r.finding(UnknownKey, signed, err, "head")
	case err != nil:
		return head, r.finding(Malformed, signed, err, "head")
	case head.Origin != r.held.Origin:
		return head, r.finding(Foreign, signed, nil, "a head of %q", head.Origin)
	}
	return head, nil
}

func (r *Receiver) finding(k FindingKind, head []byte, cause error, format string, args ...any) *Finding {
	held := ledger.Head{Origin: r.held.Origin, Size: r.held.Size}
	copy(held.Root[:], r.held.Root)
	return &Finding{Kind: k, Detail: fmt.Sprintf(format, args...), Held: held, Head: head, Err: cause}
}

func rootOf(t *compact.Range) ([]byte, error) {
	if t.End() == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	return t.GetRootHash(nil)
}

// cloneHashes copies the slice, not the hashes, which nobody changes.
func cloneHashes(h [][]byte) [][]byte { return append([][]byte(nil), h...) }
