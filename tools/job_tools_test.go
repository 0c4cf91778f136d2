package tools_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

func exited(code int) remote.Job {
	return remote.Job{ID: jobID, State: remote.Exited, ExitCode: code, Reason: remote.ReasonExit, Started: noon, Ended: noon.Add(1234 * time.Millisecond)}
}

func running() remote.Job { return remote.Job{ID: jobID, State: remote.Running, Started: noon} }

// worker runs one command that writes the given streams.
func worker(stdout, stderr string, looks ...remote.Job) *desk {
	d := &desk{row: ready(), looks: looks}
	d.start = func(remote.Command) (lease.Job, error) { return lease.Job{Lease: d.row, Job: running()}, nil }
	d.output = func(head, tail int) (remote.Excerpt, remote.Excerpt, error) {
		return excerptOf(stdout, head, tail), excerptOf(stderr, head, tail), nil
	}
	return d
}

func TestRunCommand(t *testing.T) {
	d := worker("out\n", "err\n", exited(3))
	var command remote.Command
	start := d.start
	d.start = func(c remote.Command) (lease.Job, error) { command = c; return start(c) }
	got, text := answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"make test","cwd":"src","env":{"A":"b"},"timeout_seconds":60}`)
	require.Equal(t, remote.Command{Shell: "make test", Dir: "src", Env: map[string]string{"A": "b"}, Timeout: time.Minute}, command)
	require.Equal(t, map[string]any{
		"job_id": jobID, "state": "exited", "exit_code": 3.0, "reason": "exit", "duration_seconds": 1.23,
		"stdout": "out\n", "stderr": "err\n", "stdout_bytes": 4.0, "stderr_bytes": 4.0, "truncated": false,
		"lease_id": "abcdefghijkl", "lease_state": "ready", "price_usd_per_hour": 1.29, "cost_usd": 0.129,
		"deadline": "2026-11-23T12:55:00Z", "minutes_left": 55.0, "guard": "server 1, seen 2 s ago", "budget_left_usd": 0.0,
		"next": "run_command for more; stop_lease when you are done",
	}, got)
	require.Equal(t, "job "+jobID+": exited, exit code 3, 1.2 s\nstdout:\nout\n\nstderr:\nerr\n\nnext: run_command for more; stop_lease when you are done", text)

	require.Contains(t, failed(t, d, "run_command", `{"lease_id":"abcdefghijkl","cmd":"ls"}`), `there is no argument "cmd"; did you mean "command"?`)
}

func TestACommandThatTakesLongBecomesAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := worker("so far", "", running())
		slow := &slowDesk{desk: d}
		var notes []string
		ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
		defer cancel()
		ctx = tools.WithReporter(ctx, tools.NewReporter(time.Second, func(_ float64, m string) { notes = append(notes, m) }))
		began := time.Now()
		r, err := useIn(ctx, t, tools.Deps{Leases: slow}, "run_command", `{"lease_id":"abcdefghijkl","command":"sleep 1000","wait_seconds":12}`)
		require.NoError(t, err)
		require.Equal(t, 12*time.Second, time.Since(began))
		require.Equal(t, slices.Repeat([]time.Duration{2 * time.Second}, 6), d.waits)
		require.Equal(t, []string{
			"running for 2 s, 0 bytes of output", "running for 4 s, 0 bytes of output", "running for 6 s, 0 bytes of output",
			"running for 8 s, 0 bytes of output", "running for 10 s, 0 bytes of output",
		}, notes)
		got := fields(t, r)
		require.Equal(t, "running", got["state"])
		require.NotContains(t, got, "exit_code")
		require.Equal(t, "so far", got["stdout"])
		require.Equal(t, `read_output with job_id "abcdefghijkl-mnopqrst" and wait_seconds 40 to follow it, cancel_job to end it`, got["next"])
	})
}

// slowDesk takes the time that it is given to wait.
type slowDesk struct{ *desk }

func (s *slowDesk) Job(ctx context.Context, id string, wait time.Duration) (lease.Job, error) {
	time.Sleep(wait)
	return s.desk.Job(ctx, id, wait)
}

func (s *slowDesk) RunCommand(ctx context.Context, id lease.ID, call string, c remote.Command, wait time.Duration, head, tail int) (j lease.Job, o, e remote.Excerpt, err error) {
	time.Sleep(wait)
	return s.desk.RunCommand(ctx, id, call, c, wait, head, tail)
}

func TestWaitSecondsOfRunCommand(t *testing.T) {
	d := worker("", "", running())
	answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x","wait_seconds":0}`)
	require.Empty(t, d.waits)
	require.Contains(t, failed(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x","wait_seconds":46}`), "wait_seconds must be at most 45, but was 46")
}

// Repeating a call whose command was started would start it again.
func TestAnErrorAfterTheStartLeadsToTheJob(t *testing.T) {
	d := worker("", "", remote.Job{}) // Job fails
	text := failed(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"train"}`)
	require.Equal(t, strings.Join([]string{
		"error ssh_unreachable: job abcdefghijkl-mnopqrst may have been started: the machine does not answer",
		`next: read_output with job_id "abcdefghijkl-mnopqrst" says whether it was, or that there is no such job`,
		"retryable: yes", "lease: abcdefghijkl",
	}, "\n"), text)

	d = worker("", "", running(), remote.Job{}) // it fails later
	text = failed(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"train"}`)
	require.Equal(t, strings.Join([]string{
		"error ssh_unreachable: job abcdefghijkl-mnopqrst was started, but then: the machine does not answer",
		`next: do not start it again: read_output with job_id "abcdefghijkl-mnopqrst" shows what it does`,
		"retryable: yes", "lease: abcdefghijkl",
	}, "\n"), text)

	d.start = func(remote.Command) (lease.Job, error) {
		return lease.Job{}, &lease.Error{Code: lease.CodeLeaseNotReady, Message: "the lease is booting", Retryable: true}
	}
	text = failed(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"train"}`)
	require.Contains(t, text, "error lease_not_ready: the lease is booting\n")
	require.Contains(t, text, "\nlease: abcdefghijkl")
}

func TestLongOutputIsShortenedInTheMiddle(t *testing.T) {
	long := strings.Repeat("a", 3000) + strings.Repeat("z", 3000)
	d := worker(long, "short", exited(0))
	got, _ := answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.Equal(t, true, got["truncated"])
	require.Equal(t, 6000.0, got["stdout_bytes"])
	require.Equal(t, strings.Repeat("a", 1024)+
		"\n[... 1904 bytes left out; read_output with stream \"stdout\" and offset 1024 shows them ...]\n"+
		strings.Repeat("z", 3000)[:3000], strings.ReplaceAll(got["stdout"].(string), strings.Repeat("a", 72)+"z", "z"))
	require.Equal(t, "short", got["stderr"])
	require.Contains(t, got["next"], "shows what was left out")
	require.NotContains(t, got, "warnings")
}

func TestTextIsAlwaysUTF8AndSaysSo(t *testing.T) {
	// Cuts through a character are ours and need no warning.
	d := worker(strings.Repeat("é€😀", 1000), "", exited(0))
	got, _ := answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.NotContains(t, got["stdout"], "\uFFFD")
	require.NotContains(t, got, "warnings")
	head, rest, found := strings.Cut(got["stdout"].(string), "\n[... ")
	require.True(t, found)
	mark, tail, _ := strings.Cut(rest, " ...]\n")
	require.Equal(t, fmt.Sprintf("%d bytes left out; read_output with stream \"stdout\" and offset %d shows them", 9000-len(head)-len(tail), len(head)), mark)

	d = worker("ok \xff\xfe", "bad \xc3", exited(0))
	got, _ = answer(t, d, "run_command", `{"lease_id":"abcdefghijkl","command":"x"}`)
	require.Equal(t, "ok \uFFFD", got["stdout"])
	require.Equal(t, []any{"some bytes of stdout are not UTF-8 and are shown as \uFFFD", "some bytes of stderr are not UTF-8 and are shown as \uFFFD"}, got["warnings"])
}

// pages serves a stream as the machine does.
func pages(all []byte, job remote.Job) *desk {
	d := &desk{row: ready()}
	d.page = func(_ remote.Stream, offset int64, limit int, _ time.Duration) (remote.Page, error) {
		size := int64(len(all))
		if offset < 0 {
			offset = max(0, size+offset)
		}
		offset = min(offset, size)
		end := min(size, offset+int64(limit))
		return remote.Page{Data: all[offset:end], Offset: offset, NextOffset: end, Size: size, EOF: job.Over() && end == size, Job: job}, nil
	}
	return d
}

func TestReadOutput(t *testing.T) {
	job := exited(1)
	job.StderrBytes = 5
	d := pages([]byte(strings.Repeat("0123456789", 2000)), job)
	got, text := answer(t, d, "read_output", `{"job_id":"abcdefghijkl-mnopqrst"}`)
	require.Len(t, got["data"], 8000)
	require.Equal(t, "stdout", got["stream"])
	require.Equal(t, 8000.0, got["next_offset"])
	require.Equal(t, 20000.0, got["size_bytes"])
	require.Equal(t, false, got["eof"])
	require.Equal(t, 1.0, got["exit_code"])
	require.Equal(t, `read_output with job_id "abcdefghijkl-mnopqrst", stream stdout and offset 8000 for more`, got["next"])
	require.Contains(t, text, "stdout bytes 0 to 8000 of 20000\n0123456789")

	got, _ = answer(t, d, "read_output", `{"job_id":"abcdefghijkl-mnopqrst","offset":-5,"limit_bytes":"100"}`)
	require.Equal(t, "56789", got["data"])
	require.Equal(t, 19995.0, got["offset"])
	require.Equal(t, true, got["eof"])
	require.Equal(t, `read_output with job_id "abcdefghijkl-mnopqrst", stream stderr and offset -4000 for its errors`, got["next"])
	got, _ = answer(t, pages([]byte("FAIL\n"), exited(1)), "read_output", `{"job_id":"abcdefghijkl-mnopqrst"}`)
	require.Equal(t, "that was all; run_command to go on, stop_lease when you are done", got["next"], "it has written no errors to read")

	d = pages([]byte("x"), running())
	got, _ = answer(t, d, "read_output", `{"job_id":"abcdefghijkl-mnopqrst","stream":"stderr","offset":1,"wait_seconds":5}`)
	require.Empty(t, got["data"])
	require.Equal(t, `read_output with job_id "abcdefghijkl-mnopqrst", stream stderr, offset 1 and wait_seconds 40 for what comes`, got["next"])
}

// Whatever the bytes and the size of a page, a reader who follows next_offset
// comes to the end and has seen everything, with no character torn apart.
func TestPagingLosesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "é", "€", "😀", "\xff", "\xe2\x82", "\n"}
	d := &desk{row: ready()}
	tool := toolOf(t, tools.Deps{Leases: d}, "read_output")
	for range 300 {
		var all strings.Builder
		clean := true
		for range random.IntN(200) {
			piece := alphabet[random.IntN(len(alphabet))]
			clean = clean && piece != "\xff" && piece != "\xe2\x82"
			all.WriteString(piece)
		}
		limit := 16 + random.IntN(20)
		d.page = pages([]byte(all.String()), exited(0)).page
		var read strings.Builder
		for offset, turns := int64(0), 0; ; turns++ {
			require.Less(t, turns, 1000, "the reader does not get on")
			r, err := tool.Call(t.Context(), fmt.Appendf(nil, `{"job_id":"abcdefghijkl-mnopqrst","offset":%d,"limit_bytes":%d}`, offset, limit))
			require.NoError(t, err)
			got := fields(t, r)
			read.WriteString(got["data"].(string))
			offset = int64(got["next_offset"].(float64))
			if got["eof"] == true {
				break
			}
		}
		if clean {
			require.Equal(t, all.String(), read.String())
		} else {
			require.Equal(t, strings.Count(all.String(), "😀"), strings.Count(read.String(), "😀"))
		}
	}
}

func TestCancelJob(t *testing.T) {
	d := &desk{row: ready()}
	var grace time.Duration
	d.cancel = func(g time.Duration) (remote.Job, error) {
		grace = g
		j := exited(143)
		j.Signal, j.Reason = "SIGTERM", remote.ReasonCancelled
		return j, nil
	}
	got, text := answer(t, d, "cancel_job", `{"job_id":"abcdefghijkl-mnopqrst"}`)
	require.Equal(t, 5*time.Second, grace)
	require.Equal(t, "cancelled", got["reason"])
	require.Equal(t, "SIGTERM", got["signal"])
	require.Contains(t, text, "exited, exit code 143, SIGTERM, cancelled, 1.2 s")
	answer(t, d, "cancel_job", `{"job_id":"abcdefghijkl-mnopqrst","grace_seconds":0}`)
	require.Zero(t, grace)
}

func TestSyncFilesStaysWithinItsRoots(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, dir := range []string{filepath.Join(root, "project"), filepath.Join(base, "rootlike"), outside} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "escape")))
	require.NoError(t, os.Symlink(filepath.Join(root, "project"), filepath.Join(root, "alias")))
	require.NoError(t, os.Symlink(root, filepath.Join(base, "linked")))

	for name, tc := range map[string]struct {
		dir, want string // the directory that is sent
		code      string // or the error
	}{
		"relative":              {dir: "project", want: filepath.Join(root, "project")},
		"the root itself":       {dir: ".", want: root},
		"absolute":              {dir: filepath.Join(root, "project"), want: filepath.Join(root, "project")},
		"a link inside":         {dir: "alias", want: filepath.Join(root, "project")},
		"above":                 {dir: "..", code: "path_denied"},
		"a neighbour":           {dir: filepath.Join(base, "rootlike"), code: "path_denied"},
		"a link out":            {dir: "escape", code: "path_denied"},
		"below a link out":      {dir: "escape/.", code: "path_denied"},
		"absent inside":         {dir: "nothing", code: "invalid_input"},
		"absent outside":        {dir: filepath.Join(outside, "nothing"), code: "path_denied"},
		"a file":                {dir: "file", code: "invalid_input"},
		"the root through link": {dir: filepath.Join(base, "linked"), want: root},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{row: ready()}
			var src, dst string
			d.push = func(_ context.Context, s, to string, _ remote.PushOptions) (remote.PushSummary, error) {
				src, dst = s, to
				return remote.PushSummary{}, nil
			}
			r, err := use(t, tools.Deps{Leases: d, Roots: []string{root}}, "sync_files", fmt.Sprintf(`{"lease_id":"abcdefghijkl","local_dir":%q}`, tc.dir))
			if tc.code != "" {
				require.Error(t, err)
				require.Equal(t, tc.code, string(lease.CodeOf(err)))
				require.Empty(t, src, "something was sent")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, src)
			require.Equal(t, filepath.Base(tc.want), dst)
			require.Equal(t, fmt.Sprintf("run_command with lease_id %q and cwd %q", leaseID, dst), fields(t, r)["next"])
		})
	}

	_, err = use(t, tools.Deps{Leases: &desk{row: ready()}, Roots: []string{root}}, "sync_files", `{"lease_id":"abcdefghijkl","local_dir":"nothing"}`)
	var absent *lease.Error
	require.ErrorAs(t, err, &absent)
	require.Equal(t, "looked for at "+filepath.Join(root, "nothing"), absent.Why)
	_, err = use(t, tools.Deps{Leases: &desk{row: ready()}}, "sync_files", `{"lease_id":"abcdefghijkl","local_dir":"."}`)
	require.Equal(t, lease.CodePathDenied, lease.CodeOf(err), "without roots there is no access")

	d := &desk{row: ready(), push: func(context.Context, string, string, remote.PushOptions) (remote.PushSummary, error) {
		return remote.PushSummary{}, nil
	}}
	linked := filepath.Join(base, "linked")
	r, err := use(t, tools.Deps{Leases: d, Roots: []string{linked}}, "sync_files", `{"lease_id":"abcdefghijkl","local_dir":"project","remote_dir":"/srv/p"}`)
	require.NoError(t, err, "a root may itself be a link")
	require.Equal(t, "/srv/p", fields(t, r)["remote_dir"])
}

func TestSyncFiles(t *testing.T) {
	var skipped []remote.Skipped
	for i := range 25 {
		skipped = append(skipped, remote.Skipped{Path: fmt.Sprint("pipe", i), Reason: "a pipe"})
	}
	d := &desk{row: ready(), push: func(_ context.Context, _, _ string, o remote.PushOptions) (remote.PushSummary, error) {
		require.True(t, o.Delete)
		require.Equal(t, 5, o.MaxDelete)
		return remote.PushSummary{Files: 40, Sent: 3, SentBytes: 1234, Deleted: 2, Skipped: skipped}, nil
	}}
	r, err := use(t, tools.Deps{Leases: d, Roots: []string{t.TempDir()}}, "sync_files", `{"lease_id":"abcdefghijkl","local_dir":".","remote_dir":"p","delete":true,"max_delete":5}`)
	require.NoError(t, err)
	got := fields(t, r)
	require.Equal(t, []any{true, "p", 40.0, 3.0, 1234.0, 2.0}, []any{got["complete"], got["remote_dir"], got["files"], got["files_sent"], got["bytes_sent"], got["files_deleted"]})
	require.Len(t, got["skipped"], 20)
	require.Equal(t, "pipe0: a pipe", got["skipped"].([]any)[0])
	require.Equal(t, []any{"25 files not sent; see skipped"}, got["warnings"])
	shown := r.Text[:strings.Index(r.Text, "\nskipped: pipe0: a pipe, pipe1: a pipe, ")] + r.Text[strings.Index(r.Text, "\nwarning: "):]
	require.Equal(t, "3 files (1234 bytes) sent to p, 2 deleted there\nwarning: 25 files not sent; see skipped\nnext: run_command with lease_id \"abcdefghijkl\" and cwd \"p\"", shown)
}

// A directory that takes longer than a call is sent in several. What counts is what
// stays on the machine: whole archives of small files, and parts of large ones.
func TestALargeSyncGoesOnWithTheNextCall(t *testing.T) {
	for name, tc := range map[string]struct {
		placed int
		notes  [][2]int // files and bytes
		warn   string
		code   string
		silent time.Duration
		why    string
	}{
		"some files are in place":   {placed: 7, notes: [][2]int{{7, 700}}},
		"a large one is under way":  {notes: [][2]int{{0, 8 << 20}, {0, 16 << 20}}, warn: "16777216 bytes of parts"},
		"an archive is not through": {notes: [][2]int{{1, 100}, {2, 200}}, code: "ssh_unreachable"},
		"nothing went out":          {code: "ssh_unreachable", why: "the connection is slow, or was away"},
		"the machine is silent":     {code: "ssh_unreachable", silent: 38 * time.Second, why: "the machine was last heard 38s ago"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				d := &desk{row: ready(), push: func(ctx context.Context, _, _ string, o remote.PushOptions) (remote.PushSummary, error) {
					for _, n := range tc.notes {
						o.Progress(n[0], int64(n[1]))
					}
					<-ctx.Done()
					cause := ctx.Err()
					if tc.silent > 0 {
						cause = errors.Join(cause, &remote.SilentError{For: tc.silent})
					}
					return remote.PushSummary{Files: 40, Sent: tc.placed}, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "cut", Err: cause}
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
				defer cancel()
				r, err := useIn(ctx, t, tools.Deps{Leases: d, Roots: []string{root}}, "sync_files", `{"lease_id":"abcdefghijkl","local_dir":"."}`)
				if tc.code != "" {
					require.Equal(t, tc.code, string(lease.CodeOf(err)))
					if tc.why != "" {
						var said *lease.Error
						require.ErrorAs(t, err, &said)
						require.Equal(t, tc.why, said.Why)
						require.Equal(t, tc.silent > 0, strings.Contains(said.Next, "stop_lease gives it up"), said.Next)
					}
					return
				}
				require.NoError(t, err)
				got := fields(t, r)
				require.Equal(t, false, got["complete"])
				require.Equal(t, float64(tc.placed), got["files_sent"])
				require.Equal(t, "sync_files with the same arguments: it goes on with what is missing", got["next"])
				require.Contains(t, r.Text, "NOT YET ALL")
				require.Contains(t, r.Text, tc.warn)
			})
		})
	}
}

func TestSyncFilesNeverSendsItsOwnState(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	state := filepath.Join(root, "home", "state")
	for _, dir := range []string{"home/state/keys", "home/state2", "other"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	require.NoError(t, os.Symlink(state, filepath.Join(root, "alias")))
	denied := []string{filepath.Join(root, "alias"), filepath.Join(root, "absent")}
	for dir, want := range map[string]string{
		"home/state": "denied", "home/state/keys": "denied", "alias": "denied",
		"home/state2": "sent", "other": "sent", "home": "warned", ".": "warned",
	} {
		pushed := false
		d := &desk{row: ready(), push: func(_ context.Context, _, _ string, o remote.PushOptions) (remote.PushSummary, error) {
			pushed = true
			require.Equal(t, denied, o.Exclude)
			return remote.PushSummary{}, nil
		}}
		r, err := use(t, tools.Deps{Leases: d, Roots: []string{root}, Denied: denied}, "sync_files", fmt.Sprintf(`{"lease_id":"abcdefghijkl","local_dir":%q}`, dir))
		if want == "denied" {
			require.Equal(t, lease.CodePathDenied, lease.CodeOf(err), dir)
			require.False(t, pushed, dir)
			continue
		}
		require.NoError(t, err, dir)
		require.True(t, pushed, dir)
		require.Equal(t, want == "warned", strings.Contains(r.Text, "left out: "+state), dir)
	}
}
