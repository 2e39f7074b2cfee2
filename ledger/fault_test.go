// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// faulty is the file system of a disk that fails when it is told to.
type faulty struct {
	ledger.OS
	// fail is asked before each operation on a segment: "open", "write", "sync",
	// "syncdir", "rename", "remove". A write that fails writes short bytes first.
	fail  atomic.Pointer[func(op string) error]
	short atomic.Int64
}

func (f *faulty) ask(op string) error {
	if p := f.fail.Load(); p != nil {
		return (*p)(op)
	}
	return nil
}

func (f *faulty) failAll(err error, ops ...string) {
	fail := func(op string) error {
		for _, o := range ops {
			if o == op {
				return err
			}
		}
		return nil
	}
	f.fail.Store(&fail)
}

func (f *faulty) OpenFile(name string, flag int, perm fs.FileMode) (ledger.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.ask("open"); err != nil {
			return nil, err
		}
	}
	file, err := f.OS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, fs: f}, nil
}

func (f *faulty) SyncDir(dir string) error {
	if err := f.ask("syncdir"); err != nil {
		return err
	}
	return f.OS.SyncDir(dir)
}

func (f *faulty) Rename(from, to string) error {
	if err := f.ask("rename"); err != nil {
		return err
	}
	return f.OS.Rename(from, to)
}

func (f *faulty) Remove(name string) error {
	if err := f.ask("remove"); err != nil {
		return err
	}
	return f.OS.Remove(name)
}

type faultyFile struct {
	ledger.File
	fs *faulty
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.fs.ask("write"); err != nil {
		n, _ := f.File.Write(b[:min(int(f.fs.short.Load()), len(b))])
		return n, err
	}
	return f.File.Write(b)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.ask("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

// tally is what the callers of Append were told, by decision id.
type tally struct {
	mu       sync.Mutex
	answered map[uint64]bool // err == nil, or Recorded
	refused  map[uint64]bool
}

func (c *tally) add(n int, p ledger.Position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil || p.Recorded:
		c.answered[uint64(n)] = true
	default:
		c.refused[uint64(n)] = true
	}
}

// check reopens the ledger and holds what it finds against what callers were told.
func (c *tally) check(t *testing.T, o ledger.Options) *ledger.Ledger {
	t.Helper()
	found := map[uint64]bool{}
	o.FS = nil
	o.OnRecord = func(r *writv1.Record) error {
		if r.GetKind() == writv1.RecordKind_RECORD_KIND_DECISION {
			found[binary.BigEndian.Uint64(r.GetDecisionId())] = true
		}
		return nil
	}
	l, r := open(t, o)
	for n := range c.answered {
		if !found[n] {
			t.Errorf("answered decision %d is missing", n)
		}
	}
	for n := range c.refused {
		if found[n] {
			t.Errorf("decision %d was refused as not recorded, and is in the ledger", n)
		}
	}
	if len(found) > int(r.Size) {
		t.Errorf("%d decisions in %d records", len(found), r.Size)
	}
	if report := verify(t, o.Dir, verifier(t, l.VerifierKey())); report.Fault != nil {
		t.Errorf("verify: %v", report.Fault)
	}
	return l
}

func faultyOptions(t testing.TB, disk *faulty) (ledger.Options, chan error) {
	o := options(t.TempDir())
	o.FS = disk
	o.ProbeInterval = time.Millisecond
	states := make(chan error, 10_000)
	o.OnState = func(err error) { states <- err }
	return o, states
}

func TestADiskThatFailsDeniesAndMends(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		ops   []string
		err   error
		short int64
		small bool // segments, so that the failure comes with a new one
		d     writv1.Durability
	}{
		{"a write fails", []string{"write"}, syscall.EIO, 0, false, process},
		{"a write is cut short", []string{"write"}, syscall.EIO, 300, false, process},
		{"a write is cut short in the head", []string{"write"}, syscall.EIO, 900, false, process},
		{"a write says it failed, and wrote everything", []string{"write"}, syscall.EIO, 1 << 30, false, process},
		{"the disk is full", []string{"write", "open"}, syscall.ENOSPC, 100, false, process},
		{"a sync fails that somebody waits for", []string{"sync"}, syscall.EIO, 0, false, node},
		{"a sync fails that nobody waits for", []string{"sync"}, syscall.EIO, 0, false, process},
		{"a segment cannot be made", []string{"open"}, syscall.EMFILE, 0, true, process},
		{"a segment's seal cannot be synced", []string{"sync"}, syscall.EIO, 0, true, process},
		{"a segment's directory cannot be synced", []string{"syncdir"}, syscall.EIO, 0, true, process},
		{"a segment's header is cut short", []string{"write"}, syscall.EIO, 20, true, process},
		{"nothing works", []string{"write", "sync", "open", "rename", "remove", "syncdir"}, syscall.EIO, 5, false, node},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			disk := &faulty{}
			disk.short.Store(tc.short)
			o, states := faultyOptions(t, disk)
			if tc.small {
				o.SegmentBytes = 1500
			}
			l, _ := open(t, o)
			told := &tally{answered: map[uint64]bool{}, refused: map[uint64]bool{}}
			for n := range 5 {
				p, err := l.Append(t.Context(), decision(n), process)
				told.add(n, p, err)
			}
			disk.failAll(tc.err, tc.ops...)
			n := 5
			for down := false; !down; n++ {
				p, err := l.Append(t.Context(), decision(n), tc.d)
				told.add(n, p, err)
				select {
				case err := <-states:
					if !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, tc.err) {
						t.Fatalf("state = %v, want unavailable for %v", err, tc.err)
					}
					down = true
				default:
				}
			}
			p, err := l.Append(t.Context(), decision(n), process)
			if !errors.Is(err, ledger.ErrUnavailable) {
				t.Fatalf("while the disk fails: %+v, %v", p, err)
			}
			told.add(n, p, err)
			disk.fail.Store(nil)
			if err := <-states; err != nil {
				t.Fatalf("state = %v, want well again", err)
			}
			for range 5 {
				n++
				p, err := l.Append(t.Context(), decision(n), node)
				if err != nil {
					t.Fatalf("after the disk is well: %v", err)
				}
				told.add(n, p, err)
			}
			if err := l.Close(&writv1.EndRecord{}); err != nil {
				t.Fatal(err)
			}
			told.check(t, o)
		})
	}
}

func TestASyncThatFailsDuringAWriteIsToldToThoseInTheWrite(t *testing.T) {
	t.Parallel()
	disk := &faulty{}
	o, states := faultyOptions(t, disk)
	o.SyncInterval = time.Millisecond
	l, _ := open(t, o)
	var writes, syncs atomic.Int32
	entered, gate := make(chan struct{}), make(chan struct{})
	fail := func(op string) error {
		switch {
		case op == "write" && writes.Add(1) == 2:
			close(entered)
			<-gate
		case op == "sync" && syncs.Add(1) == 1:
			<-entered
			return syscall.EIO
		}
		return nil
	}
	disk.fail.Store(&fail)
	appendN(t, l, 0, 1, process) // what the sync that fails is for
	go func() {
		<-states
		close(gate)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := l.Append(ctx, decision(1), node)
	if !errors.Is(err, ledger.ErrUnavailable) || !p.Recorded {
		t.Errorf("Append = %+v, %v, want ErrUnavailable of a recorded entry", p, err)
	}
	if err := <-states; err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 2, 1, node)
}

func TestALedgerThatReadsBackOtherwiseStaysUnavailable(t *testing.T) {
	t.Parallel()
	disk := &faulty{}
	o, states := faultyOptions(t, disk)
	l, _ := open(t, o)
	appendN(t, l, 0, 3, process)
	disk.failAll(syscall.EIO, "write")
	if _, err := l.Append(t.Context(), decision(3), process); !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatal(err)
	}
	<-states
	name := segments(t, o.Dir)[0]
	b := read(t, name)
	record := frames(b)[1]
	b[record.end-1] ^= 1
	repair(b[record.start:record.end])
	write(t, name, b)
	disk.fail.Store(nil)
	for !errors.Is(l.Status().Err, ledger.ErrCorrupt) {
		if l.Status().Err == nil {
			t.Fatal("the ledger goes on over records that it did not write")
		}
		runtime.Gosched()
	}
	if _, err := l.Append(t.Context(), decision(4), process); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Append = %v, want ErrUnavailable", err)
	}
}

func TestNoAnswerIsLostOnADiskThatFailsAtRandom(t *testing.T) {
	t.Parallel()
	disk := &faulty{}
	disk.short.Store(500)
	o, states := faultyOptions(t, disk)
	o.SegmentBytes = 8 << 10
	o.SyncInterval = time.Millisecond
	l, _ := open(t, o)
	fail := func(string) error {
		if rand.IntN(150) == 0 {
			return syscall.EIO
		}
		return nil
	}
	disk.fail.Store(&fail)
	told := &tally{answered: map[uint64]bool{}, refused: map[uint64]bool{}}
	reader, err := l.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var streamed []ledger.Bundle
	var wg, following sync.WaitGroup
	following.Go(func() {
		for {
			b, err := reader.Next(ctx, 16, 16<<10)
			if err != nil {
				return
			}
			streamed = append(streamed, b)
		}
	})
	for w := range 8 {
		wg.Go(func() {
			for i := range 150 {
				n, d := w*150+i, process
				if i%3 == 0 {
					d = node
				}
				p, err := l.Append(context.Background(), decision(n), d)
				told.add(n, p, err)
				if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
					t.Errorf("Append = %v", err)
				}
				for err != nil && l.Status().Err != nil {
					runtime.Gosched() // until it has mended itself
				}
			}
		})
	}
	wg.Wait()
	disk.fail.Store(nil)
	for l.Status().Err != nil {
		<-states
	}
	if p, err := l.Append(t.Context(), decision(99_999), node); err != nil {
		t.Error(err)
	} else {
		told.add(99_999, p, err)
	}
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	following.Wait()
	t.Logf("answered %d, refused %d", len(told.answered), len(told.refused))
	l = told.check(t, o)
	// What a reader was given is what the ledger holds in the end: nothing of it was
	// ever taken back.
	for _, b := range streamed {
		root, err := l.RootAt(b.Size)
		if err != nil || string(root) != string(b.Root) {
			t.Fatalf("the reader was given another root at %d: %v", b.Size, err)
		}
	}
}

func TestATornTailIsCutAndReported(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		damage func(b []byte, fs []rawFrame) []byte
		size   uint64
		err    error
	}{
		{"a frame cut short", func(b []byte, _ []rawFrame) []byte { return append(b, 9, 0, 0, 0, 1, 2) }, 3, nil},
		{"zeros", func(b []byte, _ []rawFrame) []byte { return append(b, make([]byte, 5000)...) }, 3, nil},
		{"records without a head", func(b []byte, f []rawFrame) []byte { return b[:f[len(f)-1].start] }, 2, nil},
		{"the last head cut short", func(b []byte, f []rawFrame) []byte { return b[:f[len(f)-1].end-1] }, 2, nil},
		{"only half a header", func(b []byte, _ []rawFrame) []byte { return b[:20] }, 0, nil},
		{"nothing at all", func([]byte, []rawFrame) []byte { return nil }, 0, nil},
		{"damage before a good head", func(b []byte, f []rawFrame) []byte { b[f[3].start+20] ^= 1; return b }, 0, ledger.ErrCorrupt},
		{"another root under a good CRC", func(b []byte, f []rawFrame) []byte {
			h := f[len(f)-1]
			b[h.start+9+8] ^= 1
			repair(b[h.start:h.end])
			return b
		}, 0, ledger.ErrCorrupt},
		{"another signature under a good CRC", func(b []byte, f []rawFrame) []byte {
			h := f[len(f)-1]
			b[h.end-1] ^= 1
			repair(b[h.start:h.end])
			return b
		}, 0, ledger.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir())
			l, _ := open(t, o)
			appendN(t, l, 0, 3, process)
			name := segments(t, o.Dir)[0]
			whole := read(t, name) // as it is in the middle of an epoch: no seal
			if err := l.Close(nil); err != nil {
				t.Fatal(err)
			}
			broken := tc.damage(whole, frames(whole))
			write(t, name, broken)
			count := uint64(0)
			o.OnRecord = func(*writv1.Record) error { count++; return nil }
			l, r, err := ledger.Open(o)
			if !errors.Is(err, tc.err) {
				t.Fatalf("Open = %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			defer l.Close(nil) //nolint:errcheck // a test
			if r.Size != tc.size || count != tc.size || r.Fresh {
				t.Errorf("recovery = %+v, folded %d, want %d records", r, count, tc.size)
			}
			if kept := int64(len(broken)) - r.LostBytes; r.LostBytes < 0 || kept < 0 || (tc.size == 3) != (kept == int64(frames(whole)[6].end)) {
				t.Errorf("lost %d bytes of %d", r.LostBytes, len(broken))
			}
			appendN(t, l, 10, 3, node)
			if report := verify(t, o.Dir, verifier(t, l.VerifierKey())); report.Fault != nil || report.Records != tc.size+3 {
				t.Errorf("verify after recovery: %+v", report)
			}
		})
	}
}

func TestASegmentOfAnotherPlaceIsNotOpened(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]func(t *testing.T, dir string){
		"a segment is gone": func(t *testing.T, dir string) {
			if err := os.Remove(segments(t, dir)[1]); err != nil {
				t.Fatal(err)
			}
		},
		"the key is gone": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "log.key")); err != nil {
				t.Fatal(err)
			}
		},
		"the key is another's": func(t *testing.T, dir string) {
			other, _ := small(t)
			write(t, filepath.Join(dir, "log.key"), read(t, filepath.Join(other, "log.key")))
		},
		"a file is no segment": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "x.dlog"), nil) },
		"a segment is renamed": func(t *testing.T, dir string) {
			n := segments(t, dir)
			last := n[len(n)-1]
			if err := os.Rename(last, strings.Replace(last, "00000002-", "00000003-", 1)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _ := small(t)
			attack(t, dir)
			if _, _, err := ledger.Open(options(dir)); !errors.Is(err, ledger.ErrCorrupt) {
				t.Errorf("Open = %v, want ErrCorrupt", err)
			}
		})
	}
}

func TestAnErrorOfTheFoldEndsOpen(t *testing.T) {
	t.Parallel()
	dir, _ := small(t)
	o := options(dir)
	wrong := fmt.Errorf("no")
	o.OnRecord = func(*writv1.Record) error { return wrong }
	if _, _, err := ledger.Open(o); !errors.Is(err, wrong) {
		t.Errorf("Open = %v, want the fold's error", err)
	}
	open(t, options(dir)) // and the lock is free
}
