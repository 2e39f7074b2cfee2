// SPDX-License-Identifier: Apache-2.0

package ledger // white box: the tree of the hot path against the module it stands in for

import (
	"bytes"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"pgregory.net/rapid"
)

func TestTheTreeIsThatOfRFC6962(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		factory := &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
		want, got, h := factory.NewEmptyRange(0), tree{}, newHasher()
		if empty := got.root(); !bytes.Equal(empty[:], rfc6962.DefaultHasher.EmptyRoot()) {
			t.Fatalf("root of nothing = %x", empty)
		}
		for range rapid.IntRange(1, 300).Draw(t, "leaves") {
			leaf := []byte{byte(got.size), byte(got.size >> 8)}
			if err := want.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
				t.Fatal(err)
			}
			got.append(h.leaf(leaf))
			if rapid.IntRange(0, 9).Draw(t, "reload") == 0 {
				again, err := newTree(got.size, got.hashes())
				if err != nil {
					t.Fatal(err)
				}
				got = again
			}
		}
		root, err := want.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := got.root(); !bytes.Equal(r[:], root) {
			t.Fatalf("root of %d leaves = %x, want %x", got.size, r, root)
		}
		for i, hash := range got.hashes() {
			if !bytes.Equal(hash[:], want.Hashes()[i]) {
				t.Fatalf("compact range of %d leaves differs at %d", got.size, i)
			}
		}
	})
}
