package tools_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// A person sees what a job writes while it runs: the new lines, as a terminal would leave
// them, without secrets, and not more than fits on a screen.
func TestProgressShowsWhatAJobWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const token = "sesame-open-7"
		stages := []string{
			"installing\n",
			"installing\nepoch 1\r 10%\r 50%",
			"installing\nepoch 1\r 10%\r 50%\r100%\n\x1b[31mred\x1b[0m\x07 " + token + "\n",
			"installing\nepoch 1\r 10%\r 50%\r100%\n\x1b[31mred\x1b[0m\x07 " + token + "\n" + strings.Repeat("line of much output\n", 2000),
		}
		looks := make([]remote.Job, len(stages))
		for i, s := range stages {
			looks[i] = running()
			looks[i].StdoutBytes = int64(len(s))
		}
		looks[1].StderrBytes = 8
		looks[2].StderrBytes, looks[3].StderrBytes = 8, 8
		d, began := worker("", "", looks...), time.Now()
		d.page = func(s remote.Stream, offset int64, limit int, _ time.Duration) (remote.Page, error) {
			all := stages[min(int(time.Since(began)/(2*time.Second)), len(stages))-1] // as it is by now
			if s == remote.Stderr {
				all = "warning\n"
			}
			data := all[min(int(offset), len(all)):]
			return remote.Page{Data: []byte(data[:min(limit, len(data))]), Offset: offset}, nil
		}
		var notes []string
		ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
		defer cancel()
		ctx = tools.WithReporter(ctx, tools.NewReporter(time.Second, func(_ float64, m string) { notes = append(notes, m) }))
		_, err := useIn(ctx, t, tools.Deps{Leases: &slowDesk{desk: d}}, "run_command",
			`{"lease_id":"abcdefghijkl","command":"train","env":{"HF_TOKEN":"`+token+`"},"wait_seconds":9}`)
		require.NoError(t, err)
		require.Len(t, notes, 4)
		require.Equal(t, "running for 2 s, 11 bytes of output\ninstalling", notes[0])
		require.Equal(t, "running for 4 s, 36 bytes of output\n 50%\nstderr:\nwarning", notes[1])
		require.Contains(t, notes[2], "\n100%\nred [redacted]")
		require.NotContains(t, notes[2], "installing", "it was told")
		require.NotContains(t, strings.Join(notes, ""), token)
		require.NotContains(t, strings.Join(notes, ""), "\x1b")
		require.Equal(t, 8, strings.Count(notes[3], "line of much output"))
		require.Less(t, len(notes[3]), 1000)
	})
}

// Who has not asked for progress costs the machine no look at its output.
func TestNothingIsReadForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := running()
		job.StdoutBytes = 100
		d := worker("", "", job)
		d.page = nil // would panic
		ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
		defer cancel()
		_, err := useIn(ctx, t, tools.Deps{Leases: &slowDesk{desk: d}}, "run_command", `{"lease_id":"abcdefghijkl","command":"train","wait_seconds":12}`)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{5 * time.Second, 5 * time.Second, 2 * time.Second}, d.waits)
	})
}
