package lease_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// A job removes ~/.gpulease, and the machine takes a repeat of its call for a new one. It is not
// run twice for that, by no process of this home.
func TestARepeatOfAJobThatRemovedItsRecordsIsRefused(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{"later": nil, "before it was answered": fmt.Errorf("start job: %w", remote.ErrGone)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{})
			l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
			known, runs := map[string]bool{}, 0
			k.machine.does(func(m *machine) {
				m.run = func(id string, c remote.Command) (remote.Job, error) {
					if !known[id] {
						runs++
					}
					known[id] = true
					return remote.Job{ID: id, State: remote.Running, Command: c.String()}, answer
				}
				m.job = func(id string) (remote.Job, error) {
					if !known[id] {
						return remote.Job{}, remote.ErrJobNotFound
					}
					return remote.Job{ID: id, State: remote.Running}, nil
				}
			})
			run := func(call string) (lease.Job, error) {
				j, _, _, err := k.m.RunCommand(t.Context(), l.ID, call, remote.Command{Shell: "make"}, 0, 0, 0)
				return j, err
			}
			first, err := run("a")
			require.ErrorIs(t, err, answer)
			if answer == nil {
				again, err := run("a")
				require.NoError(t, err)
				require.Equal(t, first.ID, again.ID)
			}
			require.Equal(t, 1, runs)

			k.machine.does(func(*machine) { clear(known) })
			for range 2 {
				j, err := run("a")
				require.Equal(t, lease.CodeJobNotFound, lease.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, "the machine no longer knows of job "+first.ID+", which this call has started before; it was not started again")
				require.Empty(t, j.ID)
				require.Equal(t, 1, runs)
				k.restart()
			}
			_, err = run("b")
			require.ErrorIs(t, err, answer)
			require.Equal(t, 2, runs, "another call runs")
			_, err = run("")
			require.ErrorIs(t, err, answer)

			file := filepath.Join(k.dir, "jobs", string(l.ID))
			require.FileExists(t, file)
			_, err = k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			k.settled(k.untilState(l.ID, lease.Ended))
			require.Eventually(t, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }, 5*time.Second, 5*time.Millisecond)
		})
	}
}

// A disk that was full has left half a line: what is noted next is known all the same.
func TestJobNotedAfterHalfALine(t *testing.T) {
	t.Parallel()
	dir := lease.JobDir(t.TempDir())
	const id, half, job = "bbbbbbbbbbbb", "bbbbbbbbbbbb-cc", "bbbbbbbbbbbb-dddddddd"
	require.NoError(t, os.WriteFile(filepath.Join(string(dir), id), []byte(half), 0o600))
	require.NoError(t, dir.Note(job))
	noted, err := dir.Noted(job)
	require.NoError(t, err)
	require.True(t, noted)
}
