package policy_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

// FuzzParse looks for files that panic, take long, or load as something that Evaluate could not be safe with.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		policy.Starter(), "", "{}", "caps: {per_day: 5}", "max_ttl: 8h\nmax_leases: none", "principals: {ci: {caps: {per_day: 1.29}}}",
		"types:\n  deny:\n    - gpu_*\n", "a: &a [*a]", "<<: {max_ttl: 1h}", "---\n---\na: 1", "max_ttl: |\n  8h", "? a\n: b",
		"caps: {per_day: -1}", "caps:\n\tper_day: 1", "\ufeffmax_leases: 1\r\n", "approve_above: 0 # always\n", "a: [[[[[",
		"caps:\n  per_day: 1\n # x\n  per_week: 2\nmax_gpus: 3", "max_ttl: 1h30m\ndefault_ttl: 10m\n", "time_zone: Asia/Tokyo",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		p, err := policy.Parse("/p.yaml", data)
		require.Less(t, time.Since(start), time.Minute)
		if err != nil {
			var fe *policy.FileError
			require.True(t, errors.As(err, &fe), "%T", err)
			require.NotEmpty(t, fe.Msg)
			require.Equal(t, fe.Line > 0, fe.Column > 0)
			return
		}
		again, err := policy.Parse("/p.yaml", data)
		require.NoError(t, err)
		require.Equal(t, p.Hash(), again.Hash())

		all := []policy.Limits{p.Limits}
		for _, l := range p.Principals {
			all = append(all, l)
		}
		for _, l := range all {
			c := l.Caps
			require.GreaterOrEqual(t, min(l.MaxPricePerHour, c.PerLease, c.BurnPerHour, c.PerDay, c.PerWeek, c.PerMonth, c.Lifetime), policy.Money(0))
			require.GreaterOrEqual(t, min(l.DefaultTTL, l.MaxTTL, l.IdleTimeout), time.Duration(0))
			require.GreaterOrEqual(t, min(l.MaxLeases, l.MaxGPUs, l.MaxLaunchesPerHour), 0)
			require.GreaterOrEqual(t, l.ApproveAbove, policy.AlwaysAsk)
		}
		require.Positive(t, p.MaxTTL)
		require.NotNil(t, p.TimeZone)

		d := policy.Evaluate(p, small(), policy.Usage{}, nil)
		require.NotEmpty(t, d.Explain())
		if d.Verdict == policy.Allow && p.Caps.PerLease > 0 {
			require.LessOrEqual(t, d.WorstCase, p.Caps.PerLease)
		}
	})
}

// A hostile file within the size limit must not hold up a decision.
func TestParseIsBounded(t *testing.T) {
	repeat := func(s string, most int) string {
		b := make([]byte, 0, most)
		for len(b)+len(s) <= most {
			b = append(b, s...)
		}
		return string(b)
	}
	const full = 1 << 20
	keys := make([]byte, 0, full)
	for i := range 9_999 {
		keys = append(keys, []byte("k"+time.Duration(i).String()+": 1\n")...)
	}
	for name, file := range map[string]string{
		"keys":      string(keys),
		"dashes":    repeat(repeat("- ", 1000)+"\n", full),
		"brackets":  repeat("[", full),
		"flow":      "types: {deny: [" + repeat(repeat("a,", 1000)+"\n", full-100) + "]}",
		"comments":  repeat("# x\n", full),
		"questions": repeat(repeat("? ", 1000)+"\n", full),
		"anchors":   repeat(repeat("&a ", 1000)+"\n", full),
		"bomb":      "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]\n",
		"quoted":    "time_zone: \"" + repeat("x\n", full-100) + "\"",
		"words":     repeat("abc def\n", full),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := policy.Parse("/p.yaml", []byte(file))
			t.Log(time.Since(start), err)
			require.Less(t, time.Since(start), time.Minute)
			require.Error(t, err)
		})
	}
}
