package tools_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

const fewTests = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"b_test.go:7: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
`

func TestTestReportsAreSummedUp(t *testing.T) {
	got, text := answer(t, worker(fewTests, "", exited(1)), "run_command", `{"lease_id":"abcdefghijkl","command":"go test -json"}`)
	require.Equal(t, map[string]any{
		"passed": 1.0, "failed": 1.0, "skipped": 1.0, "first_failures": []any{map[string]any{"name": "p.TestB", "text": "b_test.go:7: wrong"}},
	}, got["tests"])
	require.Contains(t, text, "\ntests: 1 passed, 1 failed, 1 skipped\nfailed: p.TestB: b_test.go:7: wrong\nstdout:\n")

	got, _ = answer(t, worker("{\"loss\":1}\n", "", exited(0)), "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.NotContains(t, got, "tests")
	got, _ = answer(t, worker(fewTests, "", running()), "run_command", `{"lease_id":"abcdefghijkl","command":"x","wait_seconds":0}`)
	require.NotContains(t, got, "tests", "it goes on")
}

// A long report behind other output is read from the machine, whole.
func TestLongTestReportsAreReadWhole(t *testing.T) {
	var all strings.Builder
	all.WriteString(strings.Repeat("collecting\n", 1000))
	for i := range 100_000 {
		fmt.Fprintf(&all, `{"Action":"pass","Package":"p","Test":"Test%d"}`+"\n", i)
	}
	stdout := all.String() + fewTests
	d := worker(stdout, "", exited(1))
	pages := 0
	d.page = func(_ remote.Stream, offset int64, limit int, _ time.Duration) (remote.Page, error) {
		pages++
		if offset < 0 {
			offset += int64(len(stdout))
		}
		to := min(offset+int64(limit), int64(len(stdout)))
		return remote.Page{Data: []byte(stdout[offset:to]), Offset: offset, NextOffset: to, Size: int64(len(stdout)), EOF: to == int64(len(stdout)), Job: exited(1)}, nil
	}
	got, _ := answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.Equal(t, 100_001.0, got["tests"].(map[string]any)["passed"])
	require.Equal(t, 1.0, got["tests"].(map[string]any)["failed"])
	require.NotContains(t, got["tests"], "partial")
	require.Greater(t, pages, 1)

	// Who reads it to its end later is told too.
	got, _ = answer(t, d, "read_output", `{"job_id":"`+jobID+`","offset":-100}`)
	require.Equal(t, true, got["eof"])
	require.Equal(t, 100_001.0, got["tests"].(map[string]any)["passed"])
	got, _ = answer(t, d, "read_output", `{"job_id":"`+jobID+`","offset":0}`)
	require.NotContains(t, got, "tests", "that was not the end")
}
