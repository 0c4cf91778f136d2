package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/cmd/gpulease/smoke"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/policy"
)

// live is a live check against a simulated cloud. Only its own reading client is
// not held back to one request a second: the servers that it starts are.
func (w *world) live() smoke.Options {
	w.keepPace()
	key, err := lambda.ParseKey(w.sim.APIKey())
	require.NoError(w.t, err)
	var cloud doctor.Cloud
	cloud, err = lambda.New(key, lambda.WithBaseURL(w.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithRetry(lambda.NoRetry))
	require.NoError(w.t, err)
	s := newSettings(w.env)
	newRoot(s, nil, nil, nil) // reads the environment
	require.NoError(w.t, s.check())
	return smoke.Options{
		Live: true, Limit: policy.Dollar, Type: testType, TTL: 5 * time.Minute, Cloud: cloud,
		Doctor: func(ctx context.Context) (doctor.Report, error) {
			return doctor.Run(ctx, s.doctorConfig(key, cloud, nil)), nil
		},
		Policy: s.policySource(), Principal: s.principal, LedgerPath: s.ledgerPath, StateDir: s.stateDir,
		Binary: os.Args[0], Env: w.env, Detach: detach, Secrets: []string{key.Reveal()}, Version: version, Now: time.Now,
		JobTime: time.Second, CleanTime: 30 * time.Second,
	}
}

// check runs the live check and looks at what it has said and left.
func (w *world) check(o smoke.Options, want smoke.Classification, says string) string {
	w.t.Helper()
	return w.checkIn(w.t.Context(), o, want, says)
}

func (w *world) checkIn(ctx context.Context, o smoke.Options, want smoke.Classification, says string) string {
	w.t.Helper()
	var out strings.Builder
	c := smoke.Run(ctx, o, &out)
	text := out.String()
	require.Equal(w.t, want, c, "%s", text)
	require.Contains(w.t, text, says)
	require.True(w.t, strings.HasSuffix(text, "\nclassification="+string(want)+"\n"), "%s", text)
	require.Equal(w.t, 1, strings.Count(text, "classification="), "%s", text)
	require.NotContains(w.t, text, w.sim.APIKey())
	if want != smoke.CleanUpFailed {
		require.Empty(w.t, w.sim.Running(), "%s", text)
		require.Empty(w.t, w.ourKeys(), "%s", text)
		left, err := filepath.Glob(filepath.Join(o.StateDir, "smoke-*"))
		require.NoError(w.t, err)
		require.Empty(w.t, left, "the run's directory is removed")
	}
	return text
}

func (w *world) ourKeys() []string {
	var names []string
	for _, k := range w.sim.Keys() {
		if strings.HasPrefix(k.Name, "gl-") {
			names = append(names, k.Name)
		}
	}
	return names
}

func TestSmokePassed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	o := w.live()
	o.Type = "" // the cheapest
	text := w.check(o, smoke.Passed, "nothing is left: no machine, no SSH key, no process")
	require.Equal(t, 1, w.sim.LaunchCount())
	require.Equal(t, "gpu_1x_rtx6000", w.sim.Instances()[0].Type)
	require.Contains(t, text, "reconnect: server ")
	require.Contains(t, text, "fetch: 2048 bytes came home")
	require.Less(t, w.sim.Bill().Total, int64(o.Limit))
}

// What is refused before anything is begun launches nothing and starts nothing.
func TestSmokeIsBlockedBeforeTheFirstChange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		want smoke.Classification
		says string
		ill  func(w *world, o *smoke.Options)
	}{
		{"nobody said that it may spend", smoke.EnvironmentBlocked, "GPULEASE_LIVE=1", func(_ *world, o *smoke.Options) { o.Live = false }},
		{"no limit", smoke.EnvironmentBlocked, "--limit-usd", func(_ *world, o *smoke.Options) { o.Limit = 0 }},
		{"unreachable", smoke.EnvironmentBlocked, "was not reached", func(w *world, _ *smoke.Options) { w.sim.Inject(lambdatest.Fault{Cut: lambdatest.CutBefore}) }},
		{"bad key", smoke.EnvironmentBlocked, "does not accept it", func(w *world, _ *smoke.Options) { w.sim.Inject(lambdatest.Fault{Code: lambdatest.CodeInvalidKey}) }},
		{"no such type", smoke.EnvironmentBlocked, `no instance type "gpu_9x"`, func(_ *world, o *smoke.Options) { o.Type = "gpu_9x" }},
		{"type that the policy denies", smoke.EnvironmentBlocked, "max_price_per_hour", func(_ *world, o *smoke.Options) { o.Type, o.Limit = "gpu_8x_h100_sxm5", 1000*policy.Dollar }},
		{"inactive account", smoke.BillingBlocked, "account", func(w *world, _ *smoke.Options) { w.sim.Inject(lambdatest.Fault{Code: lambdatest.CodeAccountInactive}) }},
		{"above the limit", smoke.BillingBlocked, "could cost $0.688, above the limit of $0.687", func(_ *world, o *smoke.Options) { o.Limit = 687_000 }},
		{"rate limited", smoke.QuotaBlocked, "no more requests", func(w *world, _ *smoke.Options) { w.sim.Inject(lambdatest.Fault{Status: 429}) }},
		{"nothing free", smoke.CapacityBlocked, "no gpu_1x_a10 is free", func(w *world, _ *smoke.Options) {
			require.NoError(w.t, w.sim.SetCapacity(testType, "us-east-1", 0))
			require.NoError(w.t, w.sim.SetCapacity(testType, "us-west-1", 0))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			o := w.live()
			o.Binary = "/nowhere" // no process is started
			tt.ill(w, &o)
			w.check(o, tt.want, tt.says)
			for _, r := range w.sim.Requests() {
				require.Equal(t, "GET", r.Method)
			}
			w.sim.Remove()
		})
	}
}

func TestSmokeIsBlockedAtTheLaunch(t *testing.T) {
	t.Parallel()
	t.Run("quota", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lambdatest.Config{Quota: 1})
		id, err := w.sim.Launch(lambdatest.Order{Type: testType, Region: "us-east-1", Key: "somebody's"})
		require.NoError(t, err)
		o := w.live()
		var out strings.Builder
		require.Equal(t, smoke.QuotaBlocked, smoke.Run(t.Context(), o, &out), "%s", &out)
		require.Contains(t, out.String(), "error quota_exceeded")
		require.Len(t, w.sim.Running(), 1, "what is not ours goes on")
		require.Equal(t, id, w.sim.Running()[0].ID)
		require.Empty(t, w.ourKeys())
		require.Len(t, w.sim.Keys(), 1)
	})
	t.Run("capacity is gone between list and launch", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lambdatest.Config{})
		w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, NoCapacity: true})
		require.NoError(t, w.sim.SetCapacity(testType, "us-west-1", 0)) // one launch call, not two
		w.check(w.live(), smoke.CapacityBlocked, "error no_capacity")
	})
}

// at has the run do something as a step begins.
func at(step string, do func()) func(string) {
	return func(name string) {
		if name == step {
			do()
		}
	}
}

func TestSmokeValidationFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	o := w.live()
	o.Step = at("boot", func() { require.NoError(t, w.sim.Terminate(w.sim.Running()[0].ID)) }) // somebody ends our machine
	w.check(o, smoke.ValidationFailed, "the lease is ended (gone)")
	require.Equal(t, 1, w.sim.LaunchCount())
}

func TestSmokeCleanUpFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Ignore: true})
	o := w.live()
	o.CleanTime = 2 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	o.Step = at("boot", cancel)
	text := w.checkIn(ctx, o, smoke.CleanUpFailed, "something may still cost money")
	require.Len(t, w.sim.Running(), 1)
	_, rest, ok := strings.Cut(text, "something may still cost money; try: gpulease ")
	require.True(t, ok, "%s", text)
	args, _, ok := strings.Cut(rest, ";")
	require.True(t, ok, "%s", text)

	// The command that it names does it once Lambda obeys again, also where the
	// environment names another ledger.
	w.sim.Remove()
	cmd := w.program(strings.Fields(args)...)
	cmd.Env = append(append([]string{}, w.env...), "GPULEASE_LEDGER="+filepath.Join(w.dir, "other.db"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, w.sim.Running())
	require.Eventually(t, func() bool { return len(w.ourKeys()) == 0 }, 15*time.Second, 50*time.Millisecond, "the keeper may be the one that removes the key")
}

func TestSmokePanicIsCleanedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	o := w.live()
	o.Step = at("boot", func() { panic("on purpose, with " + w.sim.APIKey()) })
	w.check(o, smoke.ValidationFailed, "on purpose, with [redacted]")
	require.Equal(t, 1, w.sim.LaunchCount())
}

// As after Ctrl-C while the machine boots.
func TestSmokeInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{BootTime: time.Minute})
	o := w.live()
	ctx, cancel := context.WithCancel(t.Context())
	o.Step = at("boot", cancel)
	w.checkIn(ctx, o, smoke.EnvironmentBlocked, "clean-up: nothing is left")
	require.Equal(t, 1, w.sim.LaunchCount())
}

func TestSmokeCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	good := w.env
	for _, tt := range []struct {
		env, args []string
		says      string
	}{
		{nil, []string{"--limit-usd", "1"}, "GPULEASE_LIVE=1"},
		{[]string{"LAMBDA_API_KEY=", "LAMBDA_API_KEY_COMMAND=touch " + filepath.Join(w.dir, "asked")}, []string{"--limit-usd", "1"}, "GPULEASE_LIVE=1"},
		{[]string{"GPULEASE_LIVE=1"}, nil, "--limit-usd is needed"},
		{[]string{"GPULEASE_LIVE=1"}, []string{"--limit-usd", "1e3"}, "--limit-usd: "},
		{[]string{"GPULEASE_LIVE=1"}, []string{"--limit-usd", "1", "--ttl", "90s"}, "whole minutes"},
		{[]string{"GPULEASE_LIVE=1", "LAMBDA_API_KEY="}, []string{"--limit-usd", "1"}, "no API key"},
		{[]string{"GPULEASE_LIVE=1", "GPULEASE_SSH_PORT=no"}, []string{"--limit-usd", "1"}, "GPULEASE_SSH_PORT"},
	} {
		w.env = append(append([]string{}, good...), tt.env...)
		cmd := w.program(append([]string{"smoke"}, tt.args...)...)
		out, err := cmd.Output()
		require.Error(t, err)
		require.Equal(t, smoke.EnvironmentBlocked.ExitCode(), cmd.ProcessState.ExitCode(), "%s", out)
		require.Contains(t, string(out), tt.says)
		require.True(t, strings.HasSuffix(string(out), "\nclassification=environment_blocked\n"), "%s", out)
	}
	require.NoFileExists(t, filepath.Join(w.dir, "asked"), "the key is not asked for in vain")
	require.Empty(t, w.sim.Requests())
	w.env = good
}
