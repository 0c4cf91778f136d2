package tools_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// selections are those that an operator can make with one flag.
func selections() map[string]tools.Selection {
	all := map[string]tools.Selection{"all": {}, "read-only": {ReadOnly: true}}
	for _, set := range tools.Toolsets() {
		all["toolset "+set] = tools.Selection{Toolsets: []string{set}}
	}
	for _, tool := range tools.All(tools.Deps{}) {
		all["only "+tool.Name] = tools.Selection{Tools: []string{tool.Name}}
		all["without "+tool.Name] = tools.Selection{Exclude: []string{tool.Name}}
	}
	return all
}

// standings are leases in each state, which say different things about what comes next.
func standings() []lease.Lease {
	var all []lease.Lease
	for _, state := range lease.States() {
		l := ready()
		l.State, l.DecideBy = state, noon
		all = append(all, l)
	}
	approved := waiting()
	approved.ApprovedAt = noon
	return append(all, approved)
}

// ends are jobs as they may stand.
func ends() []remote.Job {
	return []remote.Job{
		exited(0), {ID: jobID, State: remote.Lost}, {ID: jobID, State: remote.Running}, {ID: jobID, State: remote.Running, Hanging: time.Minute},
	}
}

// deskOf is a desk that has a lease and a job as given, with much output or none.
func deskOf(row lease.Lease, job remote.Job) *desk {
	d := &desk{row: row}
	d.warnings = []string{"nobody enforces this lease's deadline at the moment; start gpulease serve, or stop_lease when you are done"}
	d.capacity = offers()
	d.launch = func(context.Context, lease.LaunchRequest) (lease.Lease, error) { return row, nil }
	d.stop = func() (lease.Lease, error) { return row, nil }
	d.extend = func(lease.Extension) (lease.Lease, error) { return row, nil }
	d.list = func(bool, int) ([]lease.Lease, error) { return []lease.Lease{row}, nil }
	d.start = func(remote.Command) (lease.Job, error) { return lease.Job{Lease: row, Job: job}, nil }
	d.looks = []remote.Job{job}
	d.second = "zzzzzzzzzzzz"
	d.jobs = func() ([]remote.Job, error) { return []remote.Job{job}, nil }
	d.spend = func() (lease.Spending, error) { return lease.Spending{Leases: []lease.Lease{row}}, nil }
	d.fetch = func(context.Context, []string, string, remote.FetchOptions) (remote.FetchSummary, error) {
		return remote.FetchSummary{Left: []remote.Left{{Path: "x"}}}, nil
	}
	d.push = func(context.Context, string, string, remote.PushOptions) (remote.PushSummary, error) {
		return remote.PushSummary{}, nil
	}
	d.page = func(_ remote.Stream, offset int64, _ int, _ time.Duration) (remote.Page, error) {
		return remote.Page{Job: job, Data: []byte("x"), Offset: offset, NextOffset: offset + 1, Size: 2}, nil
	}
	d.quote = func(lease.LaunchRequest) (lease.Quote, error) {
		return lease.Quote{TTL: time.Hour, Decision: policy.Decision{Verdict: policy.Deny}}, nil
	}
	d.use = func() (lease.Use, error) { return lease.Use{}, nil }
	d.cancel = func(time.Duration) (remote.Job, error) { return job, nil }
	d.open = func(int, int) (lease.Forward, error) { return lease.Forward{LocalAddr: "127.0.0.1:40001"}, nil }
	d.search = func(remote.Stream, remote.Search) (remote.Found, error) { return remote.Found{Job: job, Size: 1}, nil }
	d.output = func(head, tail int) (o, e remote.Excerpt, err error) {
		return excerptOf(strings.Repeat("line\n", 1<<11), head, tail), excerptOf(strings.Repeat("\x01", 1<<13), head, tail), nil
	}
	return d
}

var toolWord = regexp.MustCompile(`\b[a-z]+_(?:capacity|lease|leases|command|output|job|files|port|report)\b`)

// What an answer advises can be done with the tools that there are, whichever an operator
// has chosen.
func TestNoSelectionNamesAToolThatIsAbsent(t *testing.T) {
	calls := map[string][]string{
		"list_capacity": {`{}`, `{"region":"nowhere"}`, `{"type":"none"}`}, "launch_lease": {`{"type":"gpu_1x_a10"}`, `{"type":"gpu_1x_a10","dry_run":true}`},
		"run_command": {`{"lease_id":"abcdefghijkl","command":"x","wait_seconds":0}`}, "stop_lease": {`{"lease_id":"abcdefghijkl","wait_seconds":0}`},
		"get_lease": {`{"lease_id":"abcdefghijkl"}`}, "list_leases": {`{}`}, "extend_lease": {`{"lease_id":"abcdefghijkl","minutes":5}`},
		"read_output": {`{"job_id":"abcdefghijkl-mnopqrst"}`, `{"job_id":"abcdefghijkl-mnopqrst","pattern":"x"}`},
		"fetch_files": {`{"lease_id":"abcdefghijkl","paths":["out"]}`}, "forward_port": {`{"lease_id":"abcdefghijkl","port":80}`},
		"cancel_job": {`{"job_id":"abcdefghijkl-mnopqrst"}`}, "sync_files": {`{"lease_id":"abcdefghijkl","local_dir":"."}`}, "spend_report": {`{}`},
	}
	root := t.TempDir()
	for name, choice := range selections() {
		t.Run(name, func(t *testing.T) {
			d := &desk{}
			chosen, err := choice.Of(tools.All(tools.Deps{Leases: d, Roots: []string{root}}))
			require.NoError(t, err)
			served := chosen[0].Beside()
			for i, row := range standings() {
				*d = *deskOf(row, ends()[i%len(ends())])
				for _, tool := range chosen {
					for _, args := range calls[tool.Name] {
						r, err := tool.Call(t.Context(), json.RawMessage(args))
						if err != nil {
							var known *lease.Error
							require.True(t, errors.As(err, &known), "%s: %v", tool.Name, err)
							continue
						}
						var said struct {
							Next struct {
								Tool, Text string
							}
							Warnings       []string
							Stdout, Stderr string
						}
						require.NoError(t, json.Unmarshal(r.Structured, &said))
						require.NotEmpty(t, said.Next.Text)
						text := strings.Join(append(said.Warnings, said.Next.Text, said.Next.Tool, said.Stdout, said.Stderr, afterNext(r.Text)), "\n")
						for _, word := range toolWord.FindAllString(text, -1) {
							require.True(t, slices.Contains(served, word) || !isTool(word), "%s of %s names %s: %s", tool.Name, row.State, word, text)
						}
					}
				}
			}
		})
	}
}

func isTool(word string) bool {
	return slices.ContainsFunc(tools.All(tools.Deps{}), func(tool tools.Tool) bool { return tool.Name == word })
}

// afterNext is the next step of a text for people.
func afterNext(text string) string { return text[strings.LastIndex(text, "\nnext: ")+1:] }

// Errors say what to do by name, too.
func TestNoErrorNamesAToolThatIsAbsent(t *testing.T) {
	for name, choice := range selections() {
		chosen, err := choice.Of(tools.All(tools.Deps{}))
		require.NoError(t, err)
		served := chosen[0].Beside()
		for _, code := range []lease.Code{
			lease.CodePolicyDenied, lease.CodeBudgetExceeded, lease.CodeApprovalRequired, lease.CodeFrozen, lease.CodeNoCapacity, lease.CodeQuotaExceeded,
			lease.CodeAccountBlocked, lease.CodeBadAPIKey, lease.CodeCloudUnavailable, lease.CodeRateLimited, lease.CodeLeaseNotFound, lease.CodeLeaseNotReady,
			lease.CodeLeaseEnded, lease.CodeJobNotFound, lease.CodeSSHUnreachable, lease.CodeHostKeyMismatch, lease.CodeGPUUnhealthy, lease.CodeStopUnconfirmed,
			lease.CodeInvalidInput, lease.CodePathDenied, lease.CodeLedgerUnavailable, lease.CodeInternal,
		} {
			next := tools.Served(tools.Explain(&lease.Error{Code: code, Message: "x"}, nil).Next, served)
			require.NotEmpty(t, next)
			for _, word := range toolWord.FindAllString(next, -1) {
				require.True(t, slices.Contains(served, word), fmt.Sprintf("%s: %s names %s: %s", name, code, word, next))
			}
		}
	}
}
