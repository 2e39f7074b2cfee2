// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// victimDir, in the environment, makes the test binary a victim: a process that
// appends until it is killed, and prints the number of every decision answered.
const victimDir = "WRIT_LEDGER_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func victim(dir string) error {
	o := options(dir)
	o.SegmentBytes = 200 << 10
	l, r, err := ledger.Open(o)
	if err != nil {
		return err
	}
	var next atomic.Int64
	next.Store(int64(r.Epoch) << 32)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				d := process
				if w == 0 {
					d = node
				}
				if _, err := l.Append(context.Background(), decision(n), d); err != nil {
					return
				}
				// One write: it is out, or the answer never left.
				if _, err := os.Stdout.WriteString(fmt.Sprintf("%d\n", n)); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func TestNoAnsweredDecisionIsMissingAfterKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	answered := map[uint64]bool{}
	for round := range 20 {
		killVictim(t, dir, 1+rand.IntN(400), answered)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	o := options(dir)
	found := map[uint64]bool{}
	o.OnRecord = func(r *writv1.Record) error {
		found[binary.BigEndian.Uint64(r.GetDecisionId())] = true
		return nil
	}
	l, r := open(t, o)
	for n := range answered {
		if !found[n] {
			t.Errorf("answered decision %d of epoch %d is missing", n&(1<<32-1), n>>32)
		}
	}
	if report := verify(t, dir, verifier(t, l.VerifierKey())); report.Fault != nil || r.Epoch != 21 {
		t.Errorf("after the kills: %+v, epoch %d, want 21", report.Fault, r.Epoch)
	}
	t.Logf("%d answered, %d in the ledger", len(answered), len(found))
}

// killVictim runs a victim until it has answered so many decisions, and kills it.
func killVictim(t *testing.T, dir string, after int, answered map[uint64]bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test binary
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ { // to the end of the pipe: what left before the kill counts
		var id uint64
		if _, err := fmt.Sscan(lines.Text(), &id); err != nil {
			t.Errorf("the victim says %q", lines.Text())
		}
		answered[id] = true
		if n == after {
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the victim ended by itself")
	}
}
