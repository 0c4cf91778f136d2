package remote

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseLoads(t *testing.T) {
	t.Parallel()
	full := Load{Index: 0, UtilPercent: 37, MemoryUsedMiB: 1024, MemoryMiB: 23028, PowerWatts: 61, TemperatureC: 44}
	for name, tt := range map[string]struct {
		text  string
		want  []Load
		whole bool
	}{
		"One":      {"0, 37, 1024, 23028, 60.51, 44\n", []Load{full}, true},
		"NoEnd":    {"0, 37, 1024, 23028, 60.51, 44", []Load{full}, true},
		"Idle":     {"0, 0, 0, 23028, 0.00, 0", []Load{{MemoryMiB: 23028}}, true},
		"Empty":    {"", nil, false},
		"Blank":    {"\n \n", nil, false},
		"NoNumber": {"0, 37, [N/A], [N/A], [N/A], [N/A]", []Load{{0, 37, Unknown, Unknown, Unknown, Unknown}}, true},
		"MIG":      {"0, [N/A], 1, 2, 3, 4", []Load{{0, Unknown, 1, 2, 3, 4}}, false},
		"Words": {
			"0, [Not Supported], [Unknown Error], N/A, [GPU requires reset], -",
			[]Load{{0, Unknown, Unknown, Unknown, Unknown, Unknown}}, false,
		},
		"TwoOneLost":   {"0, 37, 1024, 23028, 60.51, 44\nUnable to determine the device handle\n", []Load{full}, false},
		"LogLine":      {"warning: x\n0, 37, 1024, 23028, 60.51, 44\n", []Load{full}, false},
		"Short":        {"0, 37, 1024, 23028, 60.51\n", nil, false},
		"Long":         {"0, 37, 1024, 23028, 60.51, 44, 1\n", nil, false},
		"BadIndex":     {"x, 37, 1024, 23028, 60.51, 44\n", nil, false},
		"OverHundred":  {"0, 101, 1, 2, 3, 4", []Load{{0, Unknown, 1, 2, 3, 4}}, false},
		"Negative":     {"0, -1, -2, 2, 3, 4", []Load{{0, Unknown, Unknown, 2, 3, 4}}, false},
		"NotANumber":   {"0, NaN, Inf, -Inf, 1e99, 4", []Load{{0, Unknown, Unknown, Unknown, Unknown, 4}}, false},
		"QuotedOddity": {"0, \"37, 1, 2, 3, 4", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loads, whole := parseLoads(tt.text)
			require.Equal(t, tt.want, loads)
			require.Equal(t, tt.whole, whole)
		})
	}
}

func TestParseActivity(t *testing.T) {
	t.Parallel()
	const gpu = "0, 37, 1024, 23028, 60.51, 44\n\x1e0"
	lines := func(changed ...string) reply {
		fields := map[string]string{
			"now": "1000.500000000", "running": "2", "ended": "990.250000000", "logins": "1",
			"cpu": "1000 900 1100 950", "memory": "4096000 1024000", "disk": "42 2048000",
		}
		for i := 0; i < len(changed); i += 2 {
			fields[changed[i]] = changed[i+1]
		}
		r := reply{data: []byte(gpu)}
		for k, v := range fields {
			r.fields = append(r.fields, field{k, v})
		}
		return r
	}
	whole := Activity{
		RunningJobs: 2, SinceJobEnd: 10250 * time.Millisecond, Logins: 1, GPUKnown: true, GPUs: []Load{{0, 37, 1024, 23028, 61, 44}},
		CPUPercent: 50, MemoryUsedMiB: 3000, MemoryMiB: 4000, DiskUsedPercent: 42, DiskFreeMiB: 2000,
	}
	for name, tt := range map[string]struct {
		changed []string
		want    func(*Activity)
	}{
		"Whole":         {nil, func(*Activity) {}},
		"NoEnd":         {[]string{"ended", ""}, func(a *Activity) { a.SinceJobEnd = -1 }},
		"ClockSetBack":  {[]string{"ended", "2000.5"}, func(a *Activity) { a.SinceJobEnd = 0 }},
		"NoFractions":   {[]string{"ended", "990.%N", "now", "1000.N"}, func(a *Activity) { a.SinceJobEnd = 10 * time.Second }},
		"NoWho":         {[]string{"logins", ""}, func(a *Activity) { a.Logins = 0 }},
		"NoProc":        {[]string{"cpu", " ", "memory", ""}, func(a *Activity) { a.CPUPercent, a.MemoryMiB, a.MemoryUsedMiB = -1, -1, -1 }},
		"ClockOfCPU":    {[]string{"cpu", "1000 900 1000 900"}, func(a *Activity) { a.CPUPercent = -1 }},
		"CPUBackwards":  {[]string{"cpu", "1000 900 1100 800"}, func(a *Activity) { a.CPUPercent = -1 }},
		"IdleCPU":       {[]string{"cpu", "1000 900 1100 1000"}, func(a *Activity) { a.CPUPercent = 0 }},
		"MoreAvailable": {[]string{"memory", "1 2"}, func(a *Activity) { a.MemoryMiB, a.MemoryUsedMiB = -1, -1 }},
		"NoDisk":        {[]string{"disk", ""}, func(a *Activity) { a.DiskUsedPercent, a.DiskFreeMiB = -1, -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := whole
			tt.want(&want)
			got, err := parseActivity(lines(tt.changed...))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	for name, changed := range map[string][]string{
		"NoCount": {"running", ""},
		"BadEnd":  {"ended", "x"},
		"NoClock": {"now", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseActivity(lines(changed...))
			require.ErrorIs(t, err, ErrMachine)
		})
	}
}

// Whatever the machine says, a figure is in its range or unknown, and GPUs are known only with all their figures.
func FuzzActivity(f *testing.F) {
	f.Add("running 1\nended 9.5\nnow 10.5\nlogins 1\ncpu 1 2 3 4\nmemory 5 6\ndisk 7 8\n\n0, 1, 2, 3, 4, 5\n\x1e0")
	f.Add("running 0\n\n0, [N/A], 2, 3, 4.5, 5\n1, 100, 2, 3, 4, 5\n\x1e15")
	f.Add("running 0\n\n\x1e127")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseReply([]byte(replyMark + text))
		if !ok {
			return
		}
		a, err := parseActivity(r)
		if err != nil {
			require.ErrorIs(t, err, ErrMachine)
			return
		}
		require.True(t, a.RunningJobs >= 0 && a.Logins >= 0 && a.SinceJobEnd >= -1)
		require.True(t, a.CPUPercent >= Unknown && a.CPUPercent <= 100)
		require.True(t, a.DiskUsedPercent >= Unknown && a.DiskUsedPercent <= 100 && a.DiskFreeMiB >= Unknown)
		require.True(t, a.MemoryUsedMiB >= Unknown && a.MemoryUsedMiB <= a.MemoryMiB)
		for _, l := range a.GPUs {
			require.True(t, l.Index >= 0 && l.UtilPercent >= Unknown && l.UtilPercent <= 100)
			require.True(t, l.MemoryUsedMiB >= Unknown && l.MemoryMiB >= Unknown && l.PowerWatts >= Unknown && l.TemperatureC >= Unknown)
			require.False(t, a.GPUKnown && l.UtilPercent == Unknown)
		}
		require.False(t, a.GPUKnown && len(a.GPUs) == 0)
	})
}
