package tools_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

func TestBothStreamsInTheOrderOfWriting(t *testing.T) {
	d := &desk{row: ready()}
	d.mixed = func(offset int64, limit int) (remote.Mixed, error) {
		require.Equal(t, int64(3), offset)
		require.Equal(t, 100, limit)
		return remote.Mixed{Chunks: []remote.Chunk{
			{Stream: remote.Stdout, Data: []byte("epoch 1")}, {Stream: remote.Stderr, Data: []byte("warning\n")}, {Stream: remote.Stdout, Data: []byte("epoch 2\n")},
		}, Offset: 3, NextOffset: 26, Size: 26, EOF: true, Job: exited(0)}, nil
	}
	got, _ := answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"both","offset":3,"limit_bytes":100}`)
	require.Equal(t, "[stdout]\nepoch 1\n[stderr]\nwarning\n[stdout]\nepoch 2\n", got["data"])
	require.Equal(t, 26.0, got["next_offset"])
	require.Equal(t, true, got["eof"])
}

func TestReadOutputByPattern(t *testing.T) {
	d := &desk{row: ready()}
	var asked remote.Search
	found := remote.Found{Snippets: []remote.Snippet{
		{Offset: 10, Data: []byte("before\nerror: a\n"), Matches: []int64{17}}, {Offset: 90, Data: []byte("error: b"), Matches: []int64{90}},
	}, NextOffset: 200, Size: 200, Job: running()}
	d.search = func(s remote.Stream, what remote.Search) (remote.Found, error) {
		require.Equal(t, remote.Stderr, s)
		asked = what
		return found, nil
	}
	got, text := answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"stderr","pattern":"error: .","context_lines":1}`)
	require.Equal(t, remote.Search{Pattern: "error: .", Lines: 1}, asked)
	require.Equal(t, "[offset 10]\nbefore\nerror: a\n[offset 90]\nerror: b", got["data"])
	require.Equal(t, 2.0, got["matches"])
	require.Equal(t, 10.0, got["offset"])
	require.Equal(t, 200.0, got["next_offset"])
	require.Contains(t, text, "; 2 matches of stderr\n[offset 10]\n")

	// What does not fit is for the next call; of the last ones, the first are left out.
	got, _ = answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"stderr","pattern":"error: .","limit_bytes":30}`)
	require.Equal(t, "[offset 10]\nbefore\nerror: a\n", got["data"])
	require.Equal(t, 90.0, got["next_offset"])
	got, _ = answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"stderr","pattern":"error: .","limit_bytes":30,"offset":-500}`)
	require.True(t, asked.Last)
	require.Equal(t, "[offset 90]\nerror: b", got["data"])
	require.Equal(t, 200.0, got["next_offset"])

	found = remote.Found{NextOffset: 200, Size: 200, Job: exited(1)}
	got, text = answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"stderr","pattern":"x"}`)
	require.Contains(t, text, "; no match in stderr, which has 200 bytes\n")
	require.Equal(t, "", got["data"])
	require.Equal(t, true, got["eof"])
	require.Contains(t, got["next"], "without pattern")
	for offset, where := range map[string]string{"-5": "the last 5 bytes of stderr", "-1": "the last 1 byte of stderr", "150": "stderr from byte 150 on"} {
		_, text = answer(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"stderr","pattern":"x","offset":`+offset+`}`)
		require.Contains(t, text, "; no match in "+where+", which has 200 bytes\n")
	}

	require.Contains(t, failed(t, d, "read_output", `{"job_id":"`+jobID+`","stream":"both","pattern":"x"}`), "error invalid_input: a pattern is looked for in one stream")
}

// A program that prints a line each moment would wake the agent for each.
func TestFollowingGathersWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		written := "a\n"
		write := func(s string) { mu.Lock(); written += s; mu.Unlock() }
		d := &desk{row: ready(), looks: []remote.Job{running()}}
		d.page = func(_ remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, error) {
			mu.Lock()
			defer mu.Unlock()
			return remote.Page{Data: []byte(written[offset:min(int64(len(written)), offset+int64(limit))]), Offset: offset, NextOffset: min(int64(len(written)), offset+int64(limit)), Size: int64(len(written)), Job: running()}, nil
		}
		began := time.Now()
		go func() {
			for range 5 {
				time.Sleep(300 * time.Millisecond)
				write("b\n")
			}
		}()
		r, err := use(t, tools.Deps{Leases: &slowDesk{desk: d}}, "read_output", `{"job_id":"`+jobID+`","wait_seconds":40}`)
		require.NoError(t, err)
		require.Equal(t, "a\nb\nb\nb\n", fields(t, r)["data"])
		require.Equal(t, time.Second, time.Since(began))
		time.Sleep(time.Second)

		// Without a wait, and with a full page, there is nothing to wait for.
		began = time.Now()
		for _, args := range []string{`"wait_seconds":0`, `"wait_seconds":40,"limit_bytes":16`} {
			write("0123456789abcdef")
			_, err = use(t, tools.Deps{Leases: &slowDesk{desk: d}}, "read_output", `{"job_id":"`+jobID+`",`+args+`}`)
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(began))
	})
}
