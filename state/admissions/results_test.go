// SPDX-License-Identifier: Apache-2.0

package admissions_test

import (
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

// numbered is the claim of the nth call, under a key of its own.
func numbered(n int) admissions.Claim {
	c := admissions.Claim{Time: noon.Add(time.Duration(n) * time.Second)}
	binary.BigEndian.PutUint32(c.ID[:], uint32(n))
	binary.BigEndian.PutUint32(c.Key[:], uint32(n)+1)
	return c
}

// blank is what all results are parts of, so that tests of the bound are cheap.
var blank [admissions.KeptBytes]byte

func succeeded(size int) *writv1.OutcomeRecord {
	return &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, Result: blank[:size]}
}

// kept counts the results that are kept of the first n calls, from the newest on.
func kept(t testing.TB, m *admissions.Machine, n int) (count int) {
	t.Helper()
	for i := n - 1; i >= 0; i-- {
		c := numbered(i)
		held, ok := m.Earlier(c.Key, c.Time)
		if !ok || held.Outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
			t.Fatalf("call %d is not held as SUCCEEDED", i)
		}
		if len(held.Outcome.GetResult()) == 0 {
			return count
		}
		count++
	}
	return count
}

func TestResultsAreKeptUpToTheirBound(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for _, c := range []struct {
		name string
		last int
		want int
	}{
		{"one byte under the bound", size - 1, admissions.KeptBytes / size},
		{"at the bound", size, admissions.KeptBytes / size},
		{"one byte over the bound", size + 1, admissions.KeptBytes/size - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const calls = admissions.KeptBytes / size
			m := admissions.New(10_000)
			for i := range calls {
				take(t, m, numbered(i))
				outcome := succeeded(size)
				if i == calls-1 {
					outcome = succeeded(c.last)
				}
				m.Finish(numbered(i).ID, outcome)
				if len(outcome.GetResult()) == 0 {
					t.Fatal("the outcome that was given is changed")
				}
			}
			if got := kept(t, m, calls); got != c.want {
				t.Errorf("%d results are kept, want %d", got, c.want)
			}
		})
	}
}

func TestTheOldestResultsAreDroppedFirst(t *testing.T) {
	t.Parallel()
	const size, calls = 1 << 20, 3 * admissions.KeptBytes >> 20
	m := admissions.New(10_000)
	for i := range calls {
		take(t, m, numbered(i))
	}
	for i := calls - 1; i >= 0; i-- { // the oldest decision ends last
		m.Finish(numbered(i).ID, succeeded(size))
	}
	if got := kept(t, m, calls); got != admissions.KeptBytes/size {
		t.Errorf("%d of the newest results are kept, want %d", got, admissions.KeptBytes/size)
	}
}

func TestAKeyThatIsTakenAgainDropsItsResult(t *testing.T) {
	t.Parallel()
	const size = admissions.KeptBytes - 1
	m := admissions.New(10)
	for i := range 5 { // each of them would push out the one of another key
		c := numbered(1)
		c.ID[15] = byte(i)
		c.Time = c.Time.Add(time.Duration(i) * time.Second)
		take(t, m, c)
		m.Finish(c.ID, succeeded(size-1))
	}
	other := numbered(0)
	take(t, m, other)
	m.Finish(other.ID, succeeded(1))
	if held, _ := m.Earlier(other.Key, other.Time); len(held.Outcome.GetResult()) != 1 {
		t.Error("results of a key that was taken again still count")
	}
	for i := range 2 { // forgotten with their keys
		c := numbered(7 + i)
		c.Time = noon.Add(time.Duration(i+1) * 2 * admissions.KeptFor)
		take(t, m, c)
		m.Finish(c.ID, succeeded(size))
		if held, _ := m.Earlier(c.Key, c.Time); len(held.Outcome.GetResult()) != size {
			t.Error("results of forgotten keys still count")
		}
	}
}

func TestAFoldKeepsTheSameResults(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const calls = 12
		live, folded := admissions.New(100), admissions.New(100)
		order := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}).Draw(t, "order")
		for i := range calls {
			// Calls are admitted before their records are written, in any order.
			live.Take(numbered(i))
			folded.Take(numbered(order[i]))
		}
		for _, i := range rapid.Permutation(order).Draw(t, "ends") {
			outcome := succeeded(rapid.IntRange(0, admissions.KeptBytes/4).Draw(t, "size"))
			live.Finish(numbered(i).ID, outcome)
			folded.Finish(numbered(i).ID, outcome)
		}
		if live.Dump() != folded.Dump() {
			t.Fatalf("live:\n%sfolded:\n%s", live.Dump(), folded.Dump())
		}
	})
}
