// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// faultyDisk is the system's, but for one operation.
type faultyDisk struct {
	ledger.OS
	failing string
	err     error
}

func (d *faultyDisk) ask(op string) error {
	if op == d.failing {
		return d.err
	}
	return nil
}

func (d *faultyDisk) OpenFile(name string, flag int, perm fs.FileMode) (ledger.File, error) {
	if err := d.ask("open"); err != nil {
		return nil, err
	}
	file, err := d.OS.OpenFile(name, flag, perm)
	return &faultyFile{file, d}, err
}

func (d *faultyDisk) Rename(from, to string) error {
	return errors.Join(d.ask("rename"), d.unless("rename", func() error { return d.OS.Rename(from, to) }))
}

func (d *faultyDisk) SyncDir(dir string) error {
	return errors.Join(d.ask("syncdir"), d.unless("syncdir", func() error { return d.OS.SyncDir(dir) }))
}

func (d *faultyDisk) unless(op string, do func() error) error {
	if op == d.failing {
		return nil
	}
	return do()
}

type faultyFile struct {
	ledger.File
	disk *faultyDisk
}

// Write writes half of it where it fails.
func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.disk.ask("write"); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.ask("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Close() error { return errors.Join(f.disk.ask("close"), f.File.Close()) }

// Records that a snapshot covers may be gone: a snapshot that cannot be written leaves
// the one before as it was, and prunes nothing.
func TestASnapshotThatFailsLeavesTheOneBefore(t *testing.T) {
	t.Parallel()
	disk := &faultyDisk{err: syscall.ENOSPC}
	w := openWorkshop(t, workshopOptions{snapshots: disk, ledger: func(o *ledger.Options) { o.SegmentBytes = 1 << 20 }})
	w.work("ann", 5_100)
	if _, err := w.agent.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, oldest := w.snapshot(), w.ledger.Status().Oldest
	if oldest == 0 {
		t.Fatal("nothing was pruned: the snapshot is not missed")
	}
	w.work("bob", 5_100)
	for _, op := range []string{"open", "write", "sync", "close", "rename", "syncdir"} {
		disk.failing = op
		if n, err := w.agent.Compact(t.Context()); n != 0 || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%s fails: Compact = %d, %v, want the disk's error", op, n, err)
		}
		if op != "syncdir" && !bytes.Equal(before, w.snapshot()) {
			t.Errorf("%s fails, and the snapshot before is gone", op)
		}
		if now := w.ledger.Status().Oldest; now != oldest {
			t.Errorf("%s fails, and records were pruned up to %d", op, now)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, "ledger", "*.tmp")); len(left) > 0 && op != "rename" {
			t.Errorf("%s fails, and leaves %v", op, left)
		}
	}
	disk.failing = ""
	if n, err := w.agent.Compact(t.Context()); n == 0 || err != nil {
		t.Errorf("the disk is well again: Compact = %d, %v", n, err)
	}
	held := w.agent.State().Dump()
	if diff := cmp.Diff(held, w.reopened()); diff != "" {
		t.Errorf("(-before the restart +after):\n%s", diff)
	}
}

// work has somebody make so many calls, which are acknowledged.
func (w *workshop) work(user string, calls int) {
	w.t.Helper()
	for range calls {
		asked := request("workshop.send", "x")
		asked.Principal.User = user
		admission := w.allow(asked)
		if err := admission.FinishLater(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.acknowledge()
}

func (w *workshop) snapshot() []byte {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "ledger", agent.SnapshotFile))
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}
