package policy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func TestParseErrorsSayWhere(t *testing.T) {
	for _, c := range []struct {
		name, file string
		line, col  int
		says       string
	}{
		{"unknown key", "max_ttl: 8h\nmax_tll: 8h\n", 2, 1, `unknown key "max_tll": the keys here are types, regions`},
		{"unknown key in a section", "caps:\n  per_day: 5\n  per_dya: 5\n", 3, 3, `unknown key "caps.per_dya": the keys here are per_lease`},
		{"unknown key of a principal", "principals:\n  ci:\n    time_zone: UTC\n", 3, 5, `unknown key "principals.ci.time_zone"`},
		{"a dotted key", "caps.per_day: 5\n", 1, 1, `unknown key "caps.per_day"`},
		{"key in capitals", "Max_ttl: 5h\n", 1, 1, `unknown key "Max_ttl"`},
		{"key set twice", "max_leases: 1\ndefault_ttl: 1h\nmax_leases: 99\n", 3, 1, `"max_leases" is set twice, first in line 1`},
		{"key set twice in a section", "caps: {per_day: 1, per_day: 900}\n", 1, 20, `"per_day" is set twice`},
		{"key set twice in quotes", "max_leases: 1\n\"max_leases\": 99\n", 2, 1, `set twice`},
		{"principal set twice", "principals:\n  ci: {max_leases: 1}\n  ci: {max_leases: 9}\n", 3, 3, `"ci" is set twice`},
		{"negative cap", "caps:\n  per_day: -5\n", 2, 12, "caps.per_day: -$5.00 is negative"},
		{"negative price", "max_price_per_hour: -0.01\n", 1, 21, "max_price_per_hour: -$0.01 is negative"},
		{"negative approval", "approve_above: -1\n", 1, 16, "approve_above: -$1.00 is negative"},
		{"cap of nothing", "caps:\n  per_day: 0\n", 2, 12, "write none for no limit"},
		{"cap in words", "caps:\n  per_month: lots\n", 2, 14, `"lots" is not an amount in dollars`},
		{"cap with an exponent", "caps: {per_day: 5e1}\n", 1, 17, `"5e1" is not an amount`},
		{"cap with underscores", "caps: {per_day: 1_0}\n", 1, 17, `"1_0" is not an amount`},
		{"cap in octal", "caps: {per_day: 0100}\n", 1, 17, `"0100" starts with a zero`},
		{"cap in hexadecimal", "caps: {per_day: 0x10}\n", 1, 17, `"0x10" is not an amount`},
		{"cap without end", "caps: {per_day: .inf}\n", 1, 17, `".inf" is not an amount`},
		{"cap too fine", "caps: {per_day: 1.0000001}\n", 1, 17, "more than 6 decimals"},
		{"cap too large", "caps: {per_day: 99999999999999999999}\n", 1, 17, "too large an amount"},
		{"cap without a value", "max_leases: 1\ncaps:\n  per_day:\n", 3, 3, "caps.per_day: want one value, not nothing"},
		{"cap that is a list", "caps:\n  per_day: [5]\n", 2, 12, "caps.per_day: want one value, not a list"},
		{"cap that is a mapping", "caps:\n  per_day:\n    usd: 5\n", 2, 3, "caps.per_day: want one value, not a mapping"},
		{"section without a value", "caps:\n", 1, 1, "caps: want a mapping of keys to values, not nothing"},
		{"section that is a value", "caps: 5\n", 1, 7, "caps: want a mapping of keys to values, not a single value"},
		{"time without a unit", "max_ttl: 8\n", 1, 10, `"8" has no unit: want hours and minutes such as 8h`},
		{"time in an unknown unit", "max_ttl: 2d\n", 1, 10, `"2d" is not a length of time`},
		{"time in seconds", "max_ttl: 90s\n", 1, 10, "whole minutes"},
		{"time with a point", "max_ttl: 1.5h\n", 1, 10, "whole minutes"},
		{"negative time", "idle_timeout: -5m\n", 1, 15, `"-5m" is not a length of time`},
		{"no time", "idle_timeout: 0m\n", 1, 15, "not above 0"},
		{"time over a year", "max_ttl: 8761h\n", 1, 10, "longer than a year"},
		{"time beyond numbers", "max_ttl: 99999999999999999999h\n", 1, 10, "longer than a year"},
		{"no maximum", "max_ttl: none\n", 1, 10, "every lease has a deadline"},
		{"default above the maximum", "max_ttl: 1h\nidle_timeout: 5m\ndefault_ttl: 2h\n", 3, 1, "default_ttl: 2h is longer than max_ttl, 1h"},
		{"default above a principal's maximum", "principals:\n  ci:\n    default_ttl: 2h\n    max_ttl: 1h\n", 3, 5, "principals.ci.default_ttl: 2h is longer"},
		{"count of nothing", "max_leases: 0\n", 1, 13, "write none for no limit"},
		{"negative count", "max_gpus: -1\n", 1, 11, "-1 is negative"},
		{"count with a point", "max_gpus: 1.5\n", 1, 11, `"1.5" is not a whole number`},
		{"count in words", "max_leases: two\n", 1, 13, `"two" is not a whole number`},
		{"count too large", "max_leases: 99999999999\n", 1, 13, "is not a whole number"},
		{"list that is a value", "types:\n  deny: gpu_8x_*\n", 2, 9, "types.deny: want a list such as [gpu_1x_*], not a single value"},
		{"list without a value", "types:\n  deny:\n", 2, 3, "types.deny: want a list such as [gpu_1x_*], not nothing"},
		{"list of lists", "types: {deny: [[a]]}\n", 1, 16, "types.deny: want patterns, not a list"},
		{"list of lists with dashes", "types:\n  deny:\n    - - a\n", 3, 5, "a list within a list"},
		{"too many patterns", "types: {deny: [a" + strings.Repeat(",\n  a", 1000) + "]}\n", 1, 15, "types.deny: more than 1000 patterns"},
		{"too many principals", "principals:\n" + manyPrincipals(1001), 1, 1, "more than 1000 principals"},
		{"empty list of allowed", "types: {allow: []}\n", 1, 16, "an empty list would allow nothing"},
		{"empty pattern", "types:\n  deny:\n    - gpu_8x_*\n    - \"\"\n", 4, 7, "a pattern is empty"},
		{"pattern of another kind", "types:\n  allow: [gpu_1x_*, 'gpu_(8|2)x']\n", 2, 21, `'(' cannot be in a name`},
		{"unknown time zone", "time_zone: Mars/Base\n", 1, 12, `"Mars/Base" is not a known time zone`},
		{"the machine's time zone", "time_zone: Local\n", 1, 12, "the same on every machine"},
		{"a path as a time zone", "time_zone: ../../etc/passwd\n", 1, 12, "is not a known time zone"},
		{"a guard of another kind", "require_guard: yes\n", 1, 16, `"yes" is neither true nor false`},
		{"principals that are a list", "principals: [ci]\n", 1, 13, "principals: want a mapping"},
		{"a principal without limits", "principals:\n  ci:\n", 2, 3, "principals.ci: want a mapping of keys to values, not nothing"},
		{"a principal with a space", "principals:\n  a b: {max_leases: 1}\n", 2, 3, `' ' cannot be in the name`},
		{"a principal without a name", "principals:\n  '': {max_leases: 1}\n", 2, 3, "1 to 128 characters"},
		{"an anchor", "caps: &a {per_day: 1}\n", 1, 7, "an anchor, an alias or a merge key"},
		{"an alias", "caps: {per_day: *a}\n", 1, 17, "an anchor, an alias or a merge key"},
		{"a merge key", "caps:\n  <<: {per_day: 1}\n", 2, 3, "an anchor, an alias or a merge key"},
		{"a tag", "max_ttl: !!str 8h\n", 1, 10, "not a tag"},
		{"a block of text", "max_ttl: |\n  8h\n", 1, 10, "a block of text"},
		{"a value over two lines", "max_ttl: 8h\ntime_zone: \"U\n  TC\"\n", 2, 12, `is not a known time zone`},
		{"a value that goes on", "types:\n  deny:\n    - gpu_8x\n      gpu_4x\n", 3, 7, "cannot be in a name"},
		{"a quoted value that goes on", "max_leases: 1\ntime_zone: \"Europe/\\\n  Berlin\" # here\n", 3, 3, "this line was not understood"},
		{"too long a pattern", "types: {deny: [" + strings.Repeat("a", 201) + "]}\n", 1, 16, "is too long"},
		{"a key that is a list", "[max_ttl]: 8h\n", 1, 10, "not YAML: found an invalid key"},
		{"a complex key", "? max_ttl\n: 8h\n", 1, 1, "a key is something else"},
		{"not a mapping", "- max_ttl\n", 1, 1, "policy: want a mapping of keys to values, not a list"},
		{"a single word", "none\n", 1, 1, "policy: want a mapping"},
		{"a tab for indentation", "caps:\n\tper_day: 5\n", 2, 1, "not YAML: found character '\t' that cannot start any token"},
		{"an open bracket", "types: {deny: [a, b}\n", 1, 20, "not YAML"},
		{"an open quote", "max_ttl: '8h\n", 1, 10, "not YAML"},
		{"text after a value", "max_ttl: 8h\n  max_leases: 1\n", 1, 10, "not YAML"},
		{"a second document", "max_ttl: 8h\n---\nmax_leases: 5\n", 2, 1, "one YAML document"},
		{"an end of document", "max_ttl: 8h\n...\nmax_leases: 5\n", 2, 1, "one YAML document"},
		{"a directive", "%YAML 1.2\n---\nmax_ttl: 8h\n", 1, 1, "without directives"},
		{"not UTF-8", "max_ttl: 8h\n# caf\xe9\n", 2, 1, "not UTF-8"},
		{"a control character", "max_ttl: 8h\nmax_\x00leases: 1\n", 2, 5, "U+0000 is not allowed"},
		{"a character that turns the text", "max_ttl: 8h # \u202e\n", 1, 15, "U+202E is not allowed"},
		{"a lone carriage return", "max_ttl: 8h\rmax_leases: 1\n", 1, 12, "U+000D is not allowed"},
		{"a long line", "max_ttl: 8h #" + strings.Repeat("x", 2000) + "\n", 1, 1025, "longer than 1024 bytes"},
		{"deep brackets", "types: " + strings.Repeat("[", 33) + "\n", 1, 1, "more than 32 brackets"},
		{"deep brackets over lines", "types: " + strings.Repeat("[\n ", 40) + "\n", 33, 1, "more than 32 brackets"},
		{"deep indentation", "types:\n" + strings.Repeat(" ", 65) + "a: 1\n", 2, 66, "indented by more than 64"},
		{"many lines", strings.Repeat("a: 1\n", 10_001), 10_001, 1, "more than 10000 lines"},
		{"empty", "", 0, 0, "the file sets nothing"},
		{"only comments", "# nothing\n\n  # here\n", 0, 0, "the file sets nothing"},
		{"only a separator", "---\n", 0, 0, "no single YAML mapping"},
		{"large", strings.Repeat("#\n", 1<<19+1), 0, 0, "larger than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.Parse("/etc/policy.yaml", []byte(c.file))
			require.Nil(t, p)
			var fe *policy.FileError
			require.ErrorAs(t, err, &fe)
			require.Contains(t, fe.Msg, c.says)
			require.Equal(t, fmt.Sprintf("%d:%d", c.line, c.col), fmt.Sprintf("%d:%d", fe.Line, fe.Column), fe.Msg)
			require.Equal(t, "/etc/policy.yaml", fe.Path)
			if c.line > 0 {
				require.Equal(t, fmt.Sprintf("/etc/policy.yaml:%d:%d: %s", c.line, c.col, fe.Msg), err.Error())
			} else {
				require.Equal(t, "/etc/policy.yaml: "+fe.Msg, err.Error())
			}
		})
	}
}

func manyPrincipals(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  p%d: {max_leases: 1}\n", i)
	}
	return b.String()
}

func TestParseReadsEveryKey(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte("\ufeff---\r\n"+`
types: {allow: [gpu_*, "cpu_*"], deny: ["*_b200*"]}
regions:
  allow:
  -
    us-*
  -
    # and
    europe-*
  deny: [us-east-?]
images: {allow: [default, lambda-stack-22-04], deny: [x]}
max_price_per_hour: $12.50
default_ttl: 45m
max_ttl: 1h30m
idle_timeout: none
max_leases: none
max_gpus: 16
max_launches_per_hour: 6
caps:
  per_lease: none
  burn_per_hour: 20.5
  per_day: "40"
  per_week: '$100.00'
  per_month: 200.000001
  lifetime: 1000
approve_above: 0
time_zone: Europe/Berlin
require_guard: false
principals:
  ci: {caps: {per_day: 5}, approve_above: 2, idle_timeout: none}
  team/agent.1: {}
`))
	require.NoError(t, err)
	zone, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	require.Equal(t, policy.Limits{
		Types:           policy.Patterns{Allow: []string{"gpu_*", "cpu_*"}, Deny: []string{"*_b200*"}},
		Regions:         policy.Patterns{Allow: []string{"us-*", "europe-*"}, Deny: []string{"us-east-?"}},
		Images:          policy.Patterns{Allow: []string{"default", "lambda-stack-22-04"}, Deny: []string{"x"}},
		MaxPricePerHour: policy.Cents(1250), DefaultTTL: 45 * time.Minute, MaxTTL: 90 * time.Minute,
		MaxGPUs: 16, MaxLaunchesPerHour: 6,
		Caps: policy.Caps{BurnPerHour: policy.Cents(2050), PerDay: 40 * policy.Dollar, PerWeek: 100 * policy.Dollar,
			PerMonth: 200_000_001, Lifetime: 1000 * policy.Dollar},
		ApproveAbove: policy.AlwaysAsk,
	}, p.Limits)
	require.Equal(t, zone.String(), p.TimeZone.String())
	require.False(t, p.RequireGuard)
	require.Equal(t, map[string]policy.Limits{
		"ci":           {Caps: policy.Caps{PerDay: 5 * policy.Dollar}, ApproveAbove: 2 * policy.Dollar},
		"team/agent.1": {},
	}, p.Principals)
	require.Equal(t, "/p.yaml", p.Path())
}

func TestLeftOutKeepsTheDefault(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte("caps: {per_day: 7}\n"))
	require.NoError(t, err)
	want := policy.Default()
	want.Caps.PerDay = 7 * policy.Dollar
	require.Equal(t, want.Hash(), p.Hash())
	require.Equal(t, want.Limits, p.Limits)

	empty, err := policy.Parse("/p.yaml", []byte("{}\n"))
	require.NoError(t, err)
	require.Equal(t, policy.Default().Hash(), empty.Hash())

	short, err := policy.Parse("/p.yaml", []byte("max_ttl: 30m\n"))
	require.NoError(t, err)
	require.Equal(t, 30*time.Minute, short.TTLFor("", 0), "the default that was left out is cut")
}

func TestStarterIsExactlyTheDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(policy.Starter()), 0o600))
	p, err := policy.Load(path)
	require.NoError(t, err)
	require.Equal(t, policy.Default().Hash(), p.Hash())
	require.Equal(t, policy.Default().Limits.Caps, p.Limits.Caps)

	var shown strings.Builder
	require.NoError(t, p.Show(&shown))
	for line := range strings.Lines(shown.String()) {
		if rule, rest, ok := strings.Cut(line, " "); ok && !strings.HasSuffix(rule, ":") {
			require.Contains(t, rest, path+":", "%s is left out of the starter file", rule)
		}
	}
}

func TestHash(t *testing.T) {
	base := policy.Default().Hash()
	require.Regexp(t, `^[0-9a-f]{64}$`, base)
	seen := map[string]string{base: "the defaults"}
	for _, file := range []string{
		"max_ttl: 7h", "caps: {per_day: 49}", "caps: {per_day: none}", "types: {deny: [a]}", "types: {deny: [b]}", "types: {allow: [a]}",
		"regions: {deny: [a]}", "time_zone: Europe/Berlin", "require_guard: false", "approve_above: 0", "approve_above: 1",
		"principals: {ci: {max_ttl: 7h}}", "principals: {cd: {max_ttl: 7h}}", "max_leases: none",
		"idle_mode: warn", "idle_mode: off", "approval_time: 2h", "count_untracked: false",
	} {
		p, err := policy.Parse("/p.yaml", []byte(file))
		require.NoError(t, err)
		other, twice := seen[p.Hash()]
		require.False(t, twice, "%s has the hash of %s", file, other)
		seen[p.Hash()] = file
	}
	same := func(a, b string) {
		pa, err := policy.Parse("/a.yaml", []byte(a))
		require.NoError(t, err)
		pb, err := policy.Parse("/b.yaml", []byte(b))
		require.NoError(t, err)
		require.Equal(t, pa.Hash(), pb.Hash(), "%s and %s", a, b)
	}
	same("max_leases: 1\nmax_gpus: 2", "# hi\nmax_gpus: 2\n\nmax_leases: 1\n")
	same("types: {deny: [a, b]}", "types: {deny: [b, a, b]}")
	same("max_ttl: 60m", "max_ttl: 1h")
	same("{}", "caps: {per_day: $50.00}")
}

func TestShow(t *testing.T) {
	p, err := policy.Parse("/etc/policy.yaml", []byte("max_ttl: 4h\nprincipals:\n  ci:\n    caps:\n      per_day: 5\n    idle_timeout: none\n"+
		"  cd: {approve_above: 0}\n  ce: {approve_above: $2.5}\n"))
	require.NoError(t, err)
	p, err = p.With("max_leases", "5", "env GPULEASE_MAX_LEASES")
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, p.Show(&b))
	require.Contains(t, b.String(), "policy: /etc/policy.yaml\nhash: "+p.Hash()+"\n")
	for _, want := range []string{
		`(?m)^max_ttl +4h +/etc/policy.yaml:1$`,
		`(?m)^max_leases +5 +env GPULEASE_MAX_LEASES$`,
		`(?m)^caps.per_day +\$50.00 +default$`,
		`(?m)^approve_above +none +default$`,
		`(?m)^principals.cd.approve_above +\$0.00 \(always\) +/etc/policy.yaml:7$`,
		`(?m)^principals.ce.approve_above +\$2.50 +/etc/policy.yaml:8$`,
		`(?m)^principals.ci.caps.per_day +\$5.00 +/etc/policy.yaml:5$`,
		`(?m)^principals.ci.idle_timeout +none +/etc/policy.yaml:6$`,
	} {
		require.Regexp(t, want, b.String())
	}
	require.NotContains(t, b.String(), "principals.ci.max_ttl")

	b.Reset()
	require.NoError(t, policy.Default().Show(&b))
	require.Contains(t, b.String(), "policy: no file, the defaults\n")
	require.Error(t, p.Show(brokenWriter{}))
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestWith(t *testing.T) {
	p := policy.Default()
	before := p.Hash()
	q := p
	var err error
	for _, c := range [][2]string{
		{"max_ttl", "2h"}, {"types.deny", "gpu_8x_*, *_b200"}, {"regions.deny", ""}, {"time_zone", "Asia/Tokyo"},
		{"require_guard", "false"}, {"principals.a.caps.caps.per_day", "3"}, {"principals.a.caps.max_ttl", "1h"},
	} {
		q, err = q.With(c[0], c[1], "flag")
		require.NoError(t, err, c[0])
	}
	require.Equal(t, before, p.Hash(), "the original is untouched")
	require.Equal(t, 2*time.Hour, q.MaxTTL)
	require.Equal(t, []string{"gpu_8x_*", "*_b200"}, q.Types.Deny)
	require.Equal(t, "Asia/Tokyo", q.TimeZone.String())
	require.False(t, q.RequireGuard)
	require.Equal(t, policy.Limits{MaxTTL: time.Hour, Caps: policy.Caps{PerDay: 3 * policy.Dollar}}, q.Principals["a.caps"])

	for _, c := range [][2]string{
		{"max_tll", "2h"}, {"principals", "x"}, {"principals.ci", "1"}, {"principals..max_ttl", "1h"}, {"principals.ci.nope", "1"},
		{"max_ttl", "2"}, {"types.allow", ""}, {"types.deny", "a,,b"}, {"caps", "1"}, {"caps.per_day", "0"}, {"time_zone", ""},
	} {
		_, err := p.With(c[0], c[1], "flag --x")
		require.ErrorContains(t, err, "flag --x: "+c[0]+": ", c[0])
	}
}

func TestCloneIsDeep(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte("types: {deny: [a]}\nprincipals: {ci: {types: {deny: [b]}}}"))
	require.NoError(t, err)
	before := p.Hash()
	c := p.Clone()
	c.Types.Deny[0] = "changed"
	c.Principals["ci"].Types.Deny[0] = "changed"
	c.Principals["cd"] = policy.Limits{}
	require.Equal(t, before, p.Hash())
	require.NotEqual(t, before, c.Hash())
}
