package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewerReleaseIsNewer(t *testing.T) {
	t.Parallel()
	inOrder := []string{
		"v0.9.9", "v1.0.0-alpha.1", "v1.0.0-alpha.2", "v1.0.0-alpha.10", "v1.0.0-rc.1", "v1.0.0-rc.1-4-gdeadbee", "v1.0.0-rc.2",
		"v1.0.0", "v1.0.0-1-gabcdef0", "v1.0.0-12-gabcdef0", "v1.0.1", "v1.2.0", "v1.10.0", "v2.0.0",
	}
	for i, a := range inOrder {
		for j, b := range inOrder {
			require.Equal(t, i > j, build{Version: a}.newer(build{Version: b}), "%s newer than %s", a, b)
		}
	}
	for _, same := range []string{"1.0.0", "v1.0.0-dirty", "v1.0.0+meta"} {
		require.False(t, build{Version: same}.newer(build{Version: "v1.0.0"}), same)
		require.False(t, build{Version: "v1.0.0"}.newer(build{Version: same}), same)
	}
}

// Two hosts with different builds must never replace each other's keeper in
// turns, and no three either.
func TestNewerNeverRunsInACircle(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	var all []build
	for _, v := range []string{
		"", "dev", "4cb9a64", "4cb9a64-dirty", "v1", "v1.0", "nonsense", "v1.0.0", "v1.0.0-dirty", "1.0.0", "v1.0.0-3-gabcdef0", "v1.0.0-4-gabcdef1-dirty",
		"v1.0.0-rc.1", "v1.0.0-rc.1-2-gabcdef0", "v0.9.0", "v0.0.0-20261127121211-4cb9a64d6d5b", "v1.2.3-1-2-3", "v1.0.0-g-1", "v99999999999999999999.0.0",
	} {
		for _, at := range []time.Time{{}, day(1), day(2), day(3)} {
			all = append(all, build{Version: v, Commit: "c", Time: at})
		}
	}
	pairs := 0
	for _, a := range all {
		require.False(t, a.newer(a))
		for _, b := range all {
			if !a.newer(b) {
				continue
			}
			pairs++
			require.False(t, b.newer(a), "%v and %v", a, b)
			for _, c := range all {
				require.True(t, !b.newer(c) || a.newer(c), "%v, %v, %v", a, b, c)
			}
		}
	}
	require.Greater(t, pairs, 500)
}

func TestBuildsWithoutAVersionGoByTheirCommits(t *testing.T) {
	t.Parallel()
	early, late := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	require.True(t, build{Version: "dev", Time: late}.newer(build{Version: "4cb9a64", Time: early}))
	require.False(t, build{Version: "dev", Time: late}.newer(build{Version: "dev", Time: late}), "two builds of one commit")
	require.False(t, build{Version: "dev"}.newer(build{Version: "dev", Time: early}), "no time, no order")
	require.False(t, build{Version: "dev", Time: late}.newer(build{Version: "dev"}))
	require.False(t, build{Version: "dev", Time: late}.newer(build{Version: "v0.1.0", Time: early}), "it may be a build of an old branch")
	require.False(t, build{Version: "v9.0.0", Time: late}.newer(build{Version: "dev", Time: early}))
}
