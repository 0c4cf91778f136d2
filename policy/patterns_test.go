package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func TestLeasesOfOthers(t *testing.T) {
	p, err := policy.Parse("p", []byte("leases_of: [shared]\nprincipals:\n  lead: {leases_of: [team-*, bob]}\n  boss: {leases_of: ['*']}\n  bob: {max_leases: 1}\n"))
	require.NoError(t, err)
	for _, tt := range []struct {
		who, whose string
		sees       bool
	}{
		{"lead", "team-ann", true}, {"lead", "bob", true}, {"lead", "boss", false}, {"lead", "shared", true}, {"lead", "team", false},
		{"boss", "lead", true}, {"bob", "lead", false}, {"bob", "shared", true}, {"nobody", "shared", true}, {"nobody", "bob", false}, {"", "bob", false},
	} {
		require.Equal(t, tt.sees, p.Sees(tt.who, tt.whose), "%s of %s", tt.who, tt.whose)
	}
	require.False(t, policy.Default().Sees("a", "b"), "by default each has its own alone")
	require.NotEqual(t, policy.Default().Hash(), p.Hash())
	q, err := policy.Parse("p", []byte("leases_of: []"))
	require.NoError(t, err)
	require.Equal(t, policy.Default().Hash(), q.Hash(), "what is not set does not change older hashes")

	_, err = policy.Parse("p", []byte("principals: {a: {leases_of: ['b c']}}"))
	require.ErrorContains(t, err, "p:1:30: principals.a.leases_of:")
}
