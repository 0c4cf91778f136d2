package lease_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"io"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// foreign launches an instance that is not gpulease's.
func (k *kit) foreign(name string) string {
	k.t.Helper()
	c := k.client(k.sim.APIKey())
	_, err := c.AddSSHKey(k.t.Context(), name, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDkmbDgZzBZDdpeXdm9u6VPzupEfebPjvCT+TyoJDhpy")
	require.NoError(k.t, err)
	id, err := c.Client.Launch(k.t.Context(), lambda.LaunchRequest{Region: "us-east-1", InstanceType: testType, SSHKeyName: name, Name: name})
	require.NoError(k.t, err)
	return id
}

func TestInstancesWithoutALeaseCountAsSpending(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{Newer: true})
	k.foreign("by-hand")
	k.sim.Advance(11 * time.Hour)
	k.change(func(p *policy.Policy) { p.Caps.PerDay, p.Caps.PerWeek = policy.Cents(1500), policy.Cents(1500) })
	_, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType})
	require.Equal(t, lease.CodeBudgetExceeded, lease.CodeOf(err), "about $14 are spent by hand")
	require.ErrorContains(t, err, "by instances that no lease accounts for")
	require.Equal(t, 1, k.sim.LaunchCount(), "the one by hand")

	s, err := k.m.Spend(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, s.Strangers, 1)
	require.Equal(t, "by-hand", s.Strangers[0].Name)
	require.Contains(t, k.m.Notices(t.Context())[0], "1 instance in the account has no lease")

	k.change(func(p *policy.Policy) { p.CountUntracked = false })
	l := k.launch(lease.LaunchRequest{})
	k.untilState(l.ID, lease.Ready)
	require.Len(t, k.sim.Running(), 2)
	_, err = k.m.Stop(t.Context(), l.ID)
	require.NoError(t, err)
	k.untilState(l.ID, lease.Ended)
	require.Len(t, k.sim.Running(), 1, "what is not ours is never touched")
}

// another is a manager with a ledger and keys of its own: another computer, or
// this one after the loss of its disk.
func (k *kit) another() (*lease.Manager, *ledger.DB) {
	k.t.Helper()
	dir := k.t.TempDir()
	db, err := ledger.Open(k.t.Context(), filepath.Join(dir, "ledger.db"), ledger.Options{Now: k.sim.Now, Rand: rand.Reader})
	require.NoError(k.t, err)
	k.t.Cleanup(func() { require.NoError(k.t, db.Close()) })
	m, err := lease.New(lease.Config{
		Store: tracked{db, k}, Cloud: audited{k.client(k.sim.APIKey())}, Machine: k.machine, Keys: lease.KeyDir(filepath.Join(dir, "keys")), Policy: k.policy, Now: k.sim.Now, Rand: rand.Reader,
		Principal: "tester", Timing: k.timing, Logger: k.log, Home: "another",
	})
	require.NoError(k.t, err)
	return m, db
}

// audited is a cloud with an audit log.
type audited struct{ cloud }

func (a audited) AuditEvents(ctx context.Context, q lambda.AuditQuery) iter.Seq2[lambda.AuditEvent, error] {
	return a.Client.AuditEvents(ctx, q)
}

func TestAdoptionAfterTheLossOfEverything(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	first := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(first.ID, lease.Ready)
	lost := k.get(first.ID)
	k.halt()
	k.foreign("by-hand")
	k.sim.Advance(20 * time.Minute)

	m, db := k.another()
	found, err := m.Adoptable(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	old, err := k.db.LedgerID(t.Context())
	require.NoError(t, err)
	require.Len(t, found[old], 1)
	none, err := m.Adopt(t.Context(), "zzzz")
	require.NoError(t, err)
	require.Empty(t, none)
	got, err := m.Adopt(t.Context(), old)
	require.NoError(t, err)
	require.Len(t, got, 1)
	l := got[0]
	require.Equal(t, first.ID, l.ID)
	require.Equal(t, lost.HardStop, l.HardStop)
	require.Contains(t, l.Detail, "by the audit log")
	require.False(t, l.BillingFrom.After(lost.BillingFrom), "never counted from later than it was billed")
	again, err := m.Adopt(t.Context(), old)
	require.NoError(t, err)
	require.Empty(t, again, "it is known now")

	_, err = m.Start(t.Context(), l.ID, "", remote.Command{Shell: "true"})
	require.ErrorContains(t, err, "its keys are lost")
	halt := k.run(m)
	t.Cleanup(halt)
	limit := time.Now().Add(5 * time.Minute)
	for {
		if l, err = db.Get(t.Context(), first.ID); err == nil && l.State == lease.Ended {
			break
		}
		require.True(t, time.Now().Before(limit), "%+v", l)
		k.pass(1, time.Minute)
	}
	halt()
	require.Equal(t, lease.Deadline, l.Reason)
	require.False(t, l.EndedAt.After(l.HardStop.Add(2*time.Minute)))
	require.Len(t, k.sim.Running(), 1, "the one by hand")
	require.GreaterOrEqual(t, l.Cost, policy.Cents(129).For(l.GoneAt.Sub(lost.ReadyAt)))
}

// sameName is the randomness from which a new ledger gets the name of another.
func sameName(t *testing.T, db *ledger.DB) io.Reader {
	id, err := db.LedgerID(t.Context())
	require.NoError(t, err)
	raw, err := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").DecodeString(id + "aaaa")
	require.NoError(t, err)
	return bytes.NewReader(raw[:3])
}

// The ledger was restored from a copy that is older than the lease.
func TestInstanceThatTheLedgerHasForgottenIsAdopted(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{Newer: true})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	empty, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: k.sim.Now, Rand: sameName(t, k.db)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, empty.Close()) })
	other := k.db
	k.db = empty
	k.start(k.client(k.sim.APIKey()))
	t.Cleanup(func() { k.halt(); k.db = other })
	id, err := empty.LedgerID(t.Context())
	require.NoError(t, err)
	was, err := other.LedgerID(t.Context())
	require.NoError(t, err)
	require.Equal(t, was, id)

	fresh := k.launch(lease.LaunchRequest{}) // something lives, so the account is listed
	k.untilState(fresh.ID, lease.Ready)
	got := k.get(l.ID)
	require.Equal(t, lease.Ready, got.State)
	require.Equal(t, "adopted", got.Purpose)
	require.Equal(t, 2, k.usage().Leases, "it counts")
}

func TestReaperNeedsNothingButTheKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt() // nobody is left
	k.foreign("by-hand")
	k.foreign("gl-aaaa-bbbbbbbbbbbb-1-cccccccccccccccc") // looks like ours and has no signature
	r := lease.Reaper{Cloud: k.client(k.sim.APIKey()), Now: k.sim.Now, Poll: time.Millisecond}

	got, err := r.Reap(t.Context())
	require.NoError(t, err)
	require.Empty(t, got.Ended)
	require.Len(t, got.Alive, 1)
	require.Equal(t, l.ID, got.Alive[0].Name.Lease)
	require.Equal(t, 2, got.Others)
	require.Len(t, k.sim.Running(), 3)

	k.sim.Advance(l.HardStop.Sub(k.sim.Now()) + time.Second)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				k.sim.Advance(time.Second)
			}
		}
	}()
	got, err = r.Reap(t.Context())
	close(stop)
	require.NoError(t, err)
	require.Len(t, got.Ended, 1)
	require.Empty(t, got.Unconfirmed)
	require.Len(t, k.sim.Running(), 2, "nothing foreign is touched")
}

func TestReaperSaysWhatIsNotConfirmed(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	k.sim.Advance(l.HardStop.Sub(k.sim.Now()) + time.Second)
	k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Status: 500})
	tick := 0
	now := func() time.Time { tick++; return k.sim.Now().Add(time.Duration(tick) * time.Millisecond) }
	got, err := lease.Reaper{Cloud: k.client(k.sim.APIKey()), Now: now, Wait: 20 * time.Millisecond, Poll: time.Millisecond}.Reap(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Unconfirmed, 1)
	require.Error(t, got.Unconfirmed[0].Err)
	require.Len(t, k.sim.Running(), 1)
}

// A clock that is wrong here does not make a reaper end what is not due: the
// cloud's time counts, once two answers agree.
func TestReaperWithAWrongClock(t *testing.T) {
	t.Parallel()
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{TTL: time.Hour})
	k.untilState(l.ID, lease.Ready)
	k.halt()
	ahead := func() time.Time { return k.sim.Now().Add(48 * time.Hour) }
	key, err := lambda.ParseKey(k.sim.APIKey())
	require.NoError(t, err)
	c, err := lambda.New(key, lambda.WithBaseURL(k.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithNow(ahead), lambda.WithRetry(lambda.RetryPolicy{}))
	require.NoError(t, err)
	got, err := lease.Reaper{Cloud: cloud{c}, Now: ahead, Poll: time.Millisecond}.Reap(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Alive, 1)
	require.Len(t, k.sim.Running(), 1)
}
