// SPDX-License-Identifier: Apache-2.0

package stops_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/stops"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func same(selector, tool string) bool { return selector == tool }

func order(tool string, choice writv1.StopChoice, life time.Duration) *writv1.StopOrder {
	return &writv1.StopOrder{Choice: choice, Stop: &writv1.Stop{
		Scope: &writv1.StopScope{Tool: tool}, Time: timestamppb.New(noon), ExpireTime: timestamppb.New(noon.Add(life)),
	}}
}

// Orders reach agents by several ways: whichever comes first, and however often each
// comes, all come to hold the same.
func TestOrdersGiveTheSameInAnySequence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		orders := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *writv1.StopOrder {
			return order(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tool"), writv1.StopChoice(rapid.Int32Range(1, 2).Draw(t, "choice")),
				time.Duration(rapid.IntRange(1, 3).Draw(t, "hours"))*time.Hour)
		}), 0, 12).Draw(t, "orders")
		again := append(rapid.Permutation(orders).Draw(t, "again"), rapid.Permutation(orders).Draw(t, "and again")...)
		one, other := stops.New(same), stops.New(same)
		take := func(m *stops.Machine, orders []*writv1.StopOrder) {
			for _, o := range orders {
				if err := m.Take(o); err != nil {
					t.Fatal(err)
				}
			}
		}
		take(one, orders)
		take(other, again)
		if one.Dump() != other.Dump() {
			t.Fatalf("in their order:\n%s\nin another:\n%s", one.Dump(), other.Dump())
		}
		for _, tool := range []string{"a", "b", "c"} {
			call, now := &stops.Call{Tool: tool}, noon.Add(time.Hour)
			if got, want := fmt.Sprint(one.Facts(call, now)), fmt.Sprint(other.Facts(call, now)); got != want {
				t.Fatalf("facts of %s: %s and %s", tool, got, want)
			}
			if lifted := len(one.Facts(call, noon.Add(3*time.Hour))); lifted != 0 {
				t.Fatalf("%d stops of %s outlive their end", lifted, tool)
			}
		}
	})
}

func TestTheRoomIsBoundedAndComesBack(t *testing.T) {
	t.Parallel()
	m := stops.New(same)
	for i := range stops.MaxHeld {
		o := order(fmt.Sprintf("t%d", i), writv1.StopChoice_STOP_CHOICE_STOP, time.Hour)
		if changes, err := m.Takes(o, noon); err != nil || !changes {
			t.Fatalf("order %d: %v, %v", i, changes, err)
		}
		if err := m.Take(o); err != nil {
			t.Fatal(err)
		}
	}
	late := order("late", writv1.StopChoice_STOP_CHOICE_STOP, 2*time.Hour)
	if _, err := m.Takes(late, noon); err != stops.ErrFull { //nolint:errorlint // the machine's own
		t.Errorf("one more: %v", err)
	}
	if _, err := m.Takes(order("t3", writv1.StopChoice_STOP_CHOICE_LIFT, time.Hour), noon); err != nil {
		t.Errorf("a stop that is held cannot be lifted when there is no room: %v", err)
	}
	m.Forget(noon.Add(time.Hour))
	if !m.Empty() {
		t.Error("stops that have ended are held")
	}
	if _, err := m.Takes(late, noon.Add(time.Hour)); err != nil {
		t.Errorf("after they have ended: %v", err)
	}
}

func TestADecisionIsToldOfAFew(t *testing.T) {
	t.Parallel()
	m := stops.New(func(string, string) bool { return true })
	for i := range 20 {
		if err := m.Take(order(fmt.Sprintf("t%d", i), writv1.StopChoice_STOP_CHOICE_STOP, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(m.Facts(&stops.Call{Tool: "x"}, noon)); got != stops.MaxFacts {
		t.Errorf("%d facts, want %d", got, stops.MaxFacts)
	}
}
