// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
)

// maxCheckpoint bounds a checkpoint with the signatures of its witnesses.
const maxCheckpoint = 64 << 10

// Evidence is what a log is verified by.
type Evidence struct {
	// Dir is the log's directory. It MUST be set.
	Dir string
	// Key is the log's. It MUST be set.
	Key note.Verifier
	// Source has the entries that the log is to have. It MUST be set.
	Source Source
	// Kept are checkpoints of the log that were kept elsewhere, which the log must go on
	// from.
	Kept [][]byte
	// Policy names the witnesses that must have cosigned the newest checkpoint. Empty:
	// none.
	Policy []byte
}

// Report is what Verify found.
type Report struct {
	// Origin is the log's.
	Origin string
	// Size and Root are those of the newest checkpoint.
	Size uint64
	Root [32]byte
	// Pending is how many entries are stored and not under a checkpoint yet.
	Pending uint64
	// Signatures is how many there are on the checkpoint, the log's own among them.
	Signatures int
	// Fault is the first thing that is wrong, or nil.
	Fault error
}

// Verify verifies a log, offline and without changing it, while the collector writes it and
// while none does: that its key signed the newest checkpoint; that the tree over the
// source's entries is the checkpoint's; that entry bundles and tiles are those of that
// tree (Tessera's own fsck); that it goes on from every checkpoint that was kept; that the
// witnesses of the policy cosigned. The error says that something could not be read;
// what is wrong with what was read stands in the report.
func Verify(ctx context.Context, e Evidence) (*Report, error) {
	routeTesseraLog(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(ctx) // fsck's workers end with it
	defer cancel()
	raw, err := readCheckpoint(filepath.Join(e.Dir, layout.CheckpointPath))
	if err != nil {
		return nil, err
	}
	v := &verification{Evidence: e, report: &Report{Origin: e.Key.Name()}, checkpoint: raw}
	if v.report.Fault, err = faultOf(v.run(ctx)); err != nil {
		return nil, fmt.Errorf("verify the log in %s: %w", e.Dir, err)
	}
	return v.report, nil
}

// fault is an error that is a finding of Verify's, and no failure.
type fault struct{ error }

// Unwrap is what is wrong.
func (f fault) Unwrap() error { return f.error }

func faultf(format string, args ...any) error { return fault{fmt.Errorf(format, args...)} }

// faultOf tells findings from failures.
func faultOf(err error) (found, failed error) {
	var f fault
	if errors.As(err, &f) {
		return f.error, nil
	}
	return nil, err
}

func readCheckpoint(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the directory is the operator's
	if err != nil {
		return nil, fmt.Errorf("the log's checkpoint: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	raw, err := io.ReadAll(io.LimitReader(file, maxCheckpoint+1))
	if err != nil || len(raw) > maxCheckpoint {
		return nil, fmt.Errorf("the log's checkpoint %s: more than %d bytes, or %w", path, maxCheckpoint, err)
	}
	return raw, nil
}

// verification is a run of Verify.
type verification struct {
	Evidence
	report     *Report
	checkpoint []byte
}

func (v *verification) run(ctx context.Context) error {
	head, err := v.open(v.checkpoint)
	if err != nil {
		return faultf("the newest checkpoint: %w", err)
	}
	v.report.Size, v.report.Root = head.Size, head.Root
	// The key is known by now: what is left is to count.
	signed, err := note.Open(v.checkpoint, note.VerifierList(v.Key))
	if err != nil {
		return faultf("the newest checkpoint: %w", err)
	}
	v.report.Signatures = len(signed.Sigs) + len(signed.UnverifiedSigs)
	kept, err := v.kept(head)
	if err != nil {
		return err
	}
	if err := v.entries(ctx, head, kept); err != nil {
		return err
	}
	if err := v.files(ctx, head); err != nil {
		return err
	}
	return v.witnessed()
}

// open reads a checkpoint of the log.
func (v *verification) open(raw []byte) (ledger.Head, error) {
	head, err := ledger.OpenHead(raw, v.Key)
	if err == nil && head.Origin != v.Key.Name() {
		err = fmt.Errorf("%w: it is of %q", ledger.ErrHead, head.Origin)
	}
	return head, err
}

// kept reads the checkpoints that were kept elsewhere: their roots, by size.
func (v *verification) kept(head ledger.Head) (map[uint64][32]byte, error) {
	roots := map[uint64][32]byte{head.Size: head.Root}
	for i, raw := range v.Kept {
		old, err := v.open(raw)
		if err != nil {
			return nil, fmt.Errorf("kept checkpoint %d: %w", i+1, err)
		}
		if old.Size > head.Size {
			return nil, faultf("rollback: the log has %d entries, a checkpoint that was kept %d", head.Size, old.Size)
		}
		if root, there := roots[old.Size]; there && root != old.Root {
			return nil, faultf("fork: two checkpoints of size %d with two roots, both signed by the log's key", old.Size)
		}
		roots[old.Size] = old.Root
	}
	return roots, nil
}

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// entries builds the tree over what the source has, and holds it against each root.
func (v *verification) entries(ctx context.Context, head ledger.Head, roots map[uint64][32]byte) error {
	stored, err := v.Source.EntryCount(ctx)
	if err != nil {
		return err
	}
	if stored < head.Size {
		return faultf("%w: it has %d entries, the store %d", ErrDiffers, head.Size, stored)
	}
	v.report.Pending = stored - head.Size
	tree := ranges.NewEmptyRange(0)
	for {
		if want, there := roots[tree.End()]; there {
			if root, err := rootOf(tree); err != nil || !bytes.Equal(root, want[:]) {
				return errors.Join(err, v.differs(ctx, tree.End()))
			}
		}
		if tree.End() == head.Size {
			return nil
		}
		next, err := v.Source.Entries(ctx, tree.End(), int(min(batch, head.Size-tree.End()))) //nolint:gosec // at most batch
		if err != nil {
			return err
		}
		if len(next) == 0 {
			return faultf("%w: entry %d is not stored", ErrDiffers, tree.End())
		}
		for _, entry := range next {
			if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(entry), nil); err != nil {
				return err
			}
			if _, there := roots[tree.End()]; there {
				break // to be looked at
			}
		}
	}
}

func rootOf(tree *compact.Range) ([]byte, error) {
	if tree.End() == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	return tree.GetRootHash(nil)
}

// differs names the first entry of the log that is not the store's, below a size at which
// the trees differ.
func (v *verification) differs(ctx context.Context, size uint64) error {
	files := client.FileFetcher{Root: v.Dir}
	for index := range (size + batch - 1) / batch {
		width := min(batch, v.report.Size-index*batch)
		raw, err := files.ReadEntryBundle(ctx, index, uint8(width%batch)) //nolint:gosec // below batch
		if err != nil {
			return faultf("entry bundle %d of the log: %w", index, err)
		}
		have, err := bundleOf(raw)
		if err != nil {
			return fault{err}
		}
		want, err := v.Source.Entries(ctx, index*batch, int(width)) //nolint:gosec // at most batch
		if err != nil {
			return err
		}
		for i := range want {
			if i >= len(have) || !bytes.Equal(have[i], want[i]) {
				return faultf("%w: entry %d is another", ErrDiffers, index*batch+uint64(i)) //nolint:gosec // an index
			}
		}
	}
	return faultf("fork: the tree of the log's first %d entries is not that of the checkpoint", size)
}

// files has Tessera hold bundles and tiles against the checkpoint.
func (v *verification) files(ctx context.Context, head ledger.Head) error {
	if head.Size == 0 {
		return nil
	}
	check := fsck.New(v.Key.Name(), v.Key, fixed{client.FileFetcher{Root: v.Dir}, v.checkpoint}, hashesOf, fsck.Opts{N: 1})
	if err := check.Check(ctx); err != nil {
		return faultf("the log's files: %w", err)
	}
	return nil
}

// fixed is a log's files at one checkpoint, while newer ones are published.
type fixed struct {
	client.FileFetcher
	checkpoint []byte
}

// ReadCheckpoint returns the one checkpoint.
func (f fixed) ReadCheckpoint(context.Context) ([]byte, error) { return f.checkpoint, nil }

func hashesOf(raw []byte) ([][]byte, error) {
	entries, err := bundleOf(raw)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(entries))
	for i, entry := range entries {
		hashes[i] = rfc6962.DefaultHasher.HashLeaf(entry)
	}
	return hashes, nil
}

// witnessed says whether those whom the policy names have cosigned.
func (v *verification) witnessed() error {
	if len(v.Policy) == 0 {
		return nil
	}
	group, err := tessera.NewWitnessGroupFromPolicy(v.Policy)
	if err != nil {
		return fmt.Errorf("witness policy: %w", err)
	}
	if !group.Satisfied(v.checkpoint) {
		return faultf("the newest checkpoint has not the cosignatures that the policy demands")
	}
	return nil
}
