package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// till is the whole of gpulease behind its tools, with a cloud that has no
// machines: no command that a fuzzer thinks of is ever run.
type till struct {
	sim     *lambdatest.Server
	db      *ledger.DB
	cloud   *account
	manager *lease.Manager
	tools   []tools.Tool

	launched int // instances that were found in order
}

// tillPolicy has a rule of each kind that a request can break.
const tillPolicy = `max_price_per_hour: 2
max_ttl: 1h
max_leases: 3
caps: {per_lease: 3, burn_per_hour: 5, per_day: 500, per_month: 500}
`

const tillLeases = 3

func newTill(f testing.TB) *till {
	f.Helper()
	dir := f.TempDir()
	w := &till{}
	w.sim = lambdatest.Start(f, lambdatest.Config{BootTime: time.Hour, TerminateTime: -1, Linger: -1})
	file := filepath.Join(dir, "policy.yaml")
	require.NoError(f, os.WriteFile(file, []byte(tillPolicy), 0o600))
	key, err := lambda.ParseKey(w.sim.APIKey())
	require.NoError(f, err)
	w.db, err = ledger.Open(f.Context(), filepath.Join(dir, "ledger.db"), ledger.Options{Now: time.Now, Rand: rand.Reader})
	require.NoError(f, err)
	pool := remote.NewPool(remote.Config{})
	w.cloud = &account{connect: func(context.Context) (*lambda.Client, error) {
		pace := lambda.PacerConfig{Interval: time.Microsecond, LaunchInterval: time.Microsecond}
		return lambda.New(key, lambda.WithBaseURL(w.sim.URL()), lambda.WithLimiter(lambda.NewPacer(pace)))
	}}
	w.manager, err = lease.New(lease.Config{
		Store: w.db, Cloud: w.cloud, Machine: pool, Keys: lease.KeyDir(filepath.Join(dir, "keys")),
		Policy: &policy.Source{Path: file, Explicit: true}, Now: time.Now, Rand: rand.Reader, Principal: "agent",
		Timing: lease.Timing{Tick: 20 * time.Millisecond, Poll: 20 * time.Millisecond, IdlePoll: 50 * time.Millisecond},
	})
	require.NoError(f, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.manager.Run(ctx) }()
	f.Cleanup(func() {
		brief, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := w.manager.Close(brief)
		stop()
		require.NoError(f, errors.Join(err, <-done, pool.Close(), w.db.Close()))
	})
	root := filepath.Join(dir, "project")
	require.NoError(f, os.Mkdir(root, 0o700))
	w.tools = tools.All(tools.Deps{Leases: w.manager, Roots: []string{root}, Denied: []string{dir}})
	return w
}

// launches are the launch calls that the cloud has answered or is about to.
func (w *till) launches() int { return len(w.sim.Instances()) }

// decided fails unless each launch that the cloud has seen was decided before:
// by an allowance of its own that names its lease, within every limit.
func (w *till) decided(ctx context.Context) error {
	all := w.sim.Instances()
	if len(all) == w.launched {
		return nil
	}
	decisions, err := w.db.Decisions(ctx, 0)
	if err != nil {
		return err
	}
	allowed := map[lease.ID]policy.Money{}
	for _, d := range decisions {
		if d.Verdict == policy.Allow {
			allowed[d.Lease] = max(allowed[d.Lease], d.WorstCase)
		}
	}
	leases, err := w.db.List(ctx, 0)
	if err != nil {
		return err
	}
	byName := map[string]lease.Lease{}
	for _, l := range leases {
		byName[l.Name] = l
	}
	for _, i := range all {
		l, ok := byName[i.Name]
		worst, decided := allowed[l.ID]
		delete(byName, i.Name)
		switch {
		case !ok:
			return fmt.Errorf("%s was launched for no lease, or twice", i.Name)
		case !decided:
			return fmt.Errorf("%s was launched without a decision", l.ID)
		case worst > 3*policy.Dollar || i.PriceCentsPerHour > 200 || l.TTL > time.Hour:
			return fmt.Errorf("%s was launched against the policy: %s for %s, %s at most", l.ID, i.Type, l.TTL, worst)
		}
	}
	if n := len(w.sim.Running()); n > tillLeases {
		return fmt.Errorf("%d machines run", n)
	}
	w.launched = len(all)
	return nil
}

// room ends the leases when there are as many as there may be.
func (w *till) room(t *testing.T) {
	t.Helper()
	live, err := w.db.Live(t.Context())
	require.NoError(t, err)
	if len(live) < tillLeases {
		return
	}
	for _, l := range live {
		_, err := w.manager.Stop(t.Context(), l.ID)
		require.NoError(t, err)
	}
}

// lastLease stands in inputs for a lease that there is.
const lastLease = "THELEASE"

// Whatever an agent sends to a tool: no panic, no launch without a decision of its
// own, no key in an answer. The simulator's list of instances is the witness.
func FuzzTools(f *testing.F) {
	w := newTill(f)
	byName := map[string]int{}
	for i, tool := range w.tools {
		byName[tool.Name] = i
		for _, args := range []string{
			``, `{}`, `null`, `[]`, `{"lease_id":"THELEASE"}`, `{"lease_id":"THELEASE","wait_seconds":-1}`, `{"lease_id":{"a":[1e400]}}`,
			`{"job_id":"THELEASE-abcdefgh","offset":9223372036854775807,"stream":"stdout"}`, `{"lease_id":"THELEASE","minutes":525600}`,
			`{"lease_id":"THELEASE","minutes":1}`, `{"lease_id":"THELEASE","paths":["../../*","/etc/passwd"],"local_dir":"/"}`,
			`{"lease_id":"THELEASE","command":"true","env":{"A=B":"\u0000"},"timeout_seconds":9223372036854775807}`,
		} {
			f.Add(byte(i), args)
		}
	}
	for _, args := range []string{
		`{"type":"gpu_1x_a10"}`, `{"type":"gpu_1x_a10","ttl_minutes":10,"purpose":"x","region":"us-east-1"}`, `{"type":"gpu_8x_h100_sxm5","ttl_minutes":525600}`,
		`{"type":"gpu_1x_a10","ttl_minutes":5,"idempotency_key":"k"}`, `{"type":"gpu_1x_a10","ttl_minutes":61}`, `{"type":"gpu_1x_a10","dry_run":true}`,
		`{"type":"gpu_1x_a10","ttl_minutes":-9223372036854775808}`, `{"type":"gpu_1x_a10","ttl_minutes":1e3}`, `{"type":"GPU_1X_A10","type":"gpu_8x_a100"}`,
		`{"type":"*","region":"*"}`, `{"type":"gpu_1x_a10","results":["../..","~/out","\n"]}`, `{"type":"gpu_1x_gh200","ttl_minutes":60,"purpose":"\ud800 \u202e"}`,
	} {
		f.Add(byte(byName["launch_lease"]), args)
	}
	f.Fuzz(func(t *testing.T, which byte, args string) {
		tool := w.tools[int(which)%len(w.tools)]
		w.room(t)
		if l, err := w.db.List(t.Context(), 1); err == nil && len(l) > 0 {
			args = strings.ReplaceAll(args, lastLease, string(l[0].ID))
		}
		before := w.launches()
		brief := 200 * time.Millisecond // it may wait as long as it likes
		if tool.Name == "launch_lease" {
			brief = 10 * time.Second // so that its launch is over afterwards
		}
		ctx, cancel := context.WithTimeout(t.Context(), brief)
		defer cancel()
		result, err := tool.Call(ctx, json.RawMessage(args))
		answer := result.Text + string(result.Structured)
		if err != nil {
			e := tools.Explain(err, nil)
			answer = tools.Render(e)
			require.True(t, strings.HasPrefix(answer, "error "+string(e.Code)+": "), "%s", answer)
			require.True(t, e.Code != lease.CodeInternal || ctx.Err() != nil, "%s", answer)
		} else {
			require.True(t, json.Valid(result.Structured))
		}
		require.NotContains(t, answer, w.sim.APIKey())
		require.Less(t, len(answer), 32<<10, "answers stay small")
		if tool.Name != "launch_lease" || (err != nil && lease.CodeOf(err) == lease.CodeInvalidInput) {
			require.Equal(t, before, w.launches(), "%s is no launch", tool.Name)
		}
		require.NoError(t, w.decided(t.Context()))
	})
}

// The witness of FuzzTools sees what it is there for.
func TestALaunchWithoutADecisionIsNoticed(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for _, tool := range w.tools {
		if tool.Name == "launch_lease" {
			_, err := tool.Call(t.Context(), json.RawMessage(`{"type":"gpu_1x_a10","ttl_minutes":10}`))
			require.NoError(t, err)
		}
	}
	require.Equal(t, 1, w.launches())
	require.NoError(t, w.decided(t.Context()))

	c, err := w.cloud.get(t.Context())
	require.NoError(t, err)
	key, err := c.SSHKeys(t.Context())
	require.NoError(t, err)
	_, err = c.Launch(t.Context(), lambda.LaunchRequest{InstanceType: "gpu_1x_a10", Region: "us-east-1", SSHKeyName: key[0].Name, Name: "behind its back"})
	require.NoError(t, err)
	require.ErrorContains(t, w.decided(t.Context()), "behind its back was launched for no lease")
}
