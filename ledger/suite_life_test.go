package ledger_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

func ask(policy.Usage) policy.Decision { return policy.Decision{Verdict: policy.Ask} }

func usageOf(t *testing.T, s lease.Store, principal string, at time.Time) policy.Usage {
	t.Helper()
	u, err := s.Usage(t.Context(), principal, at, periods)
	require.NoError(t, err)
	return u
}

func testAwaits(t *testing.T, s lease.Store) {
	l := intent("alice", 5*policy.Dollar)
	l.IdempotencyKey, l.DecideBy = "k", noon.Add(time.Hour)
	res, err := s.Reserve(t.Context(), l, noon, periods, ask)
	require.NoError(t, err)
	require.Equal(t, policy.Ask, res.Decision.Verdict)
	require.Equal(t, lease.AwaitingApproval, res.Lease.State)
	require.Zero(t, res.Lease.Reserved)
	waits := policy.Totals{Waiting: 1}
	require.Equal(t, policy.Usage{Account: waits, Principal: waits}, usageOf(t, s, "alice", noon), "it takes no place and no money")
	live, err := s.Live(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lease.Lease{res.Lease}, live)

	again, err := s.Reserve(t.Context(), intentLike(l), noon, periods, ask)
	require.NoError(t, err)
	require.True(t, again.Existing)
	require.Equal(t, res.Lease.ID, again.Lease.ID)

	approved := res.Lease
	approved.State, approved.Reserved, approved.ReservedAt, approved.ApprovedBy = lease.Launching, 5*policy.Dollar, noon, "a person"
	_, d, err := s.Rereserve(t.Context(), approved, noon, periods, "approved", ask)
	require.NoError(t, err)
	require.Equal(t, policy.Ask, d.Verdict)
	got, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, res.Lease, got, "asking again writes nothing")
	got, _, err = s.Rereserve(t.Context(), approved, noon, periods, "approved", allow)
	require.NoError(t, err)
	require.Equal(t, lease.Launching, got.State)
	u := usageOf(t, s, "alice", noon)
	require.Equal(t, 5*policy.Dollar, u.Account.Day)
	require.Equal(t, 1, u.Account.LaunchesLastHour)
}

// intentLike is the same request once more, as another process would write it.
func intentLike(l lease.Lease) lease.Lease {
	again := intent(l.Principal, l.Reserved)
	again.IdempotencyKey = l.IdempotencyKey
	return again
}

func testFreeze(t *testing.T, s lease.Store) {
	unsent := reserve(t, s, intent("alice", policy.Dollar))
	f, err := s.Frozen(t.Context())
	require.NoError(t, err)
	require.False(t, f.On())
	require.NoError(t, s.Freeze(t.Context(), lease.Freeze{At: noon, By: "bob", Why: "too dear"}))
	f, err = s.Frozen(t.Context())
	require.NoError(t, err)
	require.Equal(t, lease.Freeze{At: noon, By: "bob", Why: "too dear"}, f)

	_, err = s.Reserve(t.Context(), intent("alice", policy.Dollar), noon, periods, allow)
	require.ErrorIs(t, err, lease.ErrFrozen)
	require.ErrorContains(t, err, "bob: too dear")
	_, _, err = s.Rereserve(t.Context(), unsent, noon, periods, "more", allow)
	require.ErrorIs(t, err, lease.ErrFrozen)
	sent := unsent
	sent.LaunchSentAt = noon
	_, err = s.Update(t.Context(), sent, "launch call")
	require.ErrorIs(t, err, lease.ErrFrozen, "a launch that was reserved before the freeze is not sent after it")
	unsent.Detail = "other changes go on"
	unsent = update(t, s, unsent)
	end(t, s, unsent, 0, noon)

	require.NoError(t, s.Freeze(t.Context(), lease.Freeze{}))
	reserve(t, s, intent("alice", policy.Dollar))
}

func testClock(t *testing.T, s lease.Store) {
	l := intent("alice", policy.Dollar)
	l.CreatedAt, l.ReservedAt = noon.Add(24*time.Hour), noon.Add(24*time.Hour)
	l = reserve(t, s, l)
	_, err := s.Reserve(t.Context(), intent("alice", policy.Dollar), noon, periods, allow)
	require.ErrorIs(t, err, lease.ErrClock)
	_, _, err = s.Rereserve(t.Context(), l, noon, periods, "more", allow)
	require.ErrorIs(t, err, lease.ErrClock)
	end(t, s, l, 0, noon) // an end is written whatever the clock says
}

func testStrangers(t *testing.T, s lease.Store) {
	mine := reserve(t, s, intent("alice", policy.Dollar))
	mine.LaunchSentAt, mine.State, mine.InstanceID = noon, lease.Booting, "mine"
	update(t, s, mine)
	foreign := lease.Stranger{Account: "acct", Instance: "i-1", Name: "train", Type: "gpu_8x_h100_sxm5", Region: "us-east-1", Price: 60 * policy.Dollar}
	older := foreign
	older.Instance, older.Since = "i-2", noon.Add(-30*time.Hour)
	require.NoError(t, s.Sight(t.Context(), "acct", noon, []lease.Stranger{foreign, older, {Instance: "mine", Price: policy.Dollar}}))

	at := noon.Add(10 * time.Minute)
	u := usageOf(t, s, "alice", at)
	require.Equal(t, 10*policy.Dollar+(12*60+10)*policy.Dollar, u.Untracked.Day, "from the start of the day, or since it was first seen")
	require.Equal(t, 10*policy.Dollar+(30*60+10)*policy.Dollar, u.Untracked.Week)
	require.Equal(t, 120*policy.Dollar, u.Untracked.BurnPerHour)
	require.Equal(t, 1, u.Account.Leases)
	require.Equal(t, policy.Dollar, u.Principal.Day, "nobody's principal")
	require.Equal(t, policy.Dollar, u.Account.Day)

	require.NoError(t, s.Sight(t.Context(), "other", at, nil), "another account says nothing about this one")
	there, err := s.Sighted(t.Context())
	require.NoError(t, err)
	require.Len(t, there, 2)
	require.Equal(t, "i-2", there[0].Instance)
	require.NoError(t, s.Sight(t.Context(), "acct", at, []lease.Stranger{foreign}))
	there, err = s.Sighted(t.Context())
	require.NoError(t, err)
	foreign.Since, foreign.Seen = noon, at
	require.Equal(t, []lease.Stranger{foreign}, there)
	u = usageOf(t, s, "alice", at.Add(time.Hour))
	require.Equal(t, 70*policy.Dollar+(12*60+10)*policy.Dollar, u.Untracked.Day, "the one that has ended costs no more")
	require.Equal(t, 60*policy.Dollar, u.Untracked.BurnPerHour)
}

func testStrangerGap(t *testing.T, s lease.Store) {
	foreign := lease.Stranger{Instance: "i-1", Price: 60 * policy.Dollar}
	require.NoError(t, s.Sight(t.Context(), "acct", noon, []lease.Stranger{foreign}))
	require.Equal(t, 60*policy.Dollar, usageOf(t, s, "alice", noon.Add(5*time.Hour)).Untracked.Day, "what nobody looks at does not count on for ever")
	require.Zero(t, usageOf(t, s, "alice", noon.Add(5*time.Hour)).Untracked.BurnPerHour)
	// Nobody looked for three hours: when it ended is not known.
	at := noon.Add(3 * time.Hour)
	require.NoError(t, s.Sight(t.Context(), "acct", at, nil))
	require.Equal(t, 60*policy.Dollar, usageOf(t, s, "alice", at).Untracked.Day)
	require.NoError(t, s.Sight(t.Context(), "acct", at, []lease.Stranger{foreign}))
	require.Equal(t, 180*policy.Dollar, usageOf(t, s, "alice", at).Untracked.Day, "it was there all the time")
	// A look that began at the moment in which the one before was written down sees that it is gone.
	require.NoError(t, s.Sight(t.Context(), "acct", at, nil))
	there, err := s.Sighted(t.Context())
	require.NoError(t, err)
	require.Empty(t, there)
	require.Equal(t, 180*policy.Dollar, usageOf(t, s, "alice", at.Add(time.Hour)).Untracked.Day, "it costs no more")
	require.Zero(t, usageOf(t, s, "alice", at.Add(time.Hour)).Untracked.BurnPerHour)
}

func testTouch(t *testing.T, s lease.Store) {
	at, err := s.Touched(t.Context(), "abcdefghijkl")
	require.NoError(t, err)
	require.True(t, at.IsZero())
	require.NoError(t, s.Touch(t.Context(), "abcdefghijkl", noon))
	require.NoError(t, s.Touch(t.Context(), "abcdefghijkl", noon.Add(-time.Hour)))
	at, err = s.Touched(t.Context(), "abcdefghijkl")
	require.NoError(t, err)
	require.Equal(t, noon, at)
}

func testAdopt(t *testing.T, s lease.Store) {
	l := intent("adopted", policy.Dollar)
	l.State, l.InstanceID, l.Account = lease.Ready, "i-1", "acct"
	_, err := s.Adopt(t.Context(), intent("adopted", policy.Dollar), noon, "no instance")
	require.ErrorIs(t, err, ledger.ErrInvalid)
	require.NoError(t, s.Sight(t.Context(), "acct", noon, []lease.Stranger{{Instance: "i-1", Price: policy.Dollar}}))
	require.NoError(t, s.Freeze(t.Context(), lease.Freeze{At: noon, By: "bob"}))
	got, err := s.Adopt(t.Context(), l, noon, "found in the account")
	require.NoError(t, err, "an adoption launches nothing")
	l.Version = 1
	require.Equal(t, l, got)
	there, err := s.Sighted(t.Context())
	require.NoError(t, err)
	require.Empty(t, there)
	h, err := s.History(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, "found in the account", h[0].Note)
	again := intent("adopted", policy.Dollar)
	again.State, again.InstanceID = lease.Ready, "i-1"
	_, err = s.Adopt(t.Context(), again, noon, "twice")
	require.ErrorIs(t, err, ledger.ErrDuplicate)
}
