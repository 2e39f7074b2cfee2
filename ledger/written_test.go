// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestWhoeverAppendsHearsOfItInTheOrderOfTheRecords(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 50
	o := options(t.TempDir())
	l, _ := open(t, o)
	var heard []uint64 // by the committer alone
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				e := decision(w*each + i)
				var told atomic.Bool
				e.Written = func(err error) {
					if err != nil {
						t.Errorf("record %d: %v", w*each+i, err)
					}
					heard = append(heard, binary.BigEndian.Uint64(e.DecisionID))
					told.Store(true)
				}
				if i%2 == 0 {
					if err := l.AppendAsync(t.Context(), e); err != nil {
						t.Error(err)
					}
					continue
				}
				if _, err := l.Append(t.Context(), e, process); err != nil || !told.Load() {
					t.Errorf("record %d: %v, told before: %v", w*each+i, err, told.Load())
				}
			}
		})
	}
	group.Wait()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	var folded []uint64
	o.OnRecord = func(r *writv1.Record) error {
		folded = append(folded, binary.BigEndian.Uint64(r.GetDecisionId()))
		return nil
	}
	open(t, o)
	if diff := cmp.Diff(folded, heard); diff != "" {
		t.Errorf("heard in another order than recorded (-recorded +heard):\n%s", diff)
	}
}

func TestWhoeverAppendsHearsWhatWasNotWritten(t *testing.T) {
	t.Parallel()
	disk := &faulty{}
	o := options(t.TempDir())
	o.FS = disk
	l, _ := open(t, o)
	disk.failAll(syscall.EIO, "write", "open")
	heard := make(chan error, 2)
	e := decision(1)
	e.Written = func(err error) { heard <- err }
	if err := l.AppendAsync(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := <-heard; !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("heard %v, want ErrUnavailable", err)
	}
	disk.fail.Store(nil)
}
