// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// compactAfter is how many acknowledged records a snapshot is worth. They are folded
// twice then, once when they were made and once for the snapshot.
const compactAfter = 10_000

// Bounds of what is read of the ledger at a time.
const (
	compactRecords = 1024
	compactBytes   = 1 << 20
)

// Compact makes the ledger shorter: it folds what the collector has acknowledged since
// the last snapshot into a new one, and removes the segments that both cover (SEMANTICS
// 2). It does nothing while that is too little to be worth it, and never where there is
// no collector. The state that calls are decided on is not touched: the snapshot's comes
// from the records alone. It is for one goroutine.
func (a *Agent) Compact(ctx context.Context) (segments int, err error) {
	acknowledged := a.options.Ledger.Status().Acknowledged
	if a.options.SnapshotDir == "" || acknowledged < a.compacted+compactAfter {
		return 0, nil
	}
	state, err := LoadSnapshot(a.options.SnapshotDir, a.options.Limits.Admissions)
	if err != nil {
		return 0, err
	}
	root, err := a.foldUpTo(ctx, state, acknowledged)
	if err != nil {
		return 0, fmt.Errorf("fold the ledger: %w", err)
	}
	state.forget(a.options.Clock())
	if err := state.saveSnapshot(a.options.SnapshotFS, a.options.SnapshotDir, a.options.Ledger.Origin(), root); err != nil {
		return 0, err
	}
	a.compacted = state.next
	return a.options.Ledger.Prune(state.next)
}

// foldUpTo folds whole batches until the state covers size records or a few more, and
// returns the root of the tree over them.
func (a *Agent) foldUpTo(ctx context.Context, state *State, size uint64) (root []byte, err error) {
	reader, err := a.options.Ledger.Reader(state.next)
	if err != nil {
		return nil, err
	}
	root = state.root
	for state.next < size {
		bundle, err := reader.Next(ctx, compactRecords, compactBytes)
		if err != nil {
			return nil, err
		}
		for _, raw := range bundle.Records {
			record := &writv1.Record{}
			if err := canonical.Unmarshal(raw, record); err != nil {
				return nil, err
			}
			if err := state.Fold(record); err != nil {
				return nil, err
			}
		}
		root = bundle.Root
	}
	return root, nil
}
