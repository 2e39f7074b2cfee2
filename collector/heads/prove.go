// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
)

// ErrPending says that an entry is not under a checkpoint yet.
var ErrPending = errors.New("the log has no checkpoint over it yet")

// Prove proves that the log has the source's entry of an index: a C2SP tlog-proof with the
// entry as its extra data, the path to the root, and the newest checkpoint with the
// signatures that it has. Only what verifies is returned. It trusts no file of the log.
func Prove(ctx context.Context, e Evidence, index uint64) ([]byte, error) {
	checkpoint, err := ReadCheckpoint(filepath.Join(e.Dir, layout.CheckpointPath))
	if err != nil {
		return nil, fmt.Errorf("the log's checkpoint: %w", err)
	}
	head, err := (&verification{Evidence: e}).open(checkpoint)
	if err != nil {
		return nil, fmt.Errorf("the log's checkpoint: %w", err)
	}
	entries, err := e.Source.Entries(ctx, index, 1)
	if err != nil {
		return nil, err
	}
	if index >= head.Size || len(entries) == 0 {
		return nil, fmt.Errorf("%w: entry %d, and the checkpoint is of %d", ErrPending, index, head.Size)
	}
	builder, err := client.NewProofBuilder(ctx, head.Size, client.FileFetcher{Root: e.Dir}.ReadTile)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	path, err := builder.InclusionProof(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entries[0])
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, head.Size, leaf, path, head.Root[:]); err != nil {
		return nil, fmt.Errorf("%w: entry %d is not in its tree: %w", ErrDiffers, index, err)
	}
	return formatProof(entries[0], index, path, checkpoint), nil
}

// formatProof writes a C2SP tlog-proof.
func formatProof(entry []byte, index uint64, path [][]byte, checkpoint []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nextra %s\nindex %d\n", base64.StdEncoding.EncodeToString(entry), index)
	for _, hash := range path {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(hash))
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.Bytes()
}
