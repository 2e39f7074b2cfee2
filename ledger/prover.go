// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// provenBlock is how many records a Prover holds back: those below one node of level 8,
// as a tile of C2SP tlog-tiles.
const (
	provenLevel = 8
	provenBlock = 1 << provenLevel
)

// ErrNoProof says that a proof needs records that are no longer held.
var ErrNoProof = errors.New("the proof needs records that are no longer held")

// Prover computes the paths of records in the tree of one head, in two passes over the
// records of its ledger. The first, with Survey, keeps of the tree the nodes of level 8
// and above: about a quarter of a byte a record. The second, with
// Keep and Skip, gives the paths of those kept, 256 places at a time. A Prover is for one
// goroutine.
//
//	p, err := ledger.NewProver(first, before)
//	for _, record := range records { err = p.Survey(record) }
//	err = p.Surveyed(head) // the records give the head's root
//	for _, record := range records { proven, err := p.Keep(record) }
type Prover struct {
	head  Head
	first uint64
	left  [][]byte // compact range before first

	hash   hasher
	tree   *compact.Range
	nodes  nodes           // of the first pass
	block  nodes           // of the block under way: what is below level 8
	wanted map[uint64]bool // blocks of which the nodes below level 8 are kept too
	kept   []Proven
	second bool
}

type nodes map[compact.NodeID][32]byte

// Proven is a record with its path.
type Proven struct {
	Index  uint64
	Record []byte
	Path   [][]byte
}

// NewProver returns the prover of a ledger whose records are held from first on; before
// is the compact range of those that are not, left to right.
func NewProver(first uint64, before [][32]byte) (*Prover, error) {
	if len(before) != rangeSize(first) {
		return nil, fmt.Errorf("%w: %d hashes of the %d records before", ErrInvalid, len(before), first)
	}
	p := &Prover{first: first, hash: newHasher(), nodes: nodes{}, block: nodes{}, wanted: map[uint64]bool{}}
	for i, id := range compact.RangeNodes(0, first, nil) {
		p.left = append(p.left, before[i][:])
		p.nodes[id] = before[i]
	}
	return p, p.begin()
}

// begin begins a pass.
func (p *Prover) begin() (err error) {
	p.tree, err = ranges.NewRange(0, p.first, slices.Clone(p.left))
	return err
}

// Want has the first pass keep what Consistency needs for an older size.
func (p *Prover) Want(size uint64) {
	if size > 0 {
		p.wanted[(size-1)>>provenLevel] = true
	}
}

// Survey takes the next record of the first pass.
func (p *Prover) Survey(record []byte) error {
	leaf := p.hash.leaf(record)
	err := p.tree.Append(leaf[:], func(id compact.NodeID, hash []byte) {
		begin, _ := id.Coverage()
		if id.Level >= provenLevel || p.wanted[begin>>provenLevel] {
			p.nodes[id] = [32]byte(hash)
		} else {
			p.block[id] = [32]byte(hash)
		}
	})
	if p.tree.End()%provenBlock == 0 {
		clear(p.block)
	}
	return err
}

// Surveyed ends the first pass: the records MUST give the root of the head, whose paths
// the second gives.
func (p *Prover) Surveyed(head Head) error {
	root, err := p.Root()
	switch {
	case err != nil:
		return err
	case p.tree.End() != head.Size:
		return fmt.Errorf("%w: %d records, the head is over %d", ErrHead, p.tree.End(), head.Size)
	case root != head.Root:
		return fmt.Errorf("%w: the root of size %d is not that of the records", ErrHead, head.Size)
	}
	// What is right of the last whole block every path needs.
	maps.Copy(p.nodes, p.block)
	clear(p.block)
	p.head, p.second = head, true
	return p.begin()
}

// Root is the root of the tree over the records that the pass under way has taken.
func (p *Prover) Root() (root [32]byte, err error) {
	if p.tree.End() == 0 {
		return [32]byte(rfc6962.DefaultHasher.EmptyRoot()), nil
	}
	hash, err := p.tree.GetRootHash(nil)
	copy(root[:], hash)
	return root, err
}

// Keep takes the next record of the second pass, whose path is wanted. It returns the
// records whose paths can be told by now, in order; a record MUST NOT be changed before.
func (p *Prover) Keep(record []byte) ([]Proven, error) {
	p.kept = append(p.kept, Proven{Index: p.tree.End(), Record: record})
	return p.next(record)
}

// Skip takes the next record of the second pass, whose path is not wanted, and returns
// as Keep does.
func (p *Prover) Skip(record []byte) ([]Proven, error) { return p.next(record) }

func (p *Prover) next(record []byte) ([]Proven, error) {
	if !p.second || p.tree.End() >= p.head.Size {
		return nil, fmt.Errorf("%w: a record that the first pass has not seen", ErrInvalid)
	}
	leaf := p.hash.leaf(record)
	changed := false
	err := p.tree.Append(leaf[:], func(id compact.NodeID, hash []byte) {
		if known, ok := p.nodes[id]; ok {
			changed = changed || known != [32]byte(hash)
		} else {
			p.block[id] = [32]byte(hash)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case changed:
		return nil, fmt.Errorf("%w: the records before %d are not those of the first pass", ErrCorrupt, p.tree.End())
	case p.tree.End()%provenBlock != 0 && p.tree.End() != p.head.Size:
		return nil, nil
	}
	out := p.kept
	for i := range out {
		of, err := proof.Inclusion(out[i].Index, p.head.Size)
		if err != nil {
			return nil, err
		}
		if out[i].Path, err = p.path(of); err != nil {
			return nil, err
		}
	}
	p.kept = nil
	clear(p.block)
	return out, nil
}

// Consistency returns the path that shows that the tree begins with that of an older
// size, which MUST have been wanted before the first pass. It is called after the first
// pass, and returns ErrNoProof where the size lies too far before the oldest record held.
func (p *Prover) Consistency(size uint64) ([][]byte, error) {
	of, err := proof.Consistency(size, p.head.Size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p.path(of)
}

// path puts the nodes of a proof together.
func (p *Prover) path(of proof.Nodes) ([][]byte, error) {
	hashes := make([][]byte, 0, len(of.IDs))
	for _, id := range of.IDs {
		hash, ok := p.block[id]
		if !ok {
			hash, ok = p.nodes[id]
		}
		if !ok {
			return nil, fmt.Errorf("%w: node %d of level %d", ErrNoProof, id.Index, id.Level)
		}
		hashes = append(hashes, slices.Clone(hash[:]))
	}
	return of.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}
