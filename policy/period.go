package policy

import (
	"time"
	_ "time/tzdata" // zones must be there on Windows and in images that have no zoneinfo
)

// PeriodStarts is when the day, the week and the month that hold now began, in the policy's time zone. A week starts on Monday.
// A day starts at the first instant of its date, also where a change of the clocks skips or repeats midnight.
func (p *Policy) PeriodStarts(now time.Time) (day, week, month time.Time) {
	loc := p.zone()
	now = now.In(loc)
	y, m, d := now.Date()
	sinceMonday := (int(now.Weekday()) + 6) % 7
	return startOfDate(y, m, d, loc), startOfDate(y, m, d-sinceMonday, loc), startOfDate(y, m, 1, loc)
}

// startOfDate is the first instant that shows the date. time.Date alone leaves it open which of two midnights is meant, and
// for one that does not exist it may answer with the evening before.
func startOfDate(y int, m time.Month, d int, loc *time.Location) time.Time {
	utc := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	y, m, d = utc.Date() // d may have been outside the month
	var first time.Time
	for _, near := range []time.Duration{-36 * time.Hour, 36 * time.Hour} {
		_, offset := utc.Add(near).In(loc).Zone()
		t := utc.Add(-time.Duration(offset) * time.Second).In(loc)
		if ty, tm, td := t.Date(); ty != y || tm != m || td != d {
			continue
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	if first.IsZero() {
		return time.Date(y, m, d, 0, 0, 0, 0, loc)
	}
	return first
}
