package lease_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Somebody says stop while a sick machine is being ended, from this process or from
// another (gpulease stop --all). What was stopped is not launched again.
func TestNothingIsLaunchedAgainAfterAStop(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]bool{"BySameProcess": false, "ByAnotherProcess": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{TerminateTime: 3 * time.Minute})
			k.sickThere("")
			first := k.launch(lease.LaunchRequest{Elsewhere: true})
			k.until(first.ID, "found sick", func(l lease.Lease) bool { return l.State == lease.Stopping })
			m := k.m
			if other {
				var err error
				m, err = lease.New(lease.Config{
					Store: k.db, Cloud: k.client(k.sim.APIKey()), Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: k.sim.Now, Rand: zeros{},
				})
				require.NoError(t, err)
			}
			_, err := m.Stop(t.Context(), first.ID)
			require.NoError(t, err)
			k.untilState(first.ID, lease.Ended)
			for range 5 {
				k.sim.Advance(time.Minute)
				k.breathe()
			}
			require.Equal(t, 1, k.sim.LaunchCount(), "launched again although somebody has said stop")
		})
	}
}

// zeros is randomness for a process that makes nothing.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// The computer sleeps while a sick machine is being ended, and wakes hours later: the
// agent that asked is long gone or has gone on.
func TestNothingIsLaunchedAgainHoursLater(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{TerminateTime: 3 * time.Minute})
	k.sickThere("")
	first := k.launch(lease.LaunchRequest{Elsewhere: true})
	k.until(first.ID, "found sick", func(l lease.Lease) bool { return l.State == lease.Stopping })
	k.sim.Advance(8 * time.Hour)
	k.untilState(first.ID, lease.Ended)
	for range 5 {
		k.sim.Advance(time.Minute)
		k.breathe()
	}
	require.Equal(t, 1, k.sim.LaunchCount())
}

// A request was made under a policy file, which is gone when it is to be launched by
// a process with another policy. The defaults allow more than the file did.
func TestApprovedLaunchWhosePolicyFileIsGone(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	k.halt()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte("approve_above: 0\nidle_mode: \"off\"\ncaps: {per_day: 2}\n"), 0o600))
	asking, err := lease.New(lease.Config{
		Store: k.db, Cloud: k.client(k.sim.APIKey()), Machine: k.machine, Keys: k.keys, Policy: &policy.Source{Path: path}, Now: k.sim.Now, Rand: counting{new(byte)},
	})
	require.NoError(t, err)
	l, err := asking.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.NoError(t, err)
	require.Equal(t, lease.AwaitingApproval, l.State)
	require.NoError(t, os.Remove(path))
	_, err = asking.Approve(t.Context(), l.ID, "ann")
	require.NoError(t, err)
	k.start(k.client(k.sim.APIKey()))
	k.untilBy(l.ID, "said why not", time.Second, func(l lease.Lease) bool { return strings.Contains(l.Detail, "policy") })
	k.pass(5, time.Second)
	require.Zero(t, k.sim.LaunchCount(), "launched under the defaults: %s", k.get(l.ID).Detail)
}

// counting is randomness that differs.
type counting struct{ n *byte }

func (c counting) Read(b []byte) (int, error) {
	for i := range b {
		*c.n++
		b[i] = *c.n
	}
	return len(b), nil
}

// Two computers share the work on one lease, and their clocks are wrong by less than the
// minute that is taken for right. The ledger still has no less than the bill.
func TestClocksThatAreSlightlyWrongSettleNoLessThanTheBill(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, second time.Duration
		listed        time.Duration // how long what has ended is listed as terminated
	}{
		"ShownAsTerminated": {50 * time.Second, -50 * time.Second, 5 * time.Minute},
		"AbsentAtTheEnd":    {50 * time.Second, -50 * time.Second, time.Millisecond},
		"ClockIsSetRight":   {50 * time.Second, 0, 5 * time.Minute},
		"BehindAllTheTime":  {-50 * time.Second, -50 * time.Second, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, lambdatest.Config{TerminateTime: time.Second, Linger: tt.listed})
			run := func(wrong time.Duration) {
				k.halt()
				now := func() time.Time { return k.sim.Now().Add(wrong) }
				key, err := lambda.ParseKey(k.sim.APIKey())
				require.NoError(t, err)
				c, err := lambda.New(key, lambda.WithBaseURL(k.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithNow(now), lambda.WithRetry(lambda.RetryPolicy{}))
				require.NoError(t, err)
				m, err := lease.New(lease.Config{
					Store: tracked{k.db, k}, Cloud: cloud{c}, Machine: k.machine, Keys: k.keys, Policy: k.policy, Now: now, Rand: rand.Reader, Timing: k.timing,
				})
				require.NoError(t, err)
				k.m, k.halt = m, k.run(m)
			}
			run(tt.first)
			l := k.untilState(k.launch(lease.LaunchRequest{}).ID, lease.Ready)
			for range 40 {
				k.sim.Advance(15 * time.Second)
				k.breathe()
			}
			run(tt.second)
			_, err := k.m.Stop(t.Context(), l.ID)
			require.NoError(t, err)
			l = k.untilState(l.ID, lease.Ended)
			k.settled(l)
		})
	}
}
