package tools_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

func TestResultsGoBelowTheFirstRoot(t *testing.T) {
	root := t.TempDir()
	var asked lease.LaunchRequest
	d := &desk{row: ready(), launch: func(_ context.Context, r lease.LaunchRequest) (lease.Lease, error) { asked = r; return ready(), nil }}
	d.stop = func() (lease.Lease, error) {
		l := ready()
		l.State = lease.Ended
		l.Rescue = "1 result files (5 bytes) are in x"
		return l, nil
	}
	var named []string
	dir := ""
	d.results = func(paths []string, in string) (lease.Lease, error) { named, dir = paths, in; return ready(), nil }
	deps := tools.Deps{Leases: d, Roots: []string{root, t.TempDir()}}

	_, err := use(t, deps, "launch_lease", `{"type":"a","results":"out"}`)
	require.NoError(t, err)
	require.Equal(t, []string{"out"}, asked.Results)
	require.Equal(t, filepath.Join(root, "results", lease.LeaseInPath), asked.ResultsDir)

	r, err := use(t, deps, "stop_lease", `{"lease_id":"abcdefghijkl","results":["a","b"]}`)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, named)
	require.Equal(t, filepath.Join(root, "results", "abcdefghijkl"), dir)
	require.Equal(t, "1 result files (5 bytes) are in x", fields(t, r)["rescue"])
	require.Contains(t, r.Text, "; before the end: 1 result files")
}

func TestResultsNeedARootThatTheyStayIn(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "results")))
	file := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(file, "results"), nil, 0o600))
	own := t.TempDir()
	for name, deps := range map[string]tools.Deps{
		"no root":                  {},
		"a link out of it":         {Roots: []string{root}},
		"a file":                   {Roots: []string{file}},
		"gpulease's own directory": {Roots: []string{own}, Denied: []string{own}},
	} {
		t.Run(name, func(t *testing.T) {
			deps.Leases = &desk{} // a call of it panics
			for tool, args := range map[string]string{"launch_lease": `{"type":"a","results":["out"]}`, "stop_lease": `{"lease_id":"abcdefghijkl","results":["out"]}`} {
				_, err := use(t, deps, tool, args)
				require.Equal(t, lease.CodePathDenied, lease.CodeOf(err), "%s: %v", tool, err)
			}
		})
	}
}

// What cannot be brought home any more does not keep a lease from its end; a call that
// is wrong does, for nothing is lost by mending it.
func TestResultsThatCannotBeNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		stopped bool
	}{
		"too late":      {&lease.Error{Code: lease.CodeLeaseEnded, Message: "it is ended"}, true},
		"broken ledger": {&lease.Error{Code: lease.CodeLedgerUnavailable, Message: "no ledger"}, true},
		"anything else": {errors.New("boom"), true},
		"a bad path":    {&lease.Error{Code: lease.CodeInvalidInput, Message: "a path is bad"}, false},
		"not from here": {&lease.Error{Code: lease.CodePathDenied, Message: "elsewhere"}, false},
		"no such lease": {&lease.Error{Code: lease.CodeLeaseNotFound, Message: "none"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			stopped := false
			d := &desk{row: ready(), warnings: []string{"w"}, results: func([]string, string) (lease.Lease, error) { return lease.Lease{}, tt.err }}
			d.stop = func() (lease.Lease, error) { stopped = true; l := ready(); l.State = lease.Ended; return l, nil }
			r, err := use(t, tools.Deps{Leases: d, Roots: []string{t.TempDir()}}, "stop_lease", `{"lease_id":"abcdefghijkl","results":["a"]}`)
			require.Equal(t, tt.stopped, stopped)
			require.Equal(t, []string{"w"}, d.warnings)
			if !tt.stopped {
				require.ErrorIs(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Contains(t, r.Text, "warning: the results named now are not brought home: ")
		})
	}
}

func TestGetLeaseShowsTheRescue(t *testing.T) {
	d := &desk{row: ready()}
	d.row.State, d.row.Rescue = lease.Ended, "2 result files (9 bytes) are in /home/me/results/x"
	got, text := answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, d.row.Rescue, got["rescue"])
	require.Contains(t, text, "\nbefore the end: 2 result files")
}

func TestALaunchThatWaitsForAPersonIsASuccess(t *testing.T) {
	row := ready()
	row.State, row.Detail, row.Reserved, row.DecideBy = lease.AwaitingApproval, "waits for a person", 0, noon.Add(time.Hour)
	row.BillingFrom, row.Deadline, row.BootAllowance, row.StopAllowance = time.Time{}, time.Time{}, 15*time.Minute, 12*time.Minute
	d := &desk{launch: func(context.Context, lease.LaunchRequest) (lease.Lease, error) { return row, nil }}
	got, _ := answer(t, d, "launch_lease", `{"type":"a"}`)
	require.Equal(t, "awaiting_approval", got["state"])
	require.Equal(t, 1.8705, got["worst_case_usd"])
	require.Equal(t, `ask a person to run, by 2026-11-23T13:00:00Z: gpulease approve abcdefghijkl (or gpulease deny); get_lease with lease_id "abcdefghijkl" and wait_seconds 45 waits for it`, got["next"])
	row.ApprovedAt = noon
	got, _ = answer(t, d, "launch_lease", `{"type":"a"}`)
	require.Contains(t, got["next"], "it was approved and is about to be launched")
}
