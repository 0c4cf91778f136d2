package lease_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

func TestResultsNamedLater(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	dir := t.TempDir()
	var asked []string
	to := ""
	k.machine.fetch = func(_ context.Context, paths []string, dst string) (remote.FetchSummary, error) {
		asked, to = paths, dst
		return remote.FetchSummary{}, nil
	}
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"a"}, ResultsDir: filepath.Join(dir, lease.LeaseInPath)})
	require.Equal(t, filepath.Join(dir, string(l.ID)), l.ResultsDir)
	k.untilState(l.ID, lease.Ready)
	got, err := k.m.SetResults(t.Context(), l.ID, []string{"b", "a", "b"}, "/elsewhere")
	require.NoError(t, err)
	require.Equal(t, "a\nb", got.Results)
	again, err := k.m.SetResults(t.Context(), l.ID, []string{"a", "b"}, "/elsewhere")
	require.NoError(t, err)
	require.Equal(t, got.Version, again.Version, "nothing new")
	many := make([]string, 60)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	for name, paths := range map[string][]string{"a line": {"a\nb"}, "nothing": {" "}, "many": many} {
		_, err = k.m.SetResults(t.Context(), l.ID, paths, dir)
		require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), name)
	}
	_, err = k.m.SetResults(t.Context(), l.ID, []string{"c"}, "relative")
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))

	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	_, err = k.m.SetResults(t.Context(), l.ID, []string{"c"}, dir)
	require.Equal(t, lease.CodeLeaseEnded, lease.CodeOf(err), "the end is decided")
	_, err = k.m.SetResults(t.Context(), l.ID, []string{"a"}, dir)
	require.NoError(t, err, "the same call again")
	k.settled(k.untilState(l.ID, lease.Ended))
	require.Equal(t, []string{"a", "b"}, asked)
	require.Equal(t, filepath.Join(dir, string(l.ID)), to)
	_, err = k.m.SetResults(t.Context(), "aaaaaaaaaaaa", []string{"a"}, dir)
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err))
}

// Where a lease has no directory for results yet, only its own home may name one: a path
// means something else on another computer.
func TestResultsOfALeaseFromElsewhere(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	plain, named := k.launch(lease.LaunchRequest{}), k.launch(lease.LaunchRequest{Results: []string{"a"}, ResultsDir: "/home/a"})
	for _, id := range []lease.ID{plain.ID, named.ID} {
		l := k.untilState(id, lease.Ready)
		l.Home = "another computer"
		_, err := k.db.Update(t.Context(), l, "moved for the test")
		require.NoError(t, err)
	}
	_, err := k.m.SetResults(t.Context(), plain.ID, []string{"b"}, "/home/b")
	require.Equal(t, lease.CodePathDenied, lease.CodeOf(err))
	require.Empty(t, k.get(plain.ID).Results)
	got, err := k.m.SetResults(t.Context(), named.ID, []string{"b"}, "/home/b")
	require.NoError(t, err)
	require.Equal(t, "a\nb", got.Results)
	require.Equal(t, "/home/a", got.ResultsDir)
}

func TestDueIsWhatHasToEndNow(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{TerminateTime: time.Hour})
	due := func() []lease.ID {
		all, err := k.m.Due(t.Context())
		require.NoError(t, err)
		var ids []lease.ID
		for _, l := range all {
			ids = append(ids, l.ID)
		}
		return ids
	}
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	require.Empty(t, due())
	k.halt() // nobody ends it
	k.sim.Advance(61 * time.Minute)
	require.Equal(t, []lease.ID{l.ID}, due(), "past its deadline")
	k.start(k.client(k.sim.APIKey()))
	k.untilState(l.ID, lease.Stopping)
	require.Equal(t, []lease.ID{l.ID}, due(), "not confirmed")
	k.untilBy(l.ID, "ended", time.Minute, func(l lease.Lease) bool { return l.State == lease.Ended })
	require.Empty(t, due())
}

func TestSpendingPerPrincipal(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.change(func(p *policy.Policy) { p.Principals = map[string]policy.Limits{"idle": {MaxLeases: 1}} })
	k.launch(lease.LaunchRequest{})
	other := k.launch(lease.LaunchRequest{Principal: "ci"})
	s, err := k.m.Spend(t.Context(), "")
	require.NoError(t, err)
	var names []string
	var sum policy.Money
	for _, p := range s.Principals {
		names = append(names, p.Name)
		sum += p.Totals.Month
	}
	require.Equal(t, []string{"ci", "idle", "tester"}, names)
	require.Equal(t, other.Reserved, s.Principals[0].Totals.Month)
	require.Zero(t, s.Principals[1].Totals.Month)
	require.Equal(t, s.Usage.Account.Month, sum)
	require.Equal(t, s.Held, sum)
}
