// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
)

// maxCheckpoint bounds a checkpoint with the signatures of its witnesses.
const maxCheckpoint = 64 << 10

// maxPolicy bounds a policy.
const maxPolicy = 64 << 10

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
// tree; that it goes on from every checkpoint that was kept; that the witnesses of the
// policy cosigned. The error says that something could not be read;
// what is wrong with what was read stands in the report.
func Verify(ctx context.Context, e Evidence) (*Report, error) {
	raw, err := ReadCheckpoint(filepath.Join(e.Dir, layout.CheckpointPath))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the log's checkpoint: %w", err)
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

// ReadCheckpoint reads a file with a checkpoint.
func ReadCheckpoint(path string) ([]byte, error) { return readFile(path, maxCheckpoint) }

// ReadPolicy reads a file with a policy for witnesses.
func ReadPolicy(path string) ([]byte, error) { return readFile(path, maxPolicy) }

func readFile(path string, most int64) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	raw, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
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
	head, err := v.newest()
	if err != nil {
		return faultf("the newest checkpoint: %w", err)
	}
	v.report.Size, v.report.Root = head.Size, head.Root
	kept, err := v.kept(head)
	if err != nil {
		return err
	}
	if err := v.entries(ctx, head, kept); err != nil {
		return err
	}
	return v.witnessed()
}

// newest is the published checkpoint: that of nothing before the first is.
func (v *verification) newest() (ledger.Head, error) {
	if len(v.checkpoint) == 0 {
		return ledger.Head{Origin: v.Key.Name(), Root: [32]byte(rfc6962.DefaultHasher.EmptyRoot())}, nil
	}
	head, err := v.open(v.checkpoint)
	if err != nil {
		return head, err
	}
	signed, err := note.Open(v.checkpoint, note.VerifierList(v.Key))
	if err != nil {
		return head, err
	}
	v.report.Signatures = len(signed.Sigs) + len(signed.UnverifiedSigs)
	return head, nil
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

// entries walks the log bundle by bundle, and holds it against the source and each root.
func (v *verification) entries(ctx context.Context, head ledger.Head, roots map[uint64][32]byte) error {
	stored, err := v.Source.EntryCount(ctx)
	if err != nil {
		return err
	}
	if stored < head.Size {
		return faultf("%w: it has %d entries, the store %d", ErrDiffers, head.Size, stored)
	}
	v.report.Pending = stored - head.Size
	w := &walk{files: client.FileFetcher{Root: v.Dir}, roots: roots, tree: ranges.NewEmptyRange(0)}
	if err := w.check(); err != nil {
		return err
	}
	for w.tree.End() < head.Size {
		width := min(batch, head.Size-w.tree.End())
		want, err := v.Source.Entries(ctx, w.tree.End(), int(width)) //nolint:gosec // at most batch
		if err != nil {
			return err
		}
		if uint64(len(want)) < width {
			return faultf("%w: entry %d is not stored", ErrDiffers, w.tree.End()+uint64(len(want)))
		}
		if err := w.bundle(ctx, want); err != nil {
			return err
		}
	}
	return w.end(ctx)
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
