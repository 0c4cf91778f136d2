package policy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func TestRulesThatAreSetOutsideOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte("caps: {per_day: 40}\nmax_ttl: 4h\n"), 0o600))
	s := policy.Source{Path: path, Sets: []policy.Set{{Rule: "caps.per_day", Value: "5", Source: "env GPULEASE_POLICY_SET"}, {Rule: "types.deny", Value: "gpu_8x_*, *b200*", Source: "flag --policy-set"}}}
	p, err := s.Current()
	require.NoError(t, err)
	require.Equal(t, 5*policy.Dollar, p.Caps.PerDay)
	require.Equal(t, []string{"gpu_8x_*", "*b200*"}, p.Types.Deny)
	d := policy.Evaluate(p, policy.Request{Type: "gpu_1x_a10", Region: "r", PricePerHour: policy.Dollar, TTL: p.MaxTTL * 2}, policy.Usage{}, nil)
	sources := map[string]string{}
	for _, v := range d.Violations {
		sources[v.Rule] = v.Source
	}
	require.Equal(t, map[string]string{"caps.per_day": "env GPULEASE_POLICY_SET", "max_ttl": path + ":2"}, sources, "each says where it is set")

	// A change of the file still takes effect, and what was set still holds.
	require.NoError(t, os.WriteFile(path, []byte("caps: {per_day: 30}\nmax_ttl: 2h\n"), 0o600))
	q, err := s.Current()
	require.NoError(t, err)
	require.Equal(t, 5*policy.Dollar, q.Caps.PerDay)
	require.NotEqual(t, p.Hash(), q.Hash())

	for _, bad := range []policy.Set{{Rule: "caps.per_dya", Value: "5"}, {Rule: "caps.per_day", Value: "-5"}, {Rule: "max_ttl", Value: "8"}} {
		bad.Source = "env X"
		s.Sets = []policy.Set{bad}
		_, err := s.Current()
		require.ErrorContains(t, err, "env X: "+bad.Rule, "never the defaults")
	}
}
