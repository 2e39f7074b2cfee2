// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// In the environment: victimDir makes the test binary a victim, a process that appends
// until it is killed, and prints the number of every decision answered; victimRound is
// the round that it is of. killsVariable says how often the test kills.
const (
	victimDir     = "WRIT_LEDGER_VICTIM"
	victimRound   = "WRIT_LEDGER_ROUND"
	killsVariable = "WRIT_KILLS"
)

// Each victim gets so many answers at most, or so much time, until it is killed.
const (
	mostAnswers = 400
	mostTime    = 120 * time.Millisecond
	// pause is how long a slow disk takes for a few bytes more.
	pause = 50 * time.Microsecond
)

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

// victim begins an epoch and appends, for ever.
func victim(dir string) error {
	round, err := strconv.Atoi(os.Getenv(victimRound))
	if err != nil {
		return err
	}
	o := options(dir)
	o.SegmentBytes = 200 << 10
	if round%2 == 1 {
		o.FS = slowly{}
	}
	l, r, err := ledger.Open(o)
	if err != nil {
		return err
	}
	start := &writv1.StartRecord{Version: strconv.Itoa(round), RecoveredSize: r.Size, LostBytes: uint64(r.LostBytes)}
	if _, err := l.Append(context.Background(), ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_START, Body: start}, process); err != nil {
		return err
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for {
				n := round<<32 | int(next.Add(1))
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
				if w == 1 && n%16 == 0 {
					prune(l, r.Size)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// prune removes what the test has read by now: what was there when the epoch began.
func prune(l *ledger.Ledger, below uint64) {
	size := l.Status().Synced
	if root, err := l.RootAt(size); err == nil && l.Acknowledge(size, root) == nil {
		_, _ = l.Prune(below)
	}
}

// slowly is the system's files, which are written a few bytes at a time: whoever is
// killed is in the middle of it.
type slowly struct{ ledger.OS }

func (s slowly) OpenFile(name string, flag int, perm fs.FileMode) (ledger.File, error) {
	f, err := s.OS.OpenFile(name, flag, perm)
	return slowFile{f}, err
}

type slowFile struct{ ledger.File }

func (f slowFile) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = f.File.Write(b[n:min(n+512, len(b))])
		n += m
		time.Sleep(pause)
	}
	return n, err
}

// seen is what is in a ledger whose writer is dead, read after each kill.
type seen struct {
	reader    *ledger.DirReader
	decisions map[uint64]bool
	// lost are the bytes that starts have told, by round.
	lost map[string]uint64
}

func (s *seen) update(t *testing.T, dir string) {
	t.Helper()
	if s.reader == nil {
		text, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
		if errors.Is(err, fs.ErrNotExist) {
			return // killed before it had a key
		}
		if err != nil {
			t.Fatal(err)
		}
		s.reader = ledger.NewDirReader(dir, verifier(t, strings.TrimSpace(string(text))))
	}
	err := s.reader.Read(func(_ uint64, raw []byte) error {
		record := &writv1.Record{}
		if err := proto.Unmarshal(raw, record); err != nil {
			return err
		}
		if record.GetKind() == writv1.RecordKind_RECORD_KIND_DECISION {
			s.decisions[binary.BigEndian.Uint64(record.GetDecisionId())] = true
			return nil
		}
		start := &writv1.StartRecord{}
		if err := proto.Unmarshal(record.GetBody(), start); err != nil {
			return err
		}
		s.lost[start.GetVersion()] = start.GetLostBytes()
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) { // killed before it had a segment
		s.reader = nil
		return
	}
	if err != nil {
		t.Fatalf("read what the kill left: %v; %v", err, segments(t, dir))
	}
}

// torn counts the bytes that no head covers in the files that the kill left.
func torn(t *testing.T, dir string) (n uint64) {
	t.Helper()
	for _, name := range segments(t, dir) {
		n += uint64(uncovered(read(t, name)))
	}
	return n
}

// A victim is killed when it has given so many answers, or at any moment after its
// start: in opening, in appending, in sealing, in pruning. Every other writes a few bytes
// at a time, so that it leaves a torn tail.
func TestNoAnsweredDecisionIsMissingAfterKill9(t *testing.T) {
	t.Parallel()
	kills := 20
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	found := &seen{decisions: map[uint64]bool{}, lost: map[string]uint64{}}
	total, tails, starts := 0, 0, 0
	for round := range kills {
		left := torn(t, dir)
		answered := killVictim(t, dir, round)
		found.update(t, dir)
		for n := range answered {
			if !found.decisions[n] {
				t.Fatalf("round %d: answered decision %d is missing", round, n&(1<<32-1))
			}
		}
		if told, started := found.lost[strconv.Itoa(round)]; started {
			starts++
			if told != left {
				t.Fatalf("round %d: the start says that %d bytes were cut off, and the kill left %d", round, told, left)
			}
			if told > 0 {
				tails++
			}
		}
		total += len(answered)
	}
	l, _ := open(t, options(dir))
	if report := verify(t, dir, verifier(t, l.VerifierKey())); report.Fault != nil {
		t.Errorf("after the kills: %v", report.Fault)
	}
	t.Logf("%d kills, %d of them after the start was recorded; %d answered, %d in the ledger; %d torn tails were cut and told", kills, starts, total, len(found.decisions), tails)
	if kills >= 100 && (tails < kills/20 || starts == kills || starts < kills/4) {
		t.Errorf("%d kills, %d of them after the start, %d torn tails: want some of each", kills, starts, tails)
	}
}

// killVictim runs a victim until its moment has come, kills it, and returns what it has
// answered.
func killVictim(t *testing.T, dir string, round int) map[uint64]bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test binary
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimRound+"="+strconv.Itoa(round))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := 1 + rand.IntN(mostAnswers)
	if round%4 > 1 {
		after = -1
		timer := time.AfterFunc(rand.N(mostTime), func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	answered := map[uint64]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() { // to the end of the pipe: what left before the kill counts
		id, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Errorf("the victim says %q", lines.Text())
		}
		answered[id] = true
		if len(answered) == after {
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the victim ended by itself: %v", err)
	}
	return answered
}
