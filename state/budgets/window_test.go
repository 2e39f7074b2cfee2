// SPDX-License-Identifier: Apache-2.0

package budgets_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

func calendar(unit writv1.CalendarUnit, offset time.Duration) budgets.Window {
	return budgets.WindowOf(&writv1.Budget{Calendar: &writv1.CalendarWindow{Unit: unit, UtcOffset: durationpb.New(offset)}})
}

func TestWindowsOfTheCalendarBeginAndEndInLocalTime(t *testing.T) {
	t.Parallel()
	const day, week, month = writv1.CalendarUnit_CALENDAR_UNIT_DAY, writv1.CalendarUnit_CALENDAR_UNIT_WEEK, writv1.CalendarUnit_CALENDAR_UNIT_MONTH
	for name, c := range map[string]struct {
		window          budgets.Window
		now, start, end string
	}{
		"a day in UTC":                         {calendar(day, 0), "2026-03-01T23:59:59Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		"a day begins east before UTC's":       {calendar(day, 2*time.Hour), "2026-03-01T22:00:00Z", "2026-03-01T22:00:00Z", "2026-03-02T22:00:00Z"},
		"a day begins west after UTC's":        {calendar(day, -5*time.Hour), "2026-03-01T04:59:59Z", "2026-02-28T05:00:00Z", "2026-03-01T05:00:00Z"},
		"a week begins on Monday":              {calendar(week, 0), "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"},
		"a Monday is of its own week":          {calendar(week, 0), "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		"a short month":                        {calendar(month, 0), "2026-02-28T12:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		"a month of a leap year, far east":     {calendar(month, 14*time.Hour), "2028-02-29T09:59:59Z", "2028-01-31T10:00:00Z", "2028-02-29T10:00:00Z"},
		"a fixed window":                       {budgets.Every(6 * time.Hour), "2026-03-01T13:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T18:00:00Z"},
		"a window that holds a time before it": {budgets.Every(time.Hour), "1969-12-31T23:30:00Z", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := c.window.Start(at(t, c.now))
			if got := start.Format(time.RFC3339); got != c.start {
				t.Errorf("start %s, want %s", got, c.start)
			}
			if got := c.window.End(start).Format(time.RFC3339); got != c.end {
				t.Errorf("end %s, want %s", got, c.end)
			}
		})
	}
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestEveryTimeIsInItsWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := writv1.CalendarUnit(rapid.IntRange(1, 3).Draw(t, "unit"))
		window := calendar(unit, time.Duration(rapid.IntRange(-14*60, 14*60).Draw(t, "offset"))*time.Minute)
		now := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "now"), 0)
		start := window.Start(now)
		if now.Before(start) || !now.Before(window.End(start)) {
			t.Fatalf("%s is not in [%s, %s)", now, start, window.End(start))
		}
		if next := window.Start(window.End(start)); !next.Equal(window.End(start)) {
			t.Fatalf("the window after %s begins at %s", window.End(start), next)
		}
	})
}

// takes is an amount that was taken at a time.
type takes struct {
	at     time.Time
	amount int64
}

func TestNoTimeAsLongAsARollingWindowTakesMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		length := time.Duration(rapid.Int64Range(60, 100_000).Draw(t, "length")) * time.Second
		limit := rapid.Int64Range(1, 20).Draw(t, "limit")
		window := budgets.WindowOf(&writv1.Budget{Rolling: durationpb.New(length)})
		key := budgets.Key{Budget: "b", Scope: []string{"ann"}, Dimension: 1, Window: window}
		var m budgets.Machine
		var admitted []takes
		now := noon
		for range rapid.IntRange(1, 80).Draw(t, "calls") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(length)/8).Draw(t, "pause")))
			amount := rapid.Int64Range(1, 8).Draw(t, "amount")
			key.Room = limit - amount
			read, _ := m.Read(now, []budgets.Key{key})
			if read[0].GetTaken() > key.Room {
				roomTime(t, &m, key, read[0], now)
				continue
			}
			m.Reserve(&writv1.Reserve{
				Budget: "b", Key: []string{"ann"}, Dimension: 1, Amount: amount,
				WindowStart: read[0].GetWindowStart(), Rolling: durationpb.New(length),
			})
			admitted = append(admitted, takes{now, amount})
			within(t, admitted, length, limit)
			if h := m.Held()[0]; len(h.GetParts()) > 62 {
				t.Fatalf("%d parts are kept", len(h.GetParts()))
			}
		}
	})
}

// within holds what was admitted against the limit in the window that ends with the
// last of it.
func within(t *rapid.T, admitted []takes, length time.Duration, limit int64) {
	last := admitted[len(admitted)-1].at
	var sum int64
	for _, a := range admitted {
		if a.at.After(last.Add(-length)) {
			sum += a.amount
		}
	}
	if sum > limit {
		t.Fatalf("%d in %s up to %s, limit %d", sum, length, last, limit)
	}
}

// roomTime holds the time at which there is said to be room against later readings.
func roomTime(t *rapid.T, m *budgets.Machine, key budgets.Key, read *writv1.Balance, now time.Time) {
	if key.Room < 0 {
		if read.GetRoomTime() != nil {
			t.Fatalf("there is room at %s for more than the limit", read.GetRoomTime().AsTime())
		}
		return
	}
	room := read.GetRoomTime().AsTime()
	if !room.After(now) {
		t.Fatalf("there is room at %s, and it is %s", room, now)
	}
	if later, _ := m.Read(room, []budgets.Key{key}); later[0].GetTaken() > key.Room {
		t.Fatalf("%d are taken at %s, want %d", later[0].GetTaken(), room, key.Room)
	}
	if early, _ := m.Read(room.Add(-1), []budgets.Key{key}); early[0].GetTaken() <= key.Room {
		t.Fatalf("there was room before %s", room)
	}
}

func TestAClockSetBackNeitherRefillsNorLoses(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]budgets.Window{
		"a fixed window":             budgets.Every(time.Hour),
		"a day":                      calendar(writv1.CalendarUnit_CALENDAR_UNIT_DAY, 0),
		"a rolling window":           budgets.WindowOf(&writv1.Budget{Rolling: durationpb.New(time.Hour)}),
		"one that is never refilled": budgets.WindowOf(&writv1.Budget{Endless: true}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m budgets.Machine
			key := budgets.Key{Budget: "b", Dimension: 1, Window: window}
			take := func(now time.Time) int64 {
				read, _ := m.Read(now, []budgets.Key{key})
				r := &writv1.Reserve{Budget: "b", Dimension: 1, Amount: 1, WindowStart: read[0].GetWindowStart()}
				if window.Rolling() > 0 {
					r.Rolling = durationpb.New(window.Rolling())
				}
				m.Reserve(r)
				read, _ = m.Read(now, []budgets.Key{key})
				return read[0].GetTaken()
			}
			take(noon)
			if got := take(noon.Add(-48 * time.Hour)); got != 2 {
				t.Errorf("taken = %d after the clock was set back, want 2", got)
			}
		})
	}
}

func TestAnAlertIsKnownInItsWindow(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]budgets.Window{
		"a fixed window":   budgets.Every(time.Hour),
		"a rolling window": budgets.WindowOf(&writv1.Budget{Rolling: durationpb.New(time.Hour)}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m budgets.Machine
			key := budgets.Key{Budget: "b", Dimension: 1, Window: window}
			alert := &writv1.AlertRecord{Kind: 1, Percent: 50, Budget: "b", Dimension: 1, WindowStart: timestamppb.New(window.Start(noon))}
			if window.Rolling() > 0 {
				alert.Rolling = durationpb.New(window.Rolling())
			}
			m.Alert(alert)
			var restored budgets.Machine
			for _, h := range m.Held() {
				restored.Restore(h)
			}
			for _, m := range []*budgets.Machine{&m, &restored} {
				for _, c := range []struct {
					after   time.Duration
					percent uint32
					want    bool
				}{{0, 50, true}, {30 * time.Minute, 50, true}, {0, 80, false}, {62 * time.Minute, 50, false}} {
					if got := m.Alerted(noon.Add(c.after), key, 1, c.percent); got != c.want {
						t.Errorf("after %s: alerted at %d%% = %v", c.after, c.percent, got)
					}
				}
			}
		})
	}
}

// TestNothingIsSpentTwiceOrLost plays calls that are reserved, settled and billed in any
// order, with crashes in between, against sums that are kept by hand.
func TestNothingIsSpentTwiceOrLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		windows := []budgets.Window{budgets.Every(time.Hour), {}, budgets.WindowOf(&writv1.Budget{Rolling: durationpb.New(time.Hour)})}
		m := &budgets.Machine{}
		var log []func(*budgets.Machine)
		do := func(event func(*budgets.Machine)) { event(m); log = append(log, event) }
		var open []*writv1.Reserve
		want := make(map[string]int64)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			user := rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user")
			which := rapid.IntRange(0, 2).Draw(t, "window")
			switch what := rapid.IntRange(0, 4).Draw(t, "what"); {
			case what <= 1:
				r := &writv1.Reserve{
					Budget: "b", Key: []string{user, string(rune('0' + which))}, Dimension: 4,
					Amount: rapid.Int64Range(1, 100).Draw(t, "amount"), WindowStart: timestamppb.New(windows[which].Start(noon)),
				}
				if windows[which].Rolling() > 0 {
					r.Rolling = durationpb.New(time.Hour)
				}
				do(func(m *budgets.Machine) { m.Reserve(r) })
				open = append(open, r)
				want[r.GetKey()[0]+r.GetKey()[1]] += r.GetAmount()
			case what <= 3 && len(open) > 0:
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				settle := &writv1.Reserve{
					Budget: "b", Key: open[i].GetKey(), Dimension: 4, WindowStart: open[i].GetWindowStart(), Rolling: open[i].GetRolling(),
				}
				settle.Amount = rapid.Int64Range(1, open[i].GetAmount()).Draw(t, "back")
				name := open[i].GetKey()[0] + open[i].GetKey()[1]
				if rapid.Bool().Draw(t, "overrun") {
					do(func(m *budgets.Machine) { m.Reserve(settle) })
					want[name] += settle.GetAmount()
				} else {
					do(func(m *budgets.Machine) { m.GiveBack(settle) })
					want[name] -= settle.GetAmount()
				}
				open = append(open[:i], open[i+1:]...)
			default:
				m = crashed(m, log, rapid.IntRange(0, len(log)).Draw(t, "snapshot"))
			}
			for _, user := range []string{"ann", "bob"} {
				for i, window := range windows {
					name := user + string(rune('0'+i))
					read, _ := m.Read(noon, []budgets.Key{{Budget: "b", Scope: []string{user, string(rune('0' + i))}, Dimension: 4, Window: window}})
					if got := read[0].GetTaken(); got != want[name] {
						t.Fatalf("%s has taken %d, want %d", name, got, want[name])
					}
				}
			}
		}
	})
}

// crashed returns what a snapshot of the first events and the rest of them give.
func crashed(before *budgets.Machine, log []func(*budgets.Machine), at int) *budgets.Machine {
	var early, late budgets.Machine
	for _, event := range log[:at] {
		event(&early)
	}
	for _, h := range early.Held() {
		late.Restore(h)
	}
	for _, event := range log[at:] {
		event(&late)
	}
	if before.Dump() != late.Dump() {
		return &budgets.Machine{} // which the balances then show
	}
	return &late
}
