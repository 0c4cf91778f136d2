package lease_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// brings is a machine whose files come, if it still runs.
func (k *kit) brings(files ...string) func(context.Context, []string, string) (remote.FetchSummary, error) {
	return func(_ context.Context, _ []string, dst string) (remote.FetchSummary, error) {
		var sum remote.FetchSummary
		if len(k.sim.Running()) == 0 {
			return sum, remote.ErrUnreachable
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dst, f), []byte(f), 0o600); err != nil {
				return sum, err
			}
			sum.Files = append(sum.Files, remote.Fetched{Path: f, Bytes: int64(len(f))})
			sum.Bytes += int64(len(f))
		}
		return sum, nil
	}
}

func TestResultsComeHomeBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*kit, lease.ID){
		"a stop": func(k *kit, id lease.ID) {
			l, err := k.m.Stop(k.t.Context(), id)
			require.NoError(k.t, err)
			require.Contains(k.t, l.Detail, "results are brought home first")
			require.Len(k.t, k.sim.Running(), 1, "not ended yet")
		},
		"the deadline": func(k *kit, id lease.ID) { k.sim.Advance(time.Hour) },
		"idleness":     func(k *kit, id lease.ID) { k.pass(35*3, 20*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{}, enforceIdle)
			dir := t.TempDir()
			k.machine.fetch = k.brings("model.pt")
			l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: dir})
			k.untilState(l.ID, lease.Ready)
			end(k, l.ID)
			got := k.untilState(l.ID, lease.Ended)
			require.FileExists(t, filepath.Join(dir, "model.pt"), "%s: %s", got.Reason, got.Rescue)
			require.Contains(t, got.Rescue, "1 result file (")
			k.settled(got)
		})
	}
}

// A stop that the cloud does not take is not put down to results that are home already.
func TestDetailOfAStopWhoseResultsAreHome(t *testing.T) {
	t.Parallel()
	noted := make(chan string, 1)
	k := newKit(t, lambdatest.Config{}, func(k *kit) {
		k.crash = func(point string) {
			if point != "rescue-noted" {
				return
			}
			live, err := k.db.Live(context.Background())
			if err == nil && len(live) == 1 {
				noted <- live[0].Detail
			}
		}
	})
	k.machine.fetch = k.brings("model.pt")
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: t.TempDir()})
	k.untilState(l.ID, lease.Ready)
	stopped, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, "stop was asked for; its results are brought home first", stopped.Detail)
	k.settled(k.untilState(l.ID, lease.Ended))
	require.Equal(t, "stop was asked for; the end of the machine is being asked for", <-noted)
}

// A path that the machine would refuse at the end would take the others with it,
// so it is refused at the launch.
func TestResultsThatCannotComeAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	for _, bad := range []string{"../../x", "out/../../x", "a\nb", " "} {
		_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, Results: []string{"out", bad}, ResultsDir: t.TempDir()})
		require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), "%q: %v", bad, err)
	}
	require.Zero(t, k.sim.LaunchCount())
}

// Whatever becomes of the rescue, the end comes, and in time.
func TestRescueThatFailsOrHangsDoesNotKeepTheMachine(t *testing.T) {
	t.Parallel()
	for name, fetch := range map[string]func(context.Context, []string, string) (remote.FetchSummary, error){
		"fails": func(context.Context, []string, string) (remote.FetchSummary, error) {
			return remote.FetchSummary{Missing: []string{"model.pt"}}, errors.New("no such luck")
		},
		"hangs": func(ctx context.Context, _ []string, _ string) (remote.FetchSummary, error) {
			time.Sleep(50 * time.Millisecond)
			return remote.FetchSummary{}, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			k.machine.fetch = fetch
			l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: t.TempDir()})
			k.untilState(l.ID, lease.Ready)
			stopped, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			got := k.untilState(l.ID, lease.Ended)
			require.Less(t, got.EndedAt.Sub(stopped.StopAt), 8*time.Minute)
			k.settled(got)
		})
	}
}

// The process with the machine's key is gone for good: the end waits for it no
// longer than its time, and whoever leads ends the machine.
func TestRescueOfAHomeThatIsGone(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: t.TempDir()})
	ready := k.untilState(l.ID, lease.Ready)
	ready.Home = "another computer"
	_, err := k.db.Update(t.Context(), ready, "moved for the test")
	require.NoError(t, err)
	stopped, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.pass(4*60, time.Second)
	require.Len(t, k.sim.Running(), 1)
	got := k.untilState(l.ID, lease.Ended)
	require.GreaterOrEqual(t, got.TerminateAt.Sub(stopped.StopAt), 5*time.Minute)
	require.Less(t, got.TerminateAt.Sub(stopped.StopAt), 6*time.Minute)
	require.True(t, got.RescuedAt.IsZero())
	k.settled(got)
}

// At the deadline jobs are told to end before the machine goes.
func TestJobsAreEndedAtTheDeadline(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.machine.does(func(m *machine) {
		m.jobs = []remote.Job{{ID: string(l.ID) + "-aaaaaaaa", State: remote.Running}, {ID: string(l.ID) + "-bbbbbbbb", State: remote.Exited}}
	})
	k.sim.Advance(59 * time.Minute)
	got := k.untilState(l.ID, lease.Ended)
	require.Equal(t, lease.Deadline, got.Reason)
	require.Equal(t, "1 job was ended", got.Rescue)
	require.Equal(t, remote.ReasonCancelled, k.machine.jobs[0].Reason)
	require.Empty(t, k.machine.jobs[1].Reason)
	k.settled(got)
}

// The process dies while it brings results home; the next one brings them.
func TestDeathDuringTheRescue(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	dir := t.TempDir()
	var tries atomic.Int32
	k.machine.fetch = func(ctx context.Context, paths []string, dst string) (remote.FetchSummary, error) {
		if tries.Add(1) == 1 {
			<-ctx.Done() // until it is killed
			return remote.FetchSummary{}, ctx.Err()
		}
		return k.brings("model.pt")(ctx, paths, dst)
	}
	l := k.launch(lease.LaunchRequest{TTL: time.Hour, Results: []string{"model.pt"}, ResultsDir: dir})
	k.untilState(l.ID, lease.Ready)
	_, err := k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return tries.Load() == 1 }, 10*time.Second, time.Millisecond)
	k.restart()
	got := k.untilState(l.ID, lease.Ended)
	require.FileExists(t, filepath.Join(dir, "model.pt"))
	k.settled(got)
}
