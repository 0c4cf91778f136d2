package policy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/policy"
)

func zone(t require.TestingT, name string) *policy.Policy {
	p := policy.Default()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	p.TimeZone = loc
	return p
}

func TestPeriodStarts(t *testing.T) {
	for _, c := range []struct {
		name, zone, now, day, week, month string
	}{
		{"a Tuesday", "UTC", "2026-11-24T13:00:00Z", "2026-11-24T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-01T00:00:00Z"},
		{"a Monday is in its own week", "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-01T00:00:00Z"},
		{"a Sunday is in the week before", "UTC", "2026-11-22T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-16T00:00:00Z", "2026-11-01T00:00:00Z"},
		{"a week over the turn of the year", "UTC", "2027-01-01T05:00:00Z", "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"already tomorrow in Tokyo", "Asia/Tokyo", "2026-10-31T15:00:00Z", "2026-10-31T15:00:00Z", "2026-10-25T15:00:00Z", "2026-10-31T15:00:00Z"},
		{"still yesterday in New York", "America/New_York", "2026-11-01T03:00:00Z", "2026-10-31T04:00:00Z", "2026-10-26T04:00:00Z", "2026-10-01T04:00:00Z"},
		{"a week with a change of the clocks", "America/New_York", "2026-11-05T12:00:00Z", "2026-11-05T05:00:00Z", "2026-11-02T05:00:00Z", "2026-11-01T04:00:00Z"},
		{"no midnight: the clocks went from 0 to 1", "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-19T22:00:00Z", "2026-03-31T22:00:00Z"},
		{"two midnights: the clocks went from 1 to 0", "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-10-26T04:00:00Z", "2026-11-01T04:00:00Z"},
		{"the second of two evenings", "Asia/Beirut", "2026-10-24T21:30:00Z", "2026-10-23T21:00:00Z", "2026-10-18T21:00:00Z", "2026-09-30T21:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, c.now)
			require.NoError(t, err)
			day, week, month := zone(t, c.zone).PeriodStarts(now)
			utc := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
			require.Equal(t, []string{c.day, c.week, c.month}, []string{utc(day), utc(week), utc(month)})
		})
	}
	day, _, _ := (&policy.Policy{}).PeriodStarts(time.Date(2026, 11, 24, 1, 0, 0, 0, time.FixedZone("", 2*3600)))
	require.Equal(t, "2026-11-23T00:00:00Z", day.Format(time.RFC3339), "without a zone it is UTC")
}

func TestPeriodStartsAreFirstInstants(t *testing.T) {
	zones := []string{"UTC", "Africa/Cairo", "America/Havana", "Asia/Beirut", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu",
		"Pacific/Apia", "America/St_Johns", "Africa/Casablanca", "Asia/Gaza", "Europe/Berlin", "Pacific/Kiritimati", "America/Asuncion"}
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	rapid.Check(t, func(t *rapid.T) {
		p := zone(t, rapid.SampledFrom(zones).Draw(t, "zone"))
		now := time.Unix(rapid.Int64Range(from, to).Draw(t, "now"), 0).In(p.TimeZone)
		day, week, month := p.PeriodStarts(now)

		date := func(t time.Time) string { return t.In(p.TimeZone).Format(time.DateOnly) }
		require.Equal(t, date(now), date(day))
		require.Equal(t, now.Format("2006-01"), month.Format("2006-01"))
		require.Equal(t, 1, month.Day())
		require.Equal(t, time.Monday, week.Weekday())
		for _, start := range []time.Time{day, week, month} {
			require.False(t, start.After(now))
			require.NotEqual(t, date(start), date(start.Add(-time.Second)), "not the first second of its date")
		}
		require.Less(t, now.Sub(day), 26*time.Hour)
		require.Less(t, now.Sub(week), 7*24*time.Hour+2*time.Hour)
		require.False(t, day.Before(week))
		require.False(t, day.Before(month))
	})
}
