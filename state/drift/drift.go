// SPDX-License-Identifier: Apache-2.0

// Package drift tells when more is spent, more is called, or a tool is called more
// among all calls, than at this hour of the days before. It is a pure machine: calls
// and what they cost go in, in the order of their records, and alarms come out; it has
// no clock but the times of the calls, so that it can be folded from a ledger.
//
// The test is Page's cumulative sum (E. S. Page, Continuous Inspection Schemes,
// Biometrika 41, 1954), for counts as J. M. Lucas has it (Counted Data CUSUM's,
// Technometrics 27, 1985). Time is cut into ticks of ten seconds. With mu the mean of
// a tick at this hour of the day, each tick with x adds
//
//	(x ln 3 - 2 mu) / phi
//
// to a sum that never falls below zero: the log of how much likelier x is at three
// times the mean than at the mean. Phi is the variance of a tick over its mean, so
// that amounts and calls that come in bursts count for less (quasi-likelihood, R. W. M.
// Wedderburn, Biometrika 61, 1974). The alarm is at a sum of 16: where mu is right the
// mean time to a false alarm is at least exp(16) ticks, which is 2.8 years (G. Lorden,
// Annals of Mathematical Statistics 42, 1971). One tick adds at most a quarter of that,
// so that no single call is an alarm.
//
// Means are learned for a week, hour by hour, and follow as the mean of the last seven
// days would. It finds a lasting threefold step within five minutes where there are
// some eight calls a minute or more; up to 1.8 times the mean never adds up to an
// alarm, and neither does what grows slowly: that is what budgets are for. It does not
// look for less than usual, and it knows the hours of a day, not the days of a week: a
// Monday of twice the calls of the days before it can be an alarm.
package drift

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// tick is the time that is one count.
	tick = 10 * time.Second
	// ticksAnHour, and the fewest of them of which a mean is learned.
	ticksAnHour, fewestTicks = int64(time.Hour / tick), int64(time.Hour/tick) / 2
	// learnDays is how many days of an hour make its mean.
	learnDays = 7
	// threshold is the sum that is an alarm, mostOfTick what one tick adds at most.
	threshold, mostOfTick = 16.0, threshold / 4
	// step is the factor that is looked for.
	step = 3.0
	// leastMean is the mean that is taken for smaller ones, in events a tick: of
	// less a threefold step is not told from chance.
	leastMean = 0.25
	// quietFor is how long a series gives no second alarm.
	quietFor = int64(time.Hour / tick)
	// longestGap is a time without calls after which learning begins anew.
	longestGap = 7 * 24 * ticksAnHour
	// mostSeries bounds what is kept: some 500 bytes each. Tools beyond are counted
	// among all calls only.
	mostSeries = 4096
)

// The series that are not a tool's.
const (
	// Calls is all calls that are allowed.
	Calls = "calls"
	// Money is what they take from budgets of money.
	Money = "money"
	// toolPrefix is before the name of a tool.
	toolPrefix = "tool:"
)

// Alarm says that a series has left its mean.
type Alarm struct {
	// Series is [Calls], [Money], or "tool:" and the tool's name: its share of all
	// calls.
	Series string
	// Time is the end of the tick that gave the alarm, Since about when it began.
	Time, Since time.Time
	// Expected is the mean for a minute at this hour, of a tool that among as many
	// calls as there were; Seen what came since then, for a minute.
	Expected, Seen float64
}

// Machine watches series. The zero value is ready.
type Machine struct {
	// now is the number of the tick that is being counted, from the Unix epoch, first
	// that of the first one.
	now, first int64
	// seen is how many ticks of the hour were counted.
	seen   int64
	series map[string]*series
	// tools are the series of tools by the tools' own names.
	tools  map[string]*series
	alarms []Alarm
}

// series is what is kept of one of them.
type series struct {
	// mean is that of a tick by the hour of the day, days of how many days.
	mean [24]float64
	days [24]int
	// phi is the variance of a tick over its mean, unit the mean amount of an event.
	phi, unit float64

	// value and events are those of the tick that is being counted.
	value, events float64
	// sum, squares and count are of the hour, up to this tick.
	sum, squares, count float64

	// score is the cumulative sum; since, seen and expected are from when it was zero
	// on.
	score          float64
	since          int64
	seen, expected float64
	// quiet is the tick before which there is no further alarm.
	quiet int64
}

// Call counts a call that was allowed. Calls MUST come in the order of their records;
// one that is decided before another that came first is counted with it.
func (m *Machine) Call(at time.Time, tool string) {
	m.advance(at)
	m.find(Calls).add(1)
	of, ok := m.tools[tool]
	if !ok {
		of = m.find(toolPrefix + tool)
		if m.tools == nil {
			m.tools = make(map[string]*series)
		}
		if of != nil {
			m.tools[tool] = of
		}
	}
	of.add(1)
}

// Spend counts what a call took of money, at the time of the last call.
func (m *Machine) Spend(nanoDollars int64) {
	if nanoDollars > 0 && m.first != 0 {
		m.find(Money).add(float64(nanoDollars))
	}
}

// Alarms returns the alarms that were given since it was last asked, by time and
// series.
func (m *Machine) Alarms() []Alarm {
	alarms := m.alarms
	m.alarms = nil
	slices.SortFunc(alarms, func(a, b Alarm) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Series, b.Series)) })
	return alarms
}

// add counts an event. Nothing is counted in a series for which there is no room.
func (s *series) add(amount float64) {
	if s == nil {
		return
	}
	s.value += amount
	s.events++
}

// find returns a series, which is made when it is not there; nil when there are too
// many. A tool that was not called before was called zero times.
func (m *Machine) find(name string) *series {
	if s := m.series[name]; s != nil || len(m.series) >= mostSeries {
		return s
	}
	if m.series == nil {
		m.series = make(map[string]*series)
	}
	s := &series{}
	if all := m.series[Calls]; all != nil && name != Money {
		s.days = all.days
	}
	m.series[name] = s
	return s
}

// advance closes the ticks before the one that at is in.
func (m *Machine) advance(at time.Time) {
	now := at.Unix() / int64(tick/time.Second)
	switch {
	case m.first == 0 || now-m.now > longestGap:
		*m = Machine{now: now, first: now, alarms: m.alarms}
		return
	case now <= m.now:
		return
	}
	m.close()
	// What is left of the gap is empty.
	for m.now < now {
		empty := min(now, (m.now/ticksAnHour+1)*ticksAnHour) - m.now
		for _, s := range m.series {
			s.empty(m.now, float64(empty))
		}
		m.move(empty)
	}
}

// close ends the tick that is being counted.
func (m *Machine) close() {
	total := 0.0
	all := m.series[Calls]
	if all != nil {
		total = all.value
	}
	for name, s := range m.series {
		mean, known := s.meanAt(m.now)
		if name != Calls && name != Money {
			// The share of the tool among the calls that came.
			usual, _ := all.meanAt(m.now)
			mean = total * mean / max(usual, leastMean)
		}
		if known {
			m.test(name, s, mean)
		}
		s.sum += s.value
		s.squares += s.value * s.value
		s.count += s.events
		s.value, s.events = 0, 0
	}
	m.move(1)
}

// meanAt returns the mean of a tick, between those of the hours, and whether it is
// known.
func (s *series) meanAt(number int64) (mean float64, known bool) {
	// Hours' means are those of their middles.
	from := number - ticksAnHour/2
	before, after := hourOf(from), hourOf(from+ticksAnHour)
	part := float64(from%ticksAnHour) / float64(ticksAnHour)
	return s.mean[before]*(1-part) + s.mean[after]*part, s.days[before] >= learnDays && s.days[after] >= learnDays
}

// test adds a tick to the cumulative sum of a series.
func (m *Machine) test(name string, s *series, mean float64) {
	unit := max(s.unit, 1)
	mean = max(mean, leastMean*unit)
	if s.score == 0 {
		s.since, s.seen, s.expected = m.now, 0, 0
	}
	s.seen += s.value
	s.expected += mean
	s.score = max(0, s.score+min(mostOfTick, (s.value*math.Log(step)-(step-1)*mean)/max(s.phi, unit)))
	if s.score < threshold {
		return
	}
	if m.now >= s.quiet {
		minutes := float64(m.now+1-s.since) * tick.Minutes()
		m.alarms = append(m.alarms, Alarm{
			Series: name, Time: timeOf(m.now + 1), Since: timeOf(s.since), Expected: s.expected / minutes, Seen: s.seen / minutes,
		})
		s.quiet = m.now + quietFor
	}
	s.score = 0
}

// empty counts ticks in which there was nothing, all of one hour.
func (s *series) empty(from int64, ticks float64) {
	unit := max(s.unit, 1)
	mean, _ := s.meanAt(from)
	mean = max(mean, leastMean*unit)
	s.score = max(0, s.score-ticks*(step-1)*mean/max(s.phi, unit))
}

// move goes on by ticks of one hour, and learns at its end.
func (m *Machine) move(ticks int64) {
	hour := hourOf(m.now)
	m.seen += ticks
	m.now += ticks
	if hourOf(m.now) == hour {
		return
	}
	for _, s := range m.series {
		if m.seen >= fewestTicks {
			s.learn(hour, float64(m.seen))
		}
		s.sum, s.squares, s.count = 0, 0, 0
	}
	m.seen = 0
}

// fewestEvents is of how many events in an hour the spread of a tick is learned.
const fewestEvents = 30

// learn takes an hour into the means.
func (s *series) learn(hour int, ticks float64) {
	s.days[hour] = min(s.days[hour]+1, learnDays)
	mean := s.sum / ticks
	s.mean[hour] += (mean - s.mean[hour]) / float64(s.days[hour])
	if s.count < fewestEvents {
		return
	}
	unit, phi := s.sum/s.count, s.squares/s.sum-mean
	if s.phi == 0 {
		s.phi, s.unit = phi, unit
		return
	}
	// An hour with a step in it spreads far more than the hours do.
	s.phi += (min(phi, 4*s.phi) - s.phi) / 24
	s.unit += (unit - s.unit) / 24
}

func hourOf(number int64) int { return int(number / ticksAnHour % 24) }

func timeOf(number int64) time.Time { return time.Unix(number*int64(tick/time.Second), 0).UTC() }
