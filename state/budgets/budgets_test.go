// SPDX-License-Identifier: Apache-2.0

package budgets_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func callsPerHour(user string) budgets.Key {
	return budgets.Key{
		Budget:    "calls",
		Scope:     []string{user},
		Dimension: writv1.Dimension_DIMENSION_CALLS,
		Window:    budgets.Every(time.Hour),
	}
}

func reserve(key budgets.Key, at time.Time, amount int64) *writv1.Reserve {
	return &writv1.Reserve{
		Budget:      key.Budget,
		Key:         key.Scope,
		Dimension:   key.Dimension,
		WindowStart: timestamppb.New(key.WindowStart(at)),
		Amount:      amount,
	}
}

func taken(m *budgets.Machine, key budgets.Key, at time.Time) int64 {
	read, _ := m.Read(at, []budgets.Key{key})
	return read[0].GetTaken()
}

func TestABalanceCountsWhatIsReservedAndNotGivenBack(t *testing.T) {
	t.Parallel()
	var m budgets.Machine
	ann, bob := callsPerHour("ann"), callsPerHour("bob")
	m.Reserve(reserve(ann, noon, 2))
	m.Reserve(reserve(ann, noon, 3))
	m.GiveBack(reserve(ann, noon, 2))
	if got := taken(&m, ann, noon); got != 3 {
		t.Errorf("ann has taken %d, want 3", got)
	}
	if got := taken(&m, bob, noon); got != 0 {
		t.Errorf("bob has taken %d, want 0", got)
	}
}

func TestANewWindowStartsFromZero(t *testing.T) {
	t.Parallel()
	var m budgets.Machine
	ann := callsPerHour("ann")
	m.Reserve(reserve(ann, noon, 5))
	later := noon.Add(time.Hour)
	if got := taken(&m, ann, later); got != 0 {
		t.Errorf("taken in the next window: %d, want 0", got)
	}
	m.Reserve(reserve(ann, later, 1))
	m.GiveBack(reserve(ann, noon, 5))
	if got := taken(&m, ann, later); got != 1 {
		t.Errorf("a late give-back changed the new window: %d, want 1", got)
	}
}

func TestAReadIsCurrentUntilTheBalanceChanges(t *testing.T) {
	t.Parallel()
	var m budgets.Machine
	ann, bob := callsPerHour("ann"), callsPerHour("bob")
	keys := []budgets.Key{ann}
	_, version := m.Read(noon, keys)
	m.Reserve(reserve(bob, noon, 1))
	if !m.Current(keys, version) {
		t.Error("another key's change made the read stale")
	}
	m.Reserve(reserve(ann, noon, 1))
	if m.Current(keys, version) {
		t.Error("the key's own change left the read current")
	}
}

func TestScopesThatJoinAlikeAreDifferentBalances(t *testing.T) {
	t.Parallel()
	var m budgets.Machine
	one := budgets.Key{Budget: "b", Scope: []string{"a,1:b"}, Dimension: 1, Window: budgets.Every(time.Hour)}
	two := budgets.Key{Budget: "b", Scope: []string{"a", "b"}, Dimension: 1, Window: budgets.Every(time.Hour)}
	m.Reserve(reserve(one, noon, 1))
	if got := taken(&m, two, noon); got != 0 {
		t.Errorf("taken = %d, want 0", got)
	}
}

func TestBalancesNeverGoBelowZeroAndFoldInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var live, folded budgets.Machine
		users := []string{"ann", "bob"}
		var open []*writv1.Reserve
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			if len(open) > 0 && rapid.Bool().Draw(t, "giveBack") {
				live.GiveBack(open[0])
				open = open[1:]
				continue
			}
			key := callsPerHour(rapid.SampledFrom(users).Draw(t, "user"))
			r := reserve(key, noon, rapid.Int64Range(1, 9).Draw(t, "amount"))
			live.Reserve(r)
			open = append(open, r)
		}
		for i := len(open) - 1; i >= 0; i-- {
			folded.Reserve(open[i])
		}
		if live.Dump() != folded.Dump() {
			t.Fatalf("live:\n%sfolded:\n%s", live.Dump(), folded.Dump())
		}
	})
}
