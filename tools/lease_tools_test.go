package tools_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

func offers() lease.Capacity {
	return lease.Capacity{AsOf: noon, BudgetLeft: 25 * policy.Dollar, Offers: []lease.Offer{
		{Type: "cpu_4x", Regions: []string{"us-east-1"}, Price: 100_000, Allowed: true, LongestTTL: time.Hour},
		{Type: "gpu_1x_a10", GPU: "A10 (24 GB)", GPUs: 1, VRAMGiB: 24, Regions: []string{"us-east-1", "us-west-1"}, Price: 1_290_000, Allowed: true, LongestTTL: 8 * time.Hour},
		{Type: "gpu_8x_h100", GPUs: 8, VRAMGiB: 640, Regions: []string{"us-west-1"}, Price: 23_920_000, Rule: "max_price_per_hour = $10.00 (default)"},
		{Type: "gpu_1x_h100", GPUs: 1, VRAMGiB: 80, Price: 3_290_000, Allowed: true, LongestTTL: time.Hour},
	}}
}

func TestListCapacity(t *testing.T) {
	for name, tc := range map[string]struct {
		args  string
		types []any
		next  string
	}{
		"free now":      {`{}`, []any{"cpu_4x", "gpu_1x_a10", "gpu_8x_h100"}, `launch_lease with type "gpu_1x_a10" (dry_run: true quotes without launching)`},
		"all":           {`{"include_unavailable":true}`, []any{"cpu_4x", "gpu_1x_a10", "gpu_8x_h100", "gpu_1x_h100"}, `launch_lease with type "gpu_1x_a10" (dry_run: true quotes without launching)`},
		"by memory":     {`{"min_vram_gib":48}`, []any{"gpu_8x_h100"}, "none of these can be launched now: see rule and regions; ask a person to change the policy, or try again in a few minutes"},
		"by region":     {`{"region":"us-west-1"}`, []any{"gpu_1x_a10", "gpu_8x_h100"}, `launch_lease with type "gpu_1x_a10" (dry_run: true quotes without launching)`},
		"nothing there": {`{"region":"nowhere"}`, nil, `list_capacity without region: nothing is free in a region called "nowhere"; there is capacity in us-east-1, us-west-1`},
		"too large":     {`{"min_vram_gib":9999,"region":"us-west-1"}`, nil, "list_capacity with fewer conditions, or again in a few minutes: capacity comes and goes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{capacity: offers()}
			got, _ := answer(t, d, "list_capacity", tc.args)
			var types []any
			for _, o := range got["offers"].([]any) {
				types = append(types, o.(map[string]any)["instance_type"])
			}
			require.Equal(t, tc.types, types)
			require.Equal(t, tc.next, got["next"])
			require.Equal(t, 25.0, got["budget_left_usd"])
		})
	}

	d := &desk{capacity: offers()}
	got, text := answer(t, d, "list_capacity", `{"region":"us-west-1"}`)
	require.Equal(t, map[string]any{
		"instance_type": "gpu_1x_a10", "gpu": "A10 (24 GB)", "gpus": 1.0, "vram_gib": 24.0, "regions": []any{"us-west-1"},
		"price_usd_per_hour": 1.29, "allowed": true, "longest_ttl_minutes": 480.0,
	}, got["offers"].([]any)[0])
	require.Equal(t, "2 machine types, budget left $25.00\n"+
		"gpu_1x_a10 $1.29/h, us-west-1; allowed up to 480 min\n"+
		"gpu_8x_h100 $23.92/h, us-west-1; denied: max_price_per_hour = $10.00 (default)\n"+
		`next: launch_lease with type "gpu_1x_a10" (dry_run: true quotes without launching)`, text)
	require.Equal(t, []string{"us-east-1", "us-west-1"}, d.capacity.Offers[1].Regions, "the answer changed what others share")

	d.capacity.Offers[3].LongestTTL = 0
	_, text = answer(t, d, "list_capacity", `{"include_unavailable":true}`)
	require.Contains(t, text, "not free now; allowed\n", "of what has no region the longest TTL is not known, and not 0")

	d.capacity.BudgetLeft = policy.Unlimited
	got, _ = answer(t, d, "list_capacity", `{}`)
	require.NotContains(t, got, "budget_left_usd", "no budget is not a number")
}

func TestLaunchLease(t *testing.T) {
	var asked lease.LaunchRequest
	row := ready()
	row.State, row.Detail, row.ReadyAt = lease.Booting, "launched; waiting for its address", time.Time{}
	d := &desk{budget: 20 * policy.Dollar, launch: func(_ context.Context, r lease.LaunchRequest) (lease.Lease, error) {
		asked = r
		return row, nil
	}}
	got, text := answer(t, d, "launch_lease", `{"type":"gpu_1x_a10","region":"us-east-1","ttl_minutes":"60","purpose":"test"}`)
	require.Equal(t, lease.LaunchRequest{Elsewhere: true, Type: "gpu_1x_a10", Region: "us-east-1", TTL: time.Hour, Purpose: "test"}, asked)
	require.Equal(t, map[string]any{
		"lease_id": "abcdefghijkl", "state": "booting", "detail": "launched; waiting for its address", "instance_type": "gpu_1x_a10", "region": "us-east-1",
		"price_usd_per_hour": 1.29, "cost_usd": 0.129, "reserved_usd": 1.0, "deadline": "2026-11-23T12:55:00Z", "minutes_left": 55.0,
		"guard": "server 1, seen 2 s ago", "ttl_minutes": 60.0, "budget_left_usd": 20.0,
		"next": `get_lease with lease_id "abcdefghijkl" and wait_seconds 45 until its state is ready; stop_lease to give up`,
	}, got)
	require.Equal(t, "abcdefghijkl gpu_1x_a10 in us-east-1: booting, $0.129 so far at $1.29/h, 55 min left (2026-11-23T12:55:00Z); launched; waiting for its address\n"+
		`next: get_lease with lease_id "abcdefghijkl" and wait_seconds 45 until its state is ready; stop_lease to give up`, text)

	require.Contains(t, failed(t, d, "launch_lease", `{"type":"gpu_1x_a10","ttl_minutes":0}`), "error invalid_input: ttl_minutes must be at least 1, but was 0")
	require.Contains(t, failed(t, d, "launch_lease", `{"instance_type":"gpu_1x_a10"}`), `error invalid_input: there is no argument "instance_type"; did you mean "type"?`)
}

// A host that sends a call again must not get a second machine.
func TestLaunchIsIdempotentPerCall(t *testing.T) {
	for name, tc := range map[string]struct{ call, args, want string }{
		"the host's id":       {"toolu_1", `{"type":"a"}`, "call toolu_1"},
		"the agent's own key": {"toolu_1", `{"type":"a","idempotency_key":"k"}`, "k"},
		"neither":             {"", `{"type":"a"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var key string
			d := &desk{launch: func(_ context.Context, r lease.LaunchRequest) (lease.Lease, error) {
				key = r.IdempotencyKey
				return ready(), nil
			}}
			_, err := useIn(tools.WithCallID(t.Context(), tc.call), t, tools.Deps{Leases: d}, "launch_lease", tc.args)
			require.NoError(t, err)
			require.Equal(t, tc.want, key)
		})
	}
}

func TestNoErrorAfterALaunchHidesTheLease(t *testing.T) {
	for name, cause := range map[string]error{
		"a known error":   &lease.Error{Code: lease.CodeLedgerUnavailable, Message: "the ledger could not be read", Retryable: true},
		"an unknown one":  errors.New("boom"),
		"one that has it": &lease.Error{Code: lease.CodeInternal, Message: "x", LeaseID: leaseID},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{launch: func(context.Context, lease.LaunchRequest) (lease.Lease, error) { return ready(), cause }}
			require.Contains(t, failed(t, d, "launch_lease", `{"type":"a"}`), "\nlease: abcdefghijkl")
		})
	}
	d := &desk{launch: func(context.Context, lease.LaunchRequest) (lease.Lease, error) {
		return lease.Lease{}, &lease.Error{Code: lease.CodePolicyDenied, Message: "no"}
	}}
	require.NotContains(t, failed(t, d, "launch_lease", `{"type":"a"}`), "lease:")
}

// A launch call that hangs leaves time to say which lease it is about.
func TestALaunchThatTakesLongAnswersInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{launch: func(ctx context.Context, _ lease.LaunchRequest) (lease.Lease, error) {
			<-ctx.Done()
			row := ready()
			row.State = lease.Launching
			return row, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
		defer cancel()
		began := time.Now()
		r, err := useIn(ctx, t, tools.Deps{Leases: d}, "launch_lease", `{"type":"a"}`)
		require.NoError(t, err)
		require.Equal(t, 40*time.Second, time.Since(began))
		require.Equal(t, "launching", fields(t, r)["state"])
		require.NotContains(t, fields(t, r), "warnings")
	})
}

func TestDryRunLaunchesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		decision policy.Decision
		next     string
	}{
		"allow": {
			policy.Decision{Verdict: policy.Allow, WorstCase: 1_870_000, BudgetLeft: 50 * policy.Dollar},
			"launch_lease with the same arguments and without dry_run; this was a quote, nothing was launched",
		},
		"deny": {
			policy.Decision{
				Verdict: policy.Deny, WorstCase: 1_870_000, BudgetLeft: policy.Dollar,
				Violations: []policy.Violation{{Rule: "caps.per_day", Code: policy.CodeBudgetExceeded, Message: "too much", Source: "default"}},
				Nearest:    &policy.Nearest{Type: "gpu_1x_a10", Region: "us-east-1", TTL: 20 * time.Minute, WorstCase: 990_000},
			},
			`launch_lease with type "gpu_1x_a10", region "us-east-1" and ttl_minutes 20 would pass ($0.99 at most)`,
		},
		"ask": {
			policy.Decision{Verdict: policy.Ask, WorstCase: 1_870_000, BudgetLeft: policy.Dollar, ApprovalRule: "approve_above $1.00 (default)"},
			"list_capacity shows what is allowed; only a person can change the policy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{quote: func(r lease.LaunchRequest) (lease.Quote, error) {
				require.Equal(t, lease.LaunchRequest{Elsewhere: true, Type: "gpu_1x_a10", TTL: time.Hour}, r)
				return lease.Quote{Offer: lease.Offer{Type: "gpu_1x_a10", Price: 1_290_000}, Regions: []string{"us-east-1", "us-west-1"}, TTL: time.Hour, Decision: tc.decision}, nil
			}}
			got, text := answer(t, d, "launch_lease", `{"type":"gpu_1x_a10","ttl_minutes":60,"dry_run":true}`)
			require.Equal(t, name, got["decision"])
			require.Equal(t, 1.87, got["worst_case_usd"])
			require.Equal(t, "us-east-1 or us-west-1", got["region"])
			require.Equal(t, tc.decision.Explain(), got["why"])
			require.Equal(t, tc.next, got["next"])
			require.NotContains(t, got, "lease_id")
			require.Contains(t, text, "quote for gpu_1x_a10, 60 min: "+name+", at most $1.87\n")
		})
	}
}

func TestGetLeaseWaitsForWhatTheAgentCanUse(t *testing.T) {
	in := func(s lease.State) lease.Lease { l := ready(); l.State = s; return l }
	for name, tc := range map[string]struct {
		first lease.State
		then  []lease.State
		want  string
	}{
		"launching passes through booting": {lease.Launching, []lease.State{lease.Booting, lease.Ready}, "ready"},
		"a boot that fails":                {lease.Booting, []lease.State{lease.Stopping, lease.Ended}, "stopping"},
		"a stop until it is confirmed":     {lease.Stopping, []lease.State{lease.Ended}, "ended"},
		"a ready lease until it changes":   {lease.Ready, []lease.State{lease.Ready, lease.Stopping}, "stopping"},
		"a queue until it moves":           {lease.WaitingCapacity, []lease.State{lease.Launching, lease.Ready}, "launching"},
		"an ended lease does not wait":     {lease.Ended, []lease.State{lease.Ready}, "ended"},
		"nothing happens":                  {lease.Booting, nil, "booting"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{row: in(tc.first), jobs: func() ([]remote.Job, error) { return nil, nil }}
			for _, s := range tc.then {
				d.then = append(d.then, in(s))
			}
			got, _ := answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl","wait_seconds":20}`)
			require.Equal(t, tc.want, got["state"])
			if tc.first != lease.Ended {
				require.Equal(t, []time.Duration{20 * time.Second}, d.waits)
			}
		})
	}
	d := &desk{row: in(lease.Booting)}
	answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Empty(t, d.waits, "nobody asked to wait")
	require.Contains(t, failed(t, d, "get_lease", `{"lease_id":"aaaaaaaaaaaa"}`), "error lease_not_found: ")
}

func TestWaitingShowsProgress(t *testing.T) {
	d := &desk{row: ready()}
	d.row.State, d.row.Detail = lease.Booting, "waiting for SSH"
	var notes []string
	ctx := tools.WithReporter(t.Context(), tools.NewReporter(0, func(_ float64, m string) { notes = append(notes, m) }))
	_, err := useIn(ctx, t, tools.Deps{Leases: d}, "get_lease", `{"lease_id":"abcdefghijkl","wait_seconds":20}`)
	require.NoError(t, err)
	require.Equal(t, []string{"booting: waiting for SSH"}, notes)
}

func TestGetLeaseShowsJobs(t *testing.T) {
	d := &desk{row: ready(), warnings: []string{"the deadline is near"}}
	d.jobs = func() ([]remote.Job, error) {
		list := []remote.Job{{ID: "old", State: remote.Exited, ExitCode: 2, Reason: remote.ReasonExit, Command: "make\ntest", Started: noon.Add(-time.Hour)}}
		for i := range 25 {
			list = append(list, remote.Job{ID: jobID, State: remote.Running, Command: "sleep", Started: noon.Add(time.Duration(i) * time.Second), StdoutBytes: int64(i)})
		}
		return list, nil
	}
	got, text := answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	jobs := got["jobs"].([]any)
	require.Len(t, jobs, 20)
	require.Equal(t, map[string]any{
		"job_id": jobID, "state": "running", "command": "sleep", "started_at": "2026-11-23T12:00:24Z", "stdout_bytes": 24.0, "stderr_bytes": 0.0,
	}, jobs[0], "the newest first; no exit code where there is none")
	require.Equal(t, "test", got["purpose"])
	require.Equal(t, "2026-11-23T11:55:00Z", got["ready_at"])
	require.Contains(t, text, "\nwarning: the deadline is near\nnext: ")

	d.jobs = func() ([]remote.Job, error) {
		return nil, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "the machine does not answer"}
	}
	got, _ = answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, []any{"the deadline is near", "its jobs could not be listed: the machine does not answer"}, got["warnings"])
	require.Equal(t, []string{"the deadline is near"}, d.warnings)
	require.Equal(t, `get_lease with lease_id "abcdefghijkl" and wait_seconds 45 says whether it comes back; stop_lease gives it up`, got["next"], "not work on what does not answer")

	d.jobs = func() ([]remote.Job, error) {
		return nil, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "the machine does not answer; the deadline is near"}
	}
	got, _ = answer(t, d, "get_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, []any{"the deadline is near", "its jobs could not be listed: the machine does not answer"}, got["warnings"], "nothing is said twice")
}

func TestListLeases(t *testing.T) {
	older, newer := ready(), ready()
	older.ID, older.CreatedAt = "aaaaaaaaaaaa", noon.Add(-time.Hour)
	over := ready()
	over.State, over.Reason, over.Cost = lease.Ended, lease.Stopped, 500_000
	for name, tc := range map[string]struct {
		args  string
		live  bool
		limit int
	}{
		"alive":  {`{}`, true, 20},
		"all":    {`{"include_ended":true}`, false, 20},
		"ten":    {`{"limit":10}`, true, 10},
		"string": {`{"limit":"10"}`, true, 10},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{warnings: []string{"careful"}, budget: policy.Dollar, list: func(live bool, limit int) ([]lease.Lease, error) {
				require.Equal(t, tc.live, live)
				require.Equal(t, tc.limit, limit)
				return []lease.Lease{older, newer, over}, nil
			}}
			got, text := answer(t, d, "list_leases", tc.args)
			list := got["leases"].([]any)
			require.Equal(t, "abcdefghijkl", list[0].(map[string]any)["lease_id"], "newest first")
			require.Equal(t, "aaaaaaaaaaaa", list[2].(map[string]any)["lease_id"])
			require.Equal(t, 2.58, got["total_usd_per_hour"], "of those that are not over")
			require.Equal(t, []any{"abcdefghijkl, abcdefghijkl, aaaaaaaaaaaa: careful"}, got["warnings"], "each text once")
			require.Contains(t, text, "\nabcdefghijkl gpu_1x_a10 in us-east-1: ended (stopped), cost $0.50; ready\n")
			require.Contains(t, text, "3 leases, $2.58/h together\n")
			require.NotContains(t, list[1], "deadline", "an ended lease has none")
		})
	}
	d := &desk{list: func(bool, int) ([]lease.Lease, error) { return nil, nil }}
	got, _ := answer(t, d, "list_leases", `{}`)
	require.Empty(t, got["leases"])
	require.Equal(t, "list_capacity, then launch_lease for a machine", got["next"])
	asked := lease.Lease{ID: "abcdefghijkl", State: lease.AwaitingApproval, DecideBy: noon}
	d.list = func(bool, int) ([]lease.Lease, error) { return []lease.Lease{asked}, nil }
	got, _ = answer(t, d, "list_leases", `{}`)
	require.Contains(t, got["next"], "gpulease approve abcdefghijkl", "not another launch beside the one that waits")
}

func TestStopLease(t *testing.T) {
	stopping, ended := ready(), ready()
	stopping.State, stopping.Reason, stopping.Detail = lease.Stopping, lease.Stopped, "the cloud has accepted the stop; not yet confirmed"
	ended.State, ended.Reason, ended.Detail = lease.Ended, lease.Stopped, "the cloud shows it as terminated"
	ended.Cost, ended.Reserved, ended.GoneAt, ended.EndedAt = 150_500, 0, noon.Add(30*time.Second), noon.Add(time.Minute)

	d := &desk{row: stopping, then: []lease.Lease{ended}, stop: func() (lease.Lease, error) { return stopping, nil }}
	got, text := answer(t, d, "stop_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, []time.Duration{40 * time.Second}, d.waits, "it waits for the confirmation by itself")
	require.Equal(t, "ended", got["state"])
	require.Equal(t, true, got["confirmed"])
	require.Equal(t, "stopped", got["reason"])
	require.Equal(t, 390.0, got["billed_seconds"], "from the first sign of billing to the confirmed end")
	require.Equal(t, 0.1505, got["cost_usd"])
	require.Equal(t, 0.0, got["reserved_usd"])
	require.Equal(t, "ended (stopped): abcdefghijkl, 390 s, billed as 7 min, at $1.29/h cost $0.1505\nnext: nothing; launch_lease for a new machine", text)

	d = &desk{row: stopping, stop: func() (lease.Lease, error) { return stopping, nil }, warnings: []string{"stop not confirmed yet"}}
	got, text = answer(t, d, "stop_lease", `{"lease_id":"abcdefghijkl","wait_seconds":5}`)
	require.Equal(t, []time.Duration{5 * time.Second}, d.waits)
	require.Equal(t, false, got["confirmed"])
	require.NotContains(t, got, "billed_seconds")
	require.Equal(t, `stop_lease with lease_id "abcdefghijkl" again until its state is ended`, got["next"])
	require.Contains(t, text, "STOP NOT CONFIRMED, money is still being spent: ")
	require.Contains(t, text, "\nwarning: stop not confirmed yet\n")
	require.NotContains(t, text, "min left", "it looked as if the machine were still of use")

	d.waits = nil
	answer(t, d, "stop_lease", `{"lease_id":"abcdefghijkl","wait_seconds":0}`)
	require.Empty(t, d.waits)

	unsent := ended
	unsent.BillingFrom, unsent.GoneAt, unsent.Cost = time.Time{}, time.Time{}, 0
	d = &desk{row: unsent, stop: func() (lease.Lease, error) { return unsent, nil }}
	got, _ = answer(t, d, "stop_lease", `{"lease_id":"abcdefghijkl"}`)
	require.Equal(t, 0.0, got["billed_seconds"], "nothing was launched")
}

// The ledger is asked for the answer's figures even when the call's time is up.
func TestAnAnswerAtTheEndOfACallIsWhole(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &desk{row: ready(), stop: func() (lease.Lease, error) { cancel(); return ready(), nil }}
	r, err := useIn(ctx, t, tools.Deps{Leases: d}, "stop_lease", `{"lease_id":"abcdefghijkl","wait_seconds":0}`)
	require.NoError(t, err)
	got := fields(t, r)
	require.NotContains(t, got, "warnings")
	require.Equal(t, 0.129, got["cost_usd"])
}

func TestAQuoteSaysWhetherTheNearestNeedsApproval(t *testing.T) {
	for approval, want := range map[bool]string{false: "would pass", true: "would need approval by a person"} {
		d := &desk{quote: func(lease.LaunchRequest) (lease.Quote, error) {
			n := &policy.Nearest{Type: "gpu_1x_a10", Region: "us-east-1", TTL: time.Hour, WorstCase: 2 * policy.Dollar, Approval: approval}
			return lease.Quote{TTL: time.Hour, Decision: policy.Decision{Verdict: policy.Deny, Nearest: n}}, nil
		}}
		got, _ := answer(t, d, "launch_lease", `{"type":"gpu_8x_a100","dry_run":true}`)
		require.Contains(t, got["next"], want)
	}
}
