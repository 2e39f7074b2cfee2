// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// victimDir, in the environment, makes the test binary a victim: a process that takes
// the bundles of a file into a store, and prints the size of every Put that returned,
// until it is killed.
const victimDir = "WRIT_STORE_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		if err := victim(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// feed is what a victim is to take.
type feed struct {
	Origin, Vkey string
	Bundles      []*writv1.RecordBundle
}

func victim(ctx context.Context, dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "feed.json")) //nolint:gosec // a test's own directory
	if err != nil {
		return err
	}
	var f feed
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	key, err := note.NewVerifier(f.Vkey)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, filepath.Join(dir, "store"), store.Options{})
	if err != nil {
		return err
	}
	held, err := s.Holding(ctx, f.Origin)
	if err != nil {
		return err
	}
	for _, b := range f.Bundles {
		if b.GetFirstIndex()+uint64(len(b.GetRecords())) <= held.Size {
			continue
		}
		a, err := stream.NewReceiver(held, key).Feed(b)
		if err != nil {
			return err
		}
		if err := s.Put(ctx, held, a, f.Vkey); err != nil {
			return err
		}
		held = a.Holding
		if _, err := os.Stdout.WriteString(fmt.Sprintf("%d\n", held.Size)); err != nil {
			return err
		}
	}
	return nil
}

func TestNothingThatWasStoredIsMissingAfterKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := newSource(t, 3, day(1500)...)
	raw, err := json.Marshal(feed{src.origin, src.vkey, src.bundles})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "feed.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	heads := map[uint64]string{}
	for _, b := range src.bundles {
		heads[b.GetFirstIndex()+uint64(len(b.GetRecords()))] = string(b.GetHead())
	}
	for round := range 8 {
		acknowledged := killVictim(t, dir, 1+rand.IntN(100))
		// Before anybody mends the file, from what lies there alone.
		left := leftOver(t, filepath.Join(dir, "store"))
		report, err := store.Verify(t.Context(), filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := leftOver(t, filepath.Join(dir, "store")); diff != left {
			t.Errorf("round %d: Verify changed the files from %s to %s", round, left, diff)
		}
		if err := report.Err(); err != nil || len(report.Ledgers) != 1 || report.Ledgers[0].Size < acknowledged {
			t.Fatalf("round %d: %d acknowledged, %+v, %v", round, acknowledged, report, err)
		}
		s := open(t, filepath.Join(dir, "store"))
		ledgers, err := s.Ledgers(t.Context())
		if err != nil || len(ledgers) != 1 {
			t.Fatal(ledgers, err)
		}
		held, err := s.Holding(t.Context(), src.origin)
		if err != nil || held.Size != report.Ledgers[0].Size || string(ledgers[0].Head) != heads[held.Size] {
			t.Errorf("round %d: %d held, which is no signed head, %v", round, held.Size, err)
		}
		if _, err := ledger.OpenHead(ledgers[0].Head, src.key); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// leftOver says which files of a store there are, and how large.
func leftOver(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%s %d %v\n", e.Name(), info.Size(), info.ModTime())
	}
	return out
}

// killVictim runs a victim until it has put so many bundles, kills it, and returns the
// size that it acknowledged last.
func killVictim(t *testing.T, dir string, after int) uint64 {
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
	var size uint64
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ { // to the end of the pipe: what left before the kill counts
		if _, err := fmt.Sscan(lines.Text(), &size); err != nil {
			t.Errorf("the victim says %q", lines.Text())
		}
		if n == after {
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the victim ended by itself")
	}
	return size
}
