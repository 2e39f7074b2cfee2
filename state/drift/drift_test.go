// SPDX-License-Identifier: Apache-2.0

package drift_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/state/drift"
)

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// traffic is calls whose rate goes with the time of day: from 24 to 216 a minute.
type traffic struct {
	random *rand.Rand
	now    time.Time
	// calls multiplies the calls, refunds the share of refunds, price what each costs.
	calls, refunds, price float64
}

func newTraffic(seed uint64, at time.Time) *traffic {
	return &traffic{random: rand.New(rand.NewPCG(seed, 1)), now: at, calls: 1, refunds: 1, price: 1}
}

// rate is the mean of ten seconds.
func (f *traffic) rate() float64 {
	day := f.now.Sub(monday).Hours() / 24
	return f.calls * (120 - 96*math.Cos(2*math.Pi*day)) / 6
}

// step plays ten seconds.
func (f *traffic) step(m *drift.Machine) []drift.Alarm {
	n := 0
	for left := f.rate(); ; n++ {
		if left -= f.random.ExpFloat64(); left < 0 {
			break
		}
	}
	for range n {
		tool := "lookup"
		if f.random.Float64() < 0.25*f.refunds {
			tool = "refund"
		}
		m.Call(f.now, tool)
		// A gamma of shape 2.
		m.Spend(int64(1e6 * f.price * (f.random.ExpFloat64() + f.random.ExpFloat64())))
	}
	f.now = f.now.Add(10 * time.Second)
	return m.Alarms()
}

// play plays for a time, and returns the alarms.
func (f *traffic) play(m *drift.Machine, length time.Duration) []drift.Alarm {
	var alarms []drift.Alarm
	for end := f.now.Add(length); f.now.Before(end); {
		alarms = append(alarms, f.step(m)...)
	}
	return alarms
}

// learned returns a machine that has learned for eight days, as text that can be
// restored.
func learned(t *testing.T) *drift.Machine {
	t.Helper()
	var m drift.Machine
	if alarms := newTraffic(7, monday).play(&m, 8*24*time.Hour); len(alarms) > 0 {
		t.Fatalf("alarms while it learns: %v", alarms)
	}
	return &m
}

// again returns the machine anew, by way of its snapshot.
func again(m *drift.Machine) *drift.Machine {
	var out drift.Machine
	for _, h := range m.Held() {
		out.Restore(h)
	}
	return &out
}

func TestALastingThreefoldStepIsFoundWithinFiveMinutes(t *testing.T) {
	t.Parallel()
	const runs = 1000
	m := learned(t)
	for series, change := range map[string]func(*traffic){
		drift.Calls:   func(f *traffic) { f.calls = 3 },
		drift.Money:   func(f *traffic) { f.price = 3 },
		"tool:refund": func(f *traffic) { f.refunds = 3 },
	} {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			var delays []time.Duration
			for seed := range uint64(runs) {
				m := again(m)
				f := newTraffic(seed, monday.Add(8*24*time.Hour+time.Duration(seed*24*3600/runs)*time.Second))
				f.play(m, 2*time.Minute)
				change(f)
				begin := f.now
				delay := time.Hour
				for _, a := range f.play(m, 6*time.Minute) {
					if a.Series == series && a.Time.Sub(begin) > 0 {
						delay = min(delay, a.Time.Sub(begin))
					}
				}
				delays = append(delays, delay)
			}
			slices.Sort(delays)
			late := len(delays) - sortSearch(delays, 5*time.Minute)
			t.Logf("median %s, 99%% %s, later than five minutes: %d", delays[runs/2], delays[runs*99/100], late)
			if late > runs/100 {
				t.Errorf("%d of %d steps were found late", late, runs)
			}
		})
	}
}

// sortSearch returns how many delays are at most the given one.
func sortSearch(delays []time.Duration, most time.Duration) int {
	n, _ := slices.BinarySearch(delays, most+1)
	return n
}

func TestThirtyDaysOfUsualTrafficGiveAtMostOneAlarm(t *testing.T) {
	t.Parallel()
	m := learned(t)
	for seed := range uint64(4) {
		f := newTraffic(100+seed, monday.Add(8*24*time.Hour))
		if alarms := f.play(again(m), 30*24*time.Hour); len(alarms) > 1 {
			t.Errorf("seed %d: %v", seed, alarms)
		}
	}
}

func TestAQuietWeekendIsNoReasonForAnAlarmOnMonday(t *testing.T) {
	t.Parallel()
	var m drift.Machine
	f := newTraffic(1, monday)
	for day := range 21 {
		f.calls = 1
		if day%7 >= 5 {
			f.calls = 0.5
		}
		if alarms := f.play(&m, 24*time.Hour); len(alarms) > 0 {
			t.Fatalf("day %d: %v", day, alarms)
		}
	}
}

func TestOneLargePaymentIsNoDrift(t *testing.T) {
	t.Parallel()
	m := again(learned(t))
	f := newTraffic(3, monday.Add(8*24*time.Hour+12*time.Hour))
	f.play(m, time.Minute)
	m.Spend(1e15)
	if alarms := f.play(m, 10*time.Minute); len(alarms) > 0 {
		t.Errorf("alarms %v", alarms)
	}
}

func TestAToolThatWasNeverCalledIsDrift(t *testing.T) {
	t.Parallel()
	m := again(learned(t))
	f := newTraffic(3, monday.Add(8*24*time.Hour+12*time.Hour))
	var alarms []drift.Alarm
	for range 30 {
		for range 5 {
			m.Call(f.now, "export")
		}
		alarms = append(alarms, f.step(m)...)
	}
	if len(alarms) != 1 || alarms[0].Series != "tool:export" || alarms[0].Seen < 3*alarms[0].Expected {
		t.Errorf("alarms %v, want one of tool:export", alarms)
	}
}

func TestASnapshotIsTheWholeState(t *testing.T) {
	t.Parallel()
	m := learned(t)
	f := newTraffic(5, monday.Add(8*24*time.Hour))
	f.play(m, 95*time.Second)
	copied := again(m)
	if diff := cmp.Diff(m.Dump(), copied.Dump()); diff != "" {
		t.Fatalf("(-before +after):\n%s", diff)
	}
	g := *f
	random := rand.NewPCG(9, 9)
	f.random = rand.New(random)
	f.play(m, 3*time.Hour)
	g.random = rand.New(rand.NewPCG(9, 9))
	g.play(copied, 3*time.Hour)
	if m.Dump() != copied.Dump() {
		t.Error("the copy went another way")
	}
	if !strings.Contains(m.Dump(), "drift tool:refund") {
		t.Errorf("dump:\n%s", m.Dump())
	}
}

func TestAGapIsQuietAndALongOneForgets(t *testing.T) {
	t.Parallel()
	m := again(learned(t))
	f := newTraffic(5, monday.Add(8*24*time.Hour+20*time.Hour+3*time.Second))
	if alarms := f.play(m, 30*time.Minute); len(alarms) > 0 {
		t.Errorf("after twenty hours: %v", alarms)
	}
	f.now, f.calls = f.now.Add(40*24*time.Hour), 10
	if alarms := f.play(m, 30*time.Minute); len(alarms) > 0 {
		t.Errorf("after forty days: %v", alarms)
	}
	m.Call(monday, "lookup") // a clock that was set back
}
