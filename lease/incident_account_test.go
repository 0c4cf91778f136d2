package lease_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// oddAnswer makes the first launch call do its work n times and gives shape the ids in JSON.
func oddAnswer(n int, shape func(ids []string) string) lambdatest.Config {
	var once atomic.Bool
	return lambdatest.Config{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/launch") || once.Swap(true) {
				h.ServeHTTP(w, r)
				return
			}
			body, _ := io.ReadAll(r.Body)
			var ids []string
			for range n {
				rec, again := httptest.NewRecorder(), r.Clone(r.Context())
				again.Body = io.NopCloser(strings.NewReader(string(body)))
				h.ServeHTTP(rec, again)
				answer := rec.Body.String()
				ids = append(ids, answer[strings.Index(answer, "[")+1:strings.Index(answer, "]")])
				maps.Copy(w.Header(), rec.Header())
			}
			w.Header().Del("Content-Length")
			_, _ = io.WriteString(w, `{"data":{"instance_ids":[`+shape(ids)+`]}}`)
		})
	}}
}

// A launch answered with two ids, and the tool dropped its claim and its key: nobody knew of
// either machine any more.
func TestIncidentLaunchWasAnsweredWithTwoIDs(t *testing.T) {
	for name, tt := range map[string]struct {
		machines int
		shape    func([]string) string
	}{
		"none named":       {1, func([]string) string { return "" }},
		"one named twice":  {1, func(ids []string) string { return ids[0] + "," + ids[0] }},
		"an empty name":    {1, func([]string) string { return `""` }},
		"two machines":     {2, func(ids []string) string { return strings.Join(ids, ",") }},
		"one of two named": {2, func(ids []string) string { return ids[0] }},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, oddAnswer(tt.machines, tt.shape))
			l := k.launch(lease.LaunchRequest{TTL: 10 * time.Minute})
			require.Equal(t, tt.machines, k.sim.LaunchCount())
			l = k.untilState(l.ID, lease.Ready)
			running := k.sim.Running()
			require.Len(t, running, 1, "a lease has one machine")
			require.Equal(t, l.InstanceID, running[0].ID)
			l = k.over(l.ID)
			require.Equal(t, lease.Deadline, l.Reason)
			k.settled(l)
		})
	}
}

// The same, and ending the second machine fails for an hour, and longer than its lease
// lives. All that it costs counts.
func TestSecondMachineOfALaunchCountsUntilItIsGone(t *testing.T) {
	k := newKit(t, oddAnswer(2, func(ids []string) string { return strings.Join(ids, ",") }))
	first := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Status: 500})
	l := k.launch(lease.LaunchRequest{TTL: 30 * time.Minute})
	l = k.until(l.ID, "bound", func(l lease.Lease) bool { return l.InstanceID != "" })
	var second string
	for _, i := range k.sim.Running() {
		if i.ID != l.InstanceID {
			second = i.ID
		}
	}
	require.NotEmpty(t, second)
	id := k.sim.Inject(lambdatest.Fault{Op: lambdatest.OpTerminate, Match: second, Status: 500, Until: 75 * time.Minute})
	k.sim.Remove(first)
	k.untilState(l.ID, lease.Ready)
	for range 28 {
		k.pass(1, time.Minute)
		require.GreaterOrEqual(t, k.counted(), k.bill(), "the caps see less than is spent")
	}
	require.Positive(t, k.sim.Hits(id))
	require.Contains(t, strings.Join(k.m.Notices(t.Context()), " "), "1 instance in the account has no lease")
	l = k.over(l.ID)
	for end := k.sim.Now().Add(time.Hour); k.sim.Now().Before(end); {
		k.pass(1, time.Minute)
		require.GreaterOrEqual(t, k.counted(), k.bill(), "after the end of the lease, too")
	}
	require.Empty(t, k.sim.Running(), "it was ended as soon as that was possible")
	k.pass(10, time.Minute)
	require.GreaterOrEqual(t, k.counted(), k.bill())
	require.Less(t, k.counted(), k.bill()+policy.Cents(129).For(15*time.Minute), "and not twice")
	require.GreaterOrEqual(t, l.Cost, policy.Cents(129).For(30*time.Minute))
}

// The machine of a lease is gone, and one with its signed name is there under another id: moved by
// the cloud, or copied by a person. The lease ends; what carries our name is ended, too, and counted.
func TestMachineThatReturnsUnderAnotherID(t *testing.T) {
	k := newKit(t, lambdatest.Config{TerminateTime: -1, Linger: -1})
	l := k.launch(lease.LaunchRequest{TTL: 2 * time.Hour})
	l = k.untilState(l.ID, lease.Ready)
	k.pass(10, time.Minute)
	require.NoError(t, k.sim.Terminate(l.InstanceID))
	id, err := k.sim.Launch(lambdatest.Order{Type: testType, Region: l.Region, Name: l.Name, Key: l.KeyName})
	require.NoError(t, err)
	require.NotEqual(t, l.InstanceID, id)
	got := k.over(l.ID)
	require.Equal(t, lease.Gone, got.Reason)
	k.pass(10, time.Minute)
	require.Empty(t, k.sim.Running())
	require.GreaterOrEqual(t, k.counted(), k.bill())
}

// Somebody else's machine was seen with a key that is not used any more. It does not count, and
// is not reported, for ever.
func TestMachineOfAnAccountThatIsNotUsedAnyMore(t *testing.T) {
	k := newKit(t, lambdatest.Config{})
	k.foreign("by-hand")
	l := k.launch(lease.LaunchRequest{})
	k.over(l.ID)
	require.Len(t, k.m.Notices(t.Context()), 1)
	k.halt()
	mine, other := k.sim, lambdatest.Start(t, lambdatest.Config{Virtual: true, BootTime: time.Minute})
	k.sim = other
	other.Advance(mine.Now().Sub(other.Now()))
	c := k.client(other.APIKey())
	k.sim = mine
	k.start(c)
	for range 24 * 30 {
		mine.Advance(time.Hour)
		other.Advance(time.Hour)
	}
	require.Greater(t, policy.Money(mine.Bill().Total), 900*policy.Dollar, "it runs, and nobody can see it")
	again, err := k.m.Launch(t.Context(), lease.LaunchRequest{Type: testType, TTL: time.Minute})
	require.NoError(t, err, "with the new key, the old account's machine is unknown")
	require.Equal(t, 1, other.LaunchCount())
	require.Empty(t, k.m.Notices(t.Context()))
	require.Less(t, k.counted(), 10*policy.Dollar)
	_, err = k.m.Stop(t.Context(), again.ID)
	require.NoError(t, err)
	for limit := time.Now().Add(5 * time.Minute); k.get(again.ID).State != lease.Ended; {
		require.True(t, time.Now().Before(limit))
		mine.Advance(5 * time.Second)
		other.Advance(5 * time.Second)
		time.Sleep(3 * time.Millisecond)
	}
}

// The key leaked and was replaced by another one of the same account while a machine ran. The old key
// is refused from then on; the machine ends at its deadline all the same.
func TestIncidentKeyWasReplacedWhileAMachineRan(t *testing.T) {
	for name, beside := range map[string]bool{"and nothing else runs": false, "beside another lease": true} {
		t.Run(name, func(t *testing.T) {
			const fresh = "secret_new_0123456789abcdef.fedcba9876543210"
			var old string
			var replaced atomic.Bool
			k := newKit(t, lambdatest.Config{Wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if replaced.Load() {
						if r.Header.Get("Authorization") == "Bearer "+fresh {
							r.Header.Set("Authorization", "Bearer "+old)
						} else {
							r.Header.Set("Authorization", "Bearer revoked")
						}
					}
					h.ServeHTTP(w, r)
				})
			}})
			old = k.sim.APIKey()
			l := k.launch(lease.LaunchRequest{TTL: time.Hour})
			l = k.untilState(l.ID, lease.Ready)
			replaced.Store(true)
			_, err := k.client(old).Instances(t.Context())
			require.ErrorContains(t, err, "401")
			k.halt()
			k.start(k.client(fresh))
			require.Contains(t, strings.Join(k.m.Status(t.Context(), k.get(l.ID)).Warnings, " "), "another API key")
			if beside {
				k.launch(lease.LaunchRequest{TTL: 4 * time.Hour})
			}
			k.pass(5*12, 5*time.Second)
			require.Equal(t, l.Account, k.get(l.ID).Account, "whoever has the old key may still see it")
			l = k.over(l.ID)
			require.Equal(t, lease.Deadline, l.Reason)
			require.Less(t, l.EndedAt.Sub(l.Deadline), 10*time.Minute)
			inst, _ := k.sim.Instance(l.InstanceID)
			require.False(t, inst.StopCalledAt.IsZero())
			line, _ := k.sim.Bill().Of(l.InstanceID)
			require.GreaterOrEqual(t, l.Cost, policy.Money(line.MicroDollars))
		})
	}
}
