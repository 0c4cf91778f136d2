package tools_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

func TestRunCommandTakesAllThatAJobCan(t *testing.T) {
	d := worker("", "", exited(0))
	var command remote.Command
	start := d.start
	d.start = func(c remote.Command) (lease.Job, error) { command = c; return start(c) }
	answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","argv":["cat","a b"],"stdin":"in\n","timeout_seconds":60,"no_output_timeout":30,"idle_output_timeout":20,"client_request_id":"r1"}`)
	require.Equal(t, remote.Command{
		Argv: []string{"cat", "a b"}, Stdin: []byte("in\n"), Timeout: time.Minute, OutputTimeout: 30 * time.Second, IdleTimeout: 20 * time.Second,
	}, command)
	require.Equal(t, []string{"client_request_id r1"}, d.calls)

	for _, args := range []string{`{"lease_id":"abcdefghijkl"}`, `{"lease_id":"abcdefghijkl","command":"x","argv":["x"]}`} {
		require.Contains(t, failed(t, d, "run_command", args), "error invalid_input: give command or argv, and not both\n")
	}
	require.Len(t, d.calls, 1, "nothing was started")
}

func TestTheResultSaysWhatTheJobUsed(t *testing.T) {
	j := exited(137)
	j.Reason, j.Signal, j.CPUTime, j.PeakMemoryMiB = remote.ReasonOOM, "SIGKILL", 12340*time.Millisecond, 2048
	j.Trouble = []string{"killed for lack of memory: process 4242 (python3)"}
	got, text := answer(t, worker("", "", j), "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.Equal(t, 12.34, got["cpu_seconds"])
	require.Equal(t, 2048.0, got["peak_memory_mib"])
	require.Equal(t, "SIGKILL", got["signal"])
	require.Equal(t, "oom", got["reason"])
	require.Equal(t, []any{"killed for lack of memory: process 4242 (python3)"}, got["trouble"])
	require.Contains(t, text, "job "+jobID+": exited, exit code 137, SIGKILL, oom, 1.2 s, CPU 12.3 s, memory at most 2048 MiB\ntrouble: killed for lack of memory: process 4242 (python3)\n")

	j = running()
	j.Hanging, j.CPUTime, j.PeakMemoryMiB = 90*time.Second, remote.Unknown, remote.Unknown
	got, _ = answer(t, worker("", "", j), "run_command", `{"lease_id":"abcdefghijkl","command":"x","wait_seconds":0}`)
	require.NotContains(t, got, "hanging_seconds", "a job that has only been started")
	d := worker("", "", j)
	d.start = func(remote.Command) (lease.Job, error) { return lease.Job{Lease: d.row, Job: j}, nil } // a repeat finds it hanging
	got, text = answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x","wait_seconds":0}`)
	require.Equal(t, 90.0, got["hanging_seconds"])
	require.NotContains(t, got, "cpu_seconds")
	require.NotContains(t, got, "peak_memory_mib")
	require.Contains(t, text, "HANGING: no output, CPU or GPU use for 90 s")
	require.Contains(t, got["next"], "it seems to hang")
}

func TestProgressBarsAreFolded(t *testing.T) {
	bar := ""
	for i := range 100 {
		bar += "\r" + strings.Repeat("#", i) + strings.Repeat(".", 100-i)
	}
	d := worker("begin\n"+bar+"\rdone\nend\n", "", exited(0))
	got, _ := answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.Equal(t, "begin\ndone\nend\n", got["stdout"])
	require.Equal(t, false, got["truncated"])
	require.Equal(t, float64(6+100*101+6+4), got["stdout_bytes"], "the machine has the exact bytes")

	// A bar that is longer than what is asked for, between lines that are to be seen.
	d = worker("begin\n"+strings.Repeat(bar, 10)+"\nloss 0.1\n", "", exited(0))
	got, _ = answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.True(t, strings.HasPrefix(got["stdout"].(string), "begin\n"), got["stdout"])
	require.True(t, strings.HasSuffix(got["stdout"].(string), strings.Repeat("#", 99)+".\nloss 0.1\n"), got["stdout"])
	require.Less(t, len(got["stdout"].(string)), 500)
}

func TestSecretsAreNotShownAgain(t *testing.T) {
	const token, api = "hf_abcdefghijklmnop", "secret_lambda_key"
	d := worker("token is "+token+"!\n", api+"\n"+token[:9], exited(0))
	deps := tools.Deps{Leases: d, Secrets: func() []string { return []string{api} }}
	all := tools.All(deps)
	call := func(name, args string) map[string]any {
		t.Helper()
		for _, tool := range all {
			if tool.Name == name {
				r, err := tool.Call(t.Context(), []byte(args))
				require.NoError(t, err)
				require.NotContains(t, r.Text, token)
				return fields(t, r)
			}
		}
		panic(name)
	}
	got := call("run_command", `{"lease_id":"abcdefghijkl","command":"x","env":{"HF_TOKEN":"`+token+`","MODE":"is the","PASSWORD":"short"}}`)
	require.Equal(t, "token is [redacted]*********!\n", got["stdout"])
	require.Equal(t, "[redacted]*******\n[redacted", got["stderr"], "also the part of one that an edge leaves")

	d.page = func(remote.Stream, int64, int, time.Duration) (remote.Page, error) {
		return remote.Page{Data: []byte("9\n" + token + "\n"), NextOffset: 22, Size: 22, EOF: true, Job: exited(0)}, nil
	}
	got = call("read_output", `{"job_id":"`+jobID+`"}`)
	require.Equal(t, "9\n[redacted]*********\n", got["data"], "what an earlier call has set is known")
}
