// SPDX-License-Identifier: Apache-2.0

package budgets

import (
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// rollingParts is how many parts a rolling window is kept in
// (Budget.rolling in bundle.proto).
const rollingParts = 60

// Window is when a budget is refilled. The zero value never is. Windows can be
// compared.
type Window struct {
	length  time.Duration
	unit    writv1.CalendarUnit
	offset  time.Duration
	rolling bool
}

// WindowOf returns a budget's window.
func WindowOf(b *writv1.Budget) Window {
	switch {
	case b.GetCalendar() != nil:
		return Window{unit: b.GetCalendar().GetUnit(), offset: b.GetCalendar().GetUtcOffset().AsDuration().Truncate(time.Minute)}
	case b.GetRolling() != nil:
		return Window{length: b.GetRolling().AsDuration(), rolling: true}
	case b.GetEndless():
		return Window{}
	default:
		return Every(b.GetWindow().AsDuration())
	}
}

// Every returns the window whose starts are the multiples of length since the Unix
// epoch.
func Every(length time.Duration) Window { return Window{length: max(0, length)} }

// Endless says that the window never ends.
func (w Window) Endless() bool { return w.length == 0 && w.unit == 0 }

// Rolling returns the length of a window that rolls, and zero for any other.
func (w Window) Rolling() time.Duration {
	if w.rolling {
		return w.length
	}
	return 0
}

// step is the length of a part of a rolling window.
func step(rolling time.Duration) time.Duration { return (rolling + rollingParts - 1) / rollingParts }

// Start returns the start of the window that holds now; of one that rolls, the start
// of the part that does; of one that never ends, the Unix epoch.
func (w Window) Start(now time.Time) time.Time {
	switch {
	case w.rolling:
		return multiple(now, step(w.length))
	case w.unit != 0:
		return w.calendarStart(now)
	case w.length > 0:
		return multiple(now, w.length)
	default:
		return time.Unix(0, 0).UTC()
	}
}

// End returns the end of the window that starts at start. It is not for windows that
// roll or never end.
func (w Window) End(start time.Time) time.Time {
	switch w.unit {
	case writv1.CalendarUnit_CALENDAR_UNIT_UNSPECIFIED:
		return start.Add(w.length)
	case writv1.CalendarUnit_CALENDAR_UNIT_WEEK:
		return start.Add(7 * 24 * time.Hour)
	case writv1.CalendarUnit_CALENDAR_UNIT_MONTH:
		return start.Add(w.offset).AddDate(0, 1, 0).Add(-w.offset)
	default:
		return start.Add(24 * time.Hour)
	}
}

// multiple returns the last multiple of length since the Unix epoch.
func multiple(now time.Time, length time.Duration) time.Time {
	past := now.UnixNano() % int64(length)
	if past < 0 {
		past += int64(length)
	}
	return time.Unix(0, now.UnixNano()-past).UTC()
}

// calendarStart counts in the local time that the offset makes of UTC.
func (w Window) calendarStart(now time.Time) time.Time {
	local := now.UTC().Add(w.offset)
	year, month, day := local.Date()
	switch w.unit {
	case writv1.CalendarUnit_CALENDAR_UNIT_MONTH:
		day = 1
	case writv1.CalendarUnit_CALENDAR_UNIT_WEEK:
		// Weeks begin on Monday (ISO 8601).
		day -= (int(local.Weekday()) + 6) % 7
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(-w.offset)
}
