package lease_test

import (
	"context"
	"errors"
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

// A lead sees and uses the leases of those that the policy names, launches in nobody's name, and stays within its own caps.
func TestAPrincipalSeesTheLeasesThatThePolicyLetsIt(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.policy.p.MaxLeases = 5
		k.policy.p.Principals = map[string]policy.Limits{"lead": {LeasesOf: []string{"team-*"}}, "team-ann": {MaxLeases: 1}, "eve": {MaxLeases: 1}}
	})
	as := func(name string) context.Context { return lease.ActAs(t.Context(), name) }
	of := map[string]lease.Lease{}
	for _, name := range []string{"team-ann", "eve", "lead"} {
		l, err := k.m.Launch(as(name), lease.LaunchRequest{Type: testType, Principal: "team-ann"})
		require.NoError(t, err)
		require.Equal(t, name, l.Principal, "nobody launches in another's name")
		of[name] = l
	}
	k.untilState(of["team-ann"].ID, lease.Ready)
	for name, want := range map[string][]lease.ID{
		"lead": {of["team-ann"].ID, of["lead"].ID}, "team-ann": {of["team-ann"].ID}, "eve": {of["eve"].ID}, "team-bob": nil,
	} {
		list, err := k.m.List(as(name), true, 0)
		require.NoError(t, err)
		require.ElementsMatch(t, want, ids(list), name)
		for who, l := range of {
			_, err := k.m.Get(as(name), l.ID)
			require.Equal(t, slices.Contains(want, l.ID), err == nil, "%s asks for the lease of %s", name, who)
		}
	}
	p, err := k.m.PolicyFor(as("lead"))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"lead", "team-ann"}, slices.Collect(maps.Keys(p.Principals)))
	s, err := k.m.Spend(as("lead"), "team-ann")
	require.NoError(t, err)
	require.Equal(t, "team-ann", s.Principal)
	s, err = k.m.Spend(as("lead"), "eve")
	require.NoError(t, err)
	require.Equal(t, "lead", s.Principal)

	_, err = k.m.Stop(as("lead"), of["eve"].ID)
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err))
	_, err = k.m.Stop(as("lead"), of["team-ann"].ID)
	require.NoError(t, err)
	ended := k.untilState(of["team-ann"].ID, lease.Ended)
	require.Equal(t, "team-ann", ended.Principal)

	// While the policy cannot be read, each sees its own alone.
	k.policy.mu.Lock()
	k.policy.err = errors.New("policy.yaml:1:1: unknown key")
	k.policy.mu.Unlock()
	_, err = k.m.Get(as("lead"), of["team-ann"].ID)
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err))
	_, err = k.m.Get(as("lead"), of["lead"].ID)
	require.NoError(t, err)
}
