package lease_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// A machine keeps what came first under an ID, as the real one does.
func TestTheSameCallIsTheSameJob(t *testing.T) {
	k := newKit(t, lambdatest.Config{})
	l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
	jobs := map[string]string{}
	fail := error(nil)
	k.machine.does(func(m *machine) {
		m.run = func(id string, c remote.Command) (remote.Job, error) {
			if _, known := jobs[id]; !known {
				jobs[id] = c.String()
			}
			return remote.Job{ID: id, State: remote.Running, Command: jobs[id]}, fail
		}
	})
	run := func(call, command string) (lease.Job, error) {
		j, _, _, err := k.m.RunCommand(t.Context(), l.ID, call, remote.Command{Shell: command}, 0, 0, 0)
		return j, err
	}
	first, err := run("a", "make")
	require.NoError(t, err)
	again, err := run("a", "make")
	require.NoError(t, err)
	require.Equal(t, first.ID, again.ID)
	other, err := run("b", "make")
	require.NoError(t, err)
	require.NotEqual(t, first.ID, other.ID)
	require.Len(t, jobs, 2)

	refused, err := run("a", "rm -rf build")
	require.Empty(t, refused.ID, "the job is another call's, and nobody is to be told that this call has started it")
	require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
	require.ErrorContains(t, err, "job "+first.ID+" has it: make")
	require.Len(t, jobs, 2)

	// Whoever cannot know whether the command was started gets its ID all the same.
	for cause, known := range map[error]bool{
		remote.ErrConnLost: true, context.DeadlineExceeded: true, remote.ErrDirectory: false, remote.ErrInvalid: false, remote.ErrHostKey: false,
	} {
		fail = fmt.Errorf("run: %w", cause)
		j, err := run("c", "make")
		require.ErrorIs(t, err, cause)
		require.Equal(t, known, j.ID != "", cause)
	}
	fail = remote.ErrUnreachable
	_, err = run("d", "make")
	require.ErrorContains(t, err, "the cloud has listed it at "+k.get(l.ID).SeenAt.UTC().Format(time.RFC3339))
}
