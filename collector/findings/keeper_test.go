// SPDX-License-Identifier: Apache-2.0

package findings_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/writ-dev/writ/collector/findings"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// desk is a keeper over a real store, whose clock a test sets.
type desk struct {
	*findings.Keeper
	store *store.Store
	now   time.Time
	known bool
	told  []store.Finding
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := &desk{store: s, now: noon, known: true}
	d.Keeper, err = findings.New(t.Context(), findings.Options{
		Store: s, Clock: func() time.Time { return d.now }, Log: slog.New(slog.DiscardHandler),
		Known: func(string) bool { return d.known }, Tell: func(f store.Finding) { d.told = append(d.told, f) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// take hears a record of an agent's, at so many seconds by its wall clock and by its
// monotonic one, and says what is told.
func (d *desk) take(t *testing.T, kind writv1.RecordKind, epoch uint64, wall, mono float64) string {
	t.Helper()
	before := len(d.told)
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	a := stream.Accepted{Holding: stream.Holding{Origin: "desk"}, Head: fmt.Appendf(nil, "%v %v %v", epoch, wall, mono), Decoded: []*writv1.Record{{
		Epoch: epoch, Kind: kind, TimeUnixNs: uint64(noon.Add(seconds(wall)).UnixNano()), MonoNs: uint64(seconds(mono)), //nolint:gosec // small
	}}}
	d.Taking(t.Context(), stream.Holding{Origin: "desk"}, a)
	d.Taken(t.Context(), a)
	if len(d.told) == before {
		return ""
	}
	return d.told[before].Kind + ": " + d.told[before].Detail
}

func TestAClockJumpsWhereItPartsFromTheMonotonicOneOrIsAhead(t *testing.T) {
	t.Parallel()
	type at struct {
		epoch      uint64
		wall, mono float64
		want       string
	}
	for name, steps := range map[string][]at{
		"clocks that go alike":                         {{1, 0, 0, ""}, {1, 10, 10, ""}, {1, 3610, 3610, "clock_jump: record 0: the wall clock is 1h0m10s ahead of the collector's"}},
		"a wall clock that is slewed":                  {{1, -100, 0, ""}, {1, -85, 10, ""}, {1, -80, 20, ""}},
		"a wall clock that is put forward":             {{1, -9000, 0, ""}, {1, -8984.9, 10, "clock_jump: record 0: the wall clock went 5.1s further than the monotonic one"}},
		"a wall clock that is put back":                {{1, 0, 100, ""}, {1, -3600, 110, "clock_jump: record 0: the wall clock went -1h0m10s further than the monotonic one"}},
		"a new epoch, whose monotonic clock begins":    {{1, 0, 5000, ""}, {2, 20, 0, ""}, {2, 30, 10, ""}},
		"a new epoch with an earlier clock":            {{1, 0, 5000, ""}, {2, -60, 0, "clock_jump: record 0: the wall clock is 1m0s behind the epoch before"}},
		"a clock that stays ahead is said once":        {{1, 61, 0, "clock_jump: record 0: the wall clock is 1m1s ahead of the collector's"}, {1, 71, 10, ""}, {1, 81, 20, ""}},
		"a clock that is ahead as far as it may":       {{1, 60, 0, ""}},
		"records that come late, from a long way back": {{1, -90000, 0, ""}, {1, -89990, 10, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			for i, s := range steps {
				if got := d.take(t, writv1.RecordKind_RECORD_KIND_HEARTBEAT, s.epoch, s.wall, s.mono); got != s.want {
					t.Errorf("step %d: told %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

func TestALedgerIsSilentOnceUntilItIsHeardAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	look := func(after time.Duration) int {
		d.now = d.now.Add(after)
		before := len(d.told)
		d.Look(t.Context())
		return len(d.told) - before
	}
	const beat, end = writv1.RecordKind_RECORD_KIND_HEARTBEAT, writv1.RecordKind_RECORD_KIND_END
	d.take(t, beat, 1, 0, 0)
	for i, c := range []struct {
		after time.Duration
		want  int
	}{{29 * time.Second, 0}, {time.Second, 1}, {time.Hour, 0}} {
		if got := look(c.after); got != c.want {
			t.Errorf("look %d finds %d, want %d", i, got, c.want)
		}
	}
	d.take(t, end, 1, 0, 3630)
	if got := look(time.Hour); got != 0 {
		t.Errorf("an agent that has ended is missed %d times", got)
	}
	d.take(t, beat, 2, 7200, 0)
	d.known = false
	if got := look(time.Hour); got != 0 {
		t.Errorf("an agent whose key was taken away is missed %d times", got)
	}
	kept, err := d.store.Findings(t.Context(), "desk")
	if err != nil || len(kept) == 0 || kept[0].Kind != findings.Silence || kept[0].Detail != "nothing has come for 30s, and it has not ended" {
		t.Errorf("kept %+v, %v", kept, err)
	}
}

func TestTheSameFindingIsToldOnceAndStrangersOnceAMinute(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	f := store.Finding{Origin: "desk", Kind: "gap", Detail: "x", Head: []byte("a")}
	for range 3 {
		d.Keep(t.Context(), f)
	}
	f.Head = []byte("b")
	d.Keep(t.Context(), f)
	if len(d.told) != 2 {
		t.Errorf("told %d, want each head once", len(d.told))
	}
	for i := range 5000 {
		d.Stranger(t.Context(), fmt.Sprintf("stranger %d", i), nil)
	}
	if len(d.told) != 3 {
		t.Errorf("told of %d strangers within a minute, want 1", len(d.told)-2)
	}
	if kinds, err := d.store.CountFindings(t.Context()); err != nil || kinds["unknown_key"] != 1<<10 {
		t.Errorf("kept %v, %v, want %d strangers", kinds, err, 1<<10)
	}
	d.now = d.now.Add(time.Minute)
	d.Stranger(t.Context(), "one more", nil)
	if len(d.told) != 4 {
		t.Errorf("after a minute told %d, want one stranger more", len(d.told)-3)
	}
}

func TestWhatCannotBeKeptIsTold(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	d.Keep(context.Background(), store.Finding{Origin: "desk", Kind: "fork"})
	if len(d.told) != 1 {
		t.Error("a finding is not told because the store cannot keep it")
	}
	if _, err := findings.New(t.Context(), findings.Options{Store: d.store}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("New over a store that is closed = %v", err)
	}
}
