package lease_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func TestAPrincipalAmongOthersSeesItsOwnLeasesOnly(t *testing.T) {
	k := newKit(t, lambdatest.Config{})
	ann, bob := lease.ActAs(t.Context(), "ann"), lease.ActAs(t.Context(), "bob")

	mine, err := k.m.Launch(ann, lease.LaunchRequest{Type: testType, IdempotencyKey: "k", Principal: "bob"})
	require.NoError(t, err)
	require.Equal(t, "ann", mine.Principal, "nobody launches in another's name")
	k.untilState(mine.ID, lease.Ready)
	theirs, err := k.m.Launch(bob, lease.LaunchRequest{Type: testType, IdempotencyKey: "k"})
	require.NoError(t, err)
	require.NotEqual(t, mine.ID, theirs.ID, "the idempotency key is the principal's own")

	absent := lease.ID("aaaaaaaaaaaa")
	_, want := k.m.Get(bob, absent)
	for name, call := range map[string]func(lease.ID) error{
		"get": func(id lease.ID) error { _, err := k.m.Get(bob, id); return err },
		"wait": func(id lease.ID) error {
			_, err := k.m.Wait(bob, id, 0, func(lease.Lease) bool { return true })
			return err
		},
		"stop": func(id lease.ID) error { _, err := k.m.Stop(bob, id); return err },
		"jobs": func(id lease.ID) error { _, err := k.m.Jobs(bob, id); return err },
		"page": func(id lease.ID) error {
			_, _, err := k.m.Page(bob, string(id)+"-aaaaaaaa", "stdout", 0, 100, 0)
			return err
		},
		"extend":  func(id lease.ID) error { _, err := k.m.Extend(bob, id, lease.Extension{More: time.Minute}); return err },
		"results": func(id lease.ID) error { _, err := k.m.SetResults(bob, id, []string{"out"}, "/tmp/x"); return err },
	} {
		require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(call(mine.ID)), name)
		require.EqualError(t, call(absent), want.Error(), name)
	}
	require.Equal(t, lease.Ready, k.get(mine.ID).State)

	for _, live := range []bool{true, false} {
		list, err := k.m.List(ann, live, 1) // bob's is the newest
		require.NoError(t, err)
		require.Equal(t, []lease.ID{mine.ID}, ids(list))
	}
	s, err := k.m.Spend(ann, "bob")
	require.NoError(t, err)
	require.Equal(t, "ann", s.Principal)
	require.Equal(t, []lease.ID{mine.ID}, ids(s.Leases))
	require.Len(t, s.Principals, 1)

	s, err = k.m.Spend(t.Context(), "")
	require.NoError(t, err)
	require.ElementsMatch(t, []lease.ID{mine.ID, theirs.ID}, ids(s.Leases), "a person sees all")
	for _, l := range []lease.Lease{mine, theirs} {
		_, err = k.m.Stop(t.Context(), l.ID)
		require.NoError(t, err)
		k.untilState(l.ID, lease.Ended)
	}
}

func TestAPrincipalAmongOthersSeesItsOwnRulesOnly(t *testing.T) {
	k := newKit(t, lambdatest.Config{})
	k.policy.p.Principals = map[string]policy.Limits{"ann": {MaxLeases: 1}, "bob": {MaxLeases: 2}}
	for name, want := range map[string][]string{"ann": {"ann"}, "carol": nil} {
		p, err := k.m.PolicyFor(lease.ActAs(t.Context(), name))
		require.NoError(t, err)
		require.ElementsMatch(t, want, slices.Collect(maps.Keys(p.Principals)))
	}
	p, err := k.m.PolicyFor(t.Context())
	require.NoError(t, err)
	require.Len(t, p.Principals, 2, "a person sees all, and the policy itself was not touched")
}

func ids(leases []lease.Lease) (out []lease.ID) {
	for _, l := range leases {
		out = append(out, l.ID)
	}
	return out
}
