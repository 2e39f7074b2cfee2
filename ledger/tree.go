// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"math/bits"

	"github.com/transparency-dev/merkle/rfc6962"
)

// tree is the compact range [0, size) of a Merkle tree as in RFC 6962, without
// allocation: github.com/transparency-dev/merkle/compact, against which it is
// tested and which everything off the hot path uses, makes two slices a leaf.
// The zero value is the empty tree; a copy is a tree of its own.
type tree struct {
	size  uint64
	nodes [64][32]byte // nodes[i] is a perfect subtree of 2^i leaves where bit i of size is set
}

func rangeSize(size uint64) int { return bits.OnesCount64(size) }

// append adds the hash of a leaf.
func (t *tree) append(leaf [32]byte) {
	level := 0
	for ; t.size>>level&1 == 1; level++ {
		leaf = hashChildren(&t.nodes[level], &leaf)
	}
	t.nodes[level] = leaf
	t.size++
}

// root returns the hash of the whole tree.
func (t *tree) root() [32]byte {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	level := bits.TrailingZeros64(t.size)
	root := t.nodes[level]
	for level++; t.size>>level != 0; level++ {
		if t.size>>level&1 == 1 {
			root = hashChildren(&t.nodes[level], &root)
		}
	}
	return root
}

// hashes returns the compact range, left to right: the largest subtree first.
func (t *tree) hashes() [][32]byte {
	out := make([][32]byte, 0, rangeSize(t.size))
	for level := 63; level >= 0; level-- {
		if t.size>>level&1 == 1 {
			out = append(out, t.nodes[level])
		}
	}
	return out
}

// newTree makes the tree of a compact range.
func newTree(size uint64, hashes [][32]byte) (tree, error) {
	if len(hashes) != rangeSize(size) {
		return tree{}, fmt.Errorf("compact range of size %d has %d hashes, want %d", size, len(hashes), rangeSize(size))
	}
	t := tree{size: size}
	for level := 63; level >= 0; level-- {
		if size>>level&1 == 1 {
			t.nodes[level], hashes = hashes[0], hashes[1:]
		}
	}
	return t, nil
}

func hashChildren(left, right *[32]byte) [32]byte {
	var b [65]byte
	b[0] = rfc6962.RFC6962NodeHashPrefix
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// hasher hashes leaves, one after the other. It is one goroutine's.
type hasher struct{ h hash.Hash }

func newHasher() hasher { return hasher{sha256.New()} }

var leafPrefix = []byte{rfc6962.RFC6962LeafHashPrefix}

func (h hasher) leaf(record []byte) (sum [32]byte) {
	h.h.Reset()
	h.h.Write(leafPrefix)
	h.h.Write(record)
	h.h.Sum(sum[:0])
	return sum
}
