// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// answer is what the caller of an Append was told.
type answer struct {
	index uint64
	// synced says that it was told to be synced too.
	synced bool
}

// life is a ledger on a disk that anything happens to.
type life struct {
	dir    string
	disk   *disk
	ledger *ledger.Ledger
	next   int
	// answers are by decision. Refused are decisions that are not in the ledger, as far
	// as a ledger that lives can say.
	answers map[uint64]answer
	refused map[uint64]bool
	// over says that the power was lost with holes, and that the ledger told so.
	over bool
}

func (v *life) options(found map[uint64]uint64) ledger.Options {
	o := options(v.dir)
	o.FS, o.SegmentBytes, o.ProbeInterval, o.SyncInterval = v.disk.writer(), 6<<10, time.Millisecond, time.Millisecond
	o.OnRecord = func(r *writv1.Record) error {
		found[binary.BigEndian.Uint64(r.GetDecisionId())] = r.GetIndex()
		return nil
	}
	return o
}

// start opens the ledger, which must succeed on a disk that is well, and holds what it
// finds against what was answered.
func (v *life) start(t *rapid.T, lost int64) {
	found := map[uint64]uint64{}
	l, recovery, err := ledger.Open(v.options(found))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	v.ledger = l
	v.hold(t, found, recovery)
	if lost >= 0 && recovery.LostBytes != lost {
		t.Fatalf("%d bytes are said to be lost, and %d were under no head", recovery.LostBytes, lost)
	}
}

func (v *life) hold(t *rapid.T, found map[uint64]uint64, recovery ledger.Recovery) {
	for n, told := range v.answers {
		if at, ok := found[n]; told.index >= recovery.Oldest && (!ok || at != told.index) {
			t.Fatalf("decision %d was answered at %d, and is at %d (%v) of %d", n, told.index, at, ok, recovery.Size)
		}
	}
	for n := range v.refused {
		if _, ok := found[n]; ok {
			t.Fatalf("decision %d was refused, and is in the ledger", n)
		}
	}
	verifier, err := note.NewVerifier(v.ledger.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	for name, f := range v.disk.files {
		if report := ledger.VerifySegment(name, bytes.NewReader(f.data), verifier); report.Fault != nil {
			t.Fatalf("after the start: %v", report.Fault)
		}
	}
}

// appends has several callers record at once.
func (v *life) appends(t *rapid.T) {
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, synced := range rapid.SliceOfN(rapid.Bool(), 1, 6).Draw(t, "appends, synced or not") {
		v.next++
		n, d := v.next, process
		if synced {
			d = node
		}
		group.Go(func() {
			at, err := v.ledger.Append(context.Background(), decision(n), d)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil || at.Recorded:
				v.answers[uint64(n)] = answer{at.Index, synced && err == nil}
			default:
				v.refused[uint64(n)] = true
			}
		})
	}
	group.Wait()
}

// faults draws a disk that fails: some operations, from the nth on, for a while or for good.
func (v *life) faults(t *rapid.T) {
	ops := []string{"create", "write", "sync", "rename", "syncdir", "remove", "truncate", "read", "readdir"}
	failing := rapid.SliceOfNDistinct(rapid.SampledFrom(ops), 1, len(ops), rapid.ID).Draw(t, "failing")
	why := rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE}).Draw(t, "why")
	from := rapid.IntRange(0, 12).Draw(t, "from")
	times := rapid.SampledFrom([]int{1, 2, 5, 1 << 30}).Draw(t, "times")
	n := 0
	v.disk.breaks(rapid.IntRange(0, 3000).Draw(t, "short"), func(op string) error {
		if n++; n > from && times > 0 && slices.Contains(failing, op) {
			times--
			return why
		}
		return nil
	})
}

// heal waits until a ledger on a disk that is well is well itself.
func (v *life) heal(t *rapid.T) {
	v.disk.heal()
	for deadline := time.Now().Add(20 * time.Second); v.ledger.Status().Err != nil; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("the disk is well, and the ledger is not: %v", v.ledger.Status().Err)
		}
	}
}

// stop closes the ledger. One that could not write cannot say either what became of what
// it refused; a batch that was refused may stand there whole.
func (v *life) stop() {
	if v.ledger.Status().Err != nil {
		clear(v.refused)
	}
	_ = v.ledger.Close(nil)
}

func (v *life) kill(t *rapid.T) {
	v.disk.kill()
	clear(v.refused)
	_ = v.ledger.Close(nil)
	v.startOver(t)
}

// startOver starts after a kill or the loss of power: perhaps on a disk that fails, in vain.
func (v *life) startOver(t *rapid.T) {
	lost := v.disk.uncovered()
	if rapid.IntRange(0, 2).Draw(t, "in vain") == 0 {
		v.faults(t)
		if l, _, err := ledger.Open(v.options(map[uint64]uint64{})); err == nil {
			_ = l.Close(nil)
		} else if errors.Is(err, ledger.ErrCorrupt) {
			t.Fatalf("a disk that fails makes the ledger corrupt: %v", err)
		}
		v.disk.kill()
		lost = -1
	}
	v.start(t, lost)
}

func (v *life) losePower(t *rapid.T) {
	v.disk.kill() // nothing more is written, while the draws are made
	_ = v.ledger.Close(nil)
	clear(v.refused)
	for n, told := range v.answers {
		if !told.synced {
			delete(v.answers, n)
		}
	}
	holes := rapid.IntRange(0, 4).Draw(t, "with holes") == 0
	v.disk.losePower(t, holes)
	if !holes {
		v.startOver(t)
		return
	}
	found := map[uint64]uint64{}
	l, recovery, err := ledger.Open(v.options(found))
	if errors.Is(err, ledger.ErrCorrupt) {
		v.over = true
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	v.ledger = l
	v.hold(t, found, recovery)
}

// prune acknowledges what is synced, and removes some.
func (v *life) prune(t *rapid.T) {
	size := v.ledger.Status().Synced
	root, err := v.ledger.RootAt(size)
	if err == nil {
		err = v.ledger.Acknowledge(size, root)
	}
	if err == nil {
		_, err = v.ledger.Prune(rapid.Uint64Range(0, size).Draw(t, "below"))
	}
	if err != nil && v.disk.fail == nil {
		t.Fatalf("prune on a disk that is well: %v", err)
	}
}

// No answered decision is ever missing, whatever fails when: each operation of a disk in
// appending, in beginning a segment, in mending, in pruning and in starting, the writer
// killed, the power lost. A ledger whose disk is well again is well again by itself.
func TestNoAnsweredDecisionIsMissingWhateverFailsWhen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "w")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		v := &life{dir: dir, disk: newDisk(), answers: map[uint64]answer{}, refused: map[uint64]bool{}}
		v.start(t, 0)
		defer func() {
			v.disk.kill()
			_ = v.ledger.Close(nil)
		}()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			v.step(t)
			if v.over {
				return
			}
		}
		v.heal(t)
		v.appends(t)
		v.stop()
		v.start(t, 0)
	})
}

func (v *life) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"append", "append", "append", "append", "break", "heal", "kill", "lose power", "restart", "prune"}).Draw(t, "step") {
	case "append":
		v.appends(t)
	case "break":
		v.faults(t)
	case "heal":
		v.heal(t)
	case "kill":
		v.kill(t)
	case "lose power":
		v.losePower(t)
	case "restart":
		v.heal(t)
		v.stop()
		v.start(t, 0)
	case "prune":
		v.prune(t)
	}
}
