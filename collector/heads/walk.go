// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"bytes"
	"context"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
)

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// walk makes the log again from its entries, and holds its files against that. Tessera's
// own fsck does the same, and its version 1.0.4 never returns where a tile is wrong: the
// worker that finds it ends, and who feeds it waits.
type walk struct {
	files client.FileFetcher
	// roots are those of checkpoints, by size.
	roots map[uint64][32]byte
	tree  *compact.Range
	// levels are the hashes of each level that are not in a full tile yet, and full is how
	// many full tiles there are left of them.
	levels [][][]byte
	full   []uint64
}

// check holds the tree so far against the checkpoint of its size, if there is one.
func (w *walk) check() error {
	want, there := w.roots[w.tree.End()]
	if !there {
		return nil
	}
	root := rfc6962.DefaultHasher.EmptyRoot()
	if w.tree.End() > 0 {
		var err error
		if root, err = w.tree.GetRootHash(nil); err != nil {
			return err
		}
	}
	if !bytes.Equal(root, want[:]) {
		return faultf("fork: the tree of the log's first %d entries is not that of the checkpoint", w.tree.End())
	}
	return nil
}

// bundle holds the next entry bundle against the entries that it must have, and adds them
// to the tree.
func (w *walk) bundle(ctx context.Context, want [][]byte) error {
	first := w.tree.End()
	raw, err := w.files.ReadEntryBundle(ctx, first/batch, uint8(len(want)%batch)) //nolint:gosec // below batch
	if err != nil {
		return faultf("the log's entries from %d on: %w", first, err)
	}
	have, err := bundleOf(raw)
	if err != nil {
		return faultf("the log's entries from %d on: %w", first, err)
	}
	for i, entry := range want {
		if i >= len(have) || !bytes.Equal(have[i], entry) {
			return faultf("%w: entry %d is another", ErrDiffers, first+uint64(i)) //nolint:gosec // an index
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(entry)
		if err := w.tree.Append(leaf, nil); err != nil {
			return err
		}
		if err := w.check(); err != nil {
			return err
		}
		if err := w.add(ctx, 0, leaf); err != nil {
			return err
		}
	}
	return nil
}

// add adds a hash to a level of tiles.
func (w *walk) add(ctx context.Context, level int, hash []byte) error {
	if level == len(w.levels) {
		w.levels, w.full = append(w.levels, nil), append(w.full, 0)
	}
	w.levels[level] = append(w.levels[level], hash)
	if len(w.levels[level]) < layout.TileWidth {
		return nil
	}
	if err := w.tile(ctx, level, 0); err != nil {
		return err
	}
	above := subtree(w.levels[level])
	w.levels[level] = nil
	w.full[level]++
	return w.add(ctx, level+1, above)
}

// subtree is the root of a full tile.
func subtree(hashes [][]byte) []byte {
	for len(hashes) > 1 {
		var above [][]byte
		for i := 0; i < len(hashes); i += 2 {
			above = append(above, rfc6962.DefaultHasher.HashChildren(hashes[i], hashes[i+1]))
		}
		hashes = above
	}
	return hashes[0]
}

// tile holds the next tile of a level against the hashes that it must have; where it is
// partial, one that has grown meanwhile has more.
func (w *walk) tile(ctx context.Context, level int, partial uint8) error {
	want := bytes.Join(w.levels[level], nil)
	raw, err := w.files.ReadTile(ctx, uint64(level), w.full[level], partial) //nolint:gosec // not negative
	if err != nil {
		return faultf("tile %d of level %d: %w", w.full[level], level, err)
	}
	if !bytes.HasPrefix(raw, want) || len(raw) > len(want) && partial == 0 {
		return faultf("tile %d of level %d is not that of the log's tree", w.full[level], level)
	}
	return nil
}

// end holds the partial tiles at the log's end against the tree.
func (w *walk) end(ctx context.Context) error {
	for level, hashes := range w.levels {
		if len(hashes) == 0 {
			continue
		}
		if err := w.tile(ctx, level, uint8(len(hashes))); err != nil { //nolint:gosec // below a tile's width
			return err
		}
	}
	return nil
}
