package tools_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
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

// What came home is summed up as well: each report among the files, and nothing that is none.
func TestTestReportsThatWereFetchedAreSummedUp(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret.xml")
	suite := func(n int, text string) string {
		return `<?xml version="1.0"?><testsuites><testsuite name="s">` + strings.Repeat(`<testcase classname="m" name="ok"/>`, n) +
			`<testcase classname="m" name="bad"><failure message="` + text + `">` + text + `</failure></testcase></testsuite></testsuites>`
	}
	require.NoError(t, os.WriteFile(outside, []byte(suite(9, "from elsewhere")), 0o600))
	dir := filepath.Join(root, "results", string(leaseID))
	files := map[string]string{
		"out/junit.xml":  suite(3, "assert hunter2hunter2 == 5"),
		"out/go.json":    fewTests,
		"out/config.xml": `<?xml version="1.0"?><config/>`,
		"out/data.json":  `{"loss": 1}`,
		"out/log.txt":    suite(100, "not by its name"),
		"out/empty.xml":  "",
	}
	d := &desk{row: ready()}
	d.fetch = func(_ context.Context, _ []string, to string, _ remote.FetchOptions) (sum remote.FetchSummary, err error) {
		require.Equal(t, dir, to)
		require.NoError(t, os.MkdirAll(filepath.Join(to, "out"), 0o755))
		for name, text := range files {
			require.NoError(t, os.WriteFile(filepath.Join(to, name), []byte(text), 0o600))
			sum.Files = append(sum.Files, remote.Fetched{Path: name, Bytes: int64(len(text))})
		}
		require.NoError(t, os.Symlink(outside, filepath.Join(to, "out", "link.xml")))
		require.NoError(t, syscall.Mkfifo(filepath.Join(to, "out", "pipe.xml"), 0o600))
		for _, odd := range []string{"out/link.xml", "out/pipe.xml", "out/gone.xml", "../../../secret.xml"} {
			sum.Files = append(sum.Files, remote.Fetched{Path: odd, Bytes: 1 << 20})
		}
		return sum, nil
	}
	r, err := use(t, tools.Deps{Leases: d, Roots: []string{root}, Secrets: func() []string { return []string{"hunter2hunter2"} }}, "fetch_files", `{"lease_id":"abcdefghijkl","paths":["out"]}`)
	require.NoError(t, err)
	tests := fields(t, r)["tests"].(map[string]any)
	require.Equal(t, []any{4.0, 2.0, 1.0}, []any{tests["passed"], tests["failed"], tests["skipped"]})
	require.NotContains(t, tests, "partial")
	require.Len(t, tests["first_failures"], 2)
	require.Contains(t, r.Text, "\ntests: 4 passed, 2 failed, 1 skipped\n")
	require.Contains(t, r.Text, "failed: p.TestB: b_test.go:7: wrong")
	require.NotContains(t, r.Text, "hunter2")

	// A report of which only a part came, or that is too long, says so.
	files = map[string]string{"out/junit.xml": `<testsuites><testsuite>` + strings.Repeat(`<testcase classname="m" name="ok"/>`+strings.Repeat(" ", 10_000), 4_200)}
	require.NoError(t, os.RemoveAll(dir))
	r, err = use(t, tools.Deps{Leases: d, Roots: []string{root}}, "fetch_files", `{"lease_id":"abcdefghijkl","paths":["out"]}`)
	require.NoError(t, err)
	require.Equal(t, true, fields(t, r)["tests"].(map[string]any)["partial"])
}
