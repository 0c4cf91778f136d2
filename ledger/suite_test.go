package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// noon is when the tests' clock begins.
var noon = time.Date(2026, 3, 18, 12, 0, 0, 0, time.UTC)

// periods are those of noon's day, a Wednesday.
var periods = lease.Periods{
	Day:   time.Date(2026, 3, 18, 0, 0, 0, 0, time.UTC),
	Week:  time.Date(2026, 3, 16, 0, 0, 0, 0, time.UTC),
	Month: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
}

// newID makes a lease ID.
func newID() lease.ID {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	var b strings.Builder
	for range 12 {
		b.WriteByte(alphabet[rand.IntN(len(alphabet))])
	}
	return lease.ID(b.String())
}

// intent is a lease that reserves m for the principal.
func intent(principal string, m policy.Money) lease.Lease {
	id := newID()
	return lease.Lease{
		ID: id, State: lease.Launching, Principal: principal, Type: "gpu_1x_a10", GPUs: 1, Price: policy.Dollar, Reserved: m,
		Name: "gl-test-" + string(id), CreatedAt: noon, ReservedAt: noon,
	}
}

func allow(policy.Usage) policy.Decision { return policy.Decision{Verdict: policy.Allow} }

// under allows what keeps the account's lifetime total within limit.
func under(limit, m policy.Money) func(policy.Usage) policy.Decision {
	return func(u policy.Usage) policy.Decision {
		if u.Account.Lifetime+m > limit {
			return policy.Decision{Verdict: policy.Deny, WorstCase: m, PolicyHash: "hash", Violations: []policy.Violation{{Rule: "caps.lifetime", Limit: limit.String()}}}
		}
		return policy.Decision{Verdict: policy.Allow, WorstCase: m, PolicyHash: "hash"}
	}
}

func reserve(t *testing.T, s lease.Store, l lease.Lease) lease.Lease {
	t.Helper()
	res, err := s.Reserve(t.Context(), l, l.CreatedAt, periods, allow)
	require.NoError(t, err)
	require.False(t, res.Existing)
	return res.Lease
}

func update(t *testing.T, s lease.Store, l lease.Lease) lease.Lease {
	t.Helper()
	l, err := s.Update(t.Context(), l, "to "+string(l.State))
	require.NoError(t, err)
	return l
}

// end settles a lease.
func end(t *testing.T, s lease.Store, l lease.Lease, cost policy.Money, at time.Time) lease.Lease {
	t.Helper()
	l.State, l.Reserved, l.Cost, l.EndedAt = lease.Ended, 0, cost, at
	return update(t, s, l)
}

// testStore is what every lease.Store has to pass. open returns a new, empty store.
func testStore(t *testing.T, open func(t *testing.T) lease.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, lease.Store)
	}{
		{"every field comes back", testFields},
		{"text that is not UTF-8 is mended", testText},
		{"a denial writes no lease", testDenied},
		{"a lease has to begin well", testBegin},
		{"an idempotency key gives the same lease for ever", testIdempotency},
		{"a key is taken once though many ask", testIdempotencyRace},
		{"an old version conflicts", testConflict},
		{"one of many writers wins", testConflictRace},
		{"only allowed changes of state", testTransitions},
		{"the ledger's own rules", testRules},
		{"no other lease's instance or name", testDuplicates},
		{"reserving anew leaves the lease itself out", testRereserve},
		{"usage", testUsage},
		{"usage of a lease that is overdue", testOverdue},
		{"order of lists", testLists},
		{"history", testHistory},
		{"guards", testGuards},
		{"never over a cap, and all that fits is given", testCap},
		{"a context that is done", testContext},
		{"what needs approval waits and holds nothing", testAwaits},
		{"a freeze stops reservations and launch calls", testFreeze},
		{"a clock that went backwards reserves nothing", testClock},
		{"strangers count as spending", testStrangers},
		{"strangers that were not seen for long", testStrangerGap},
		{"uses", testTouch},
		{"adoption", testAdopt},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// filled is a lease with every field set.
func filled(t *testing.T) lease.Lease {
	l := intent("alice", 5*policy.Dollar)
	v := reflect.ValueOf(&l).Elem()
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case !f.IsZero():
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(noon.Add(time.Duration(i) * time.Millisecond)))
		case f.CanInt():
			f.SetInt(int64(i))
		case f.Kind() == reflect.String:
			f.SetString("the " + name)
		default:
			require.Failf(t, "a kind of field that this test does not know", "%s %s", name, f.Type())
		}
	}
	return l
}

func testFields(t *testing.T, s lease.Store) {
	l := filled(t)
	res, err := s.Reserve(t.Context(), l, noon, periods, allow)
	require.NoError(t, err)
	l.Version = 1
	require.Equal(t, l, res.Lease)
	got, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)

	// Times come back as they are returned: whole milliseconds in UTC.
	zone := time.FixedZone("east", 3600)
	got.Deadline = time.Date(2026, 3, 18, 13, 0, 0, 1_999_999, zone)
	got.SeenAt = time.Time{}
	got, err = s.Update(t.Context(), got, "moved")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 3, 18, 12, 0, 0, 1_000_000, time.UTC), got.Deadline)
	require.True(t, got.SeenAt.IsZero())
	require.EqualValues(t, 2, got.Version)
	again, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, got, again)
}

func testText(t *testing.T, s lease.Store) {
	l := intent("a", 0)
	l.Purpose = "broken \xff and \x00 end, ünï 😀"
	l = reserve(t, s, l)
	require.Equal(t, "broken \uFFFD and \uFFFD end, ünï 😀", l.Purpose)
	got, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	_, err = s.Update(t.Context(), l, "\xff\x00")
	require.NoError(t, err)
	h, err := s.History(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, "\uFFFD\uFFFD", h[1].Note)
}

func testDenied(t *testing.T, s lease.Store) {
	for _, verdict := range []policy.Verdict{policy.Deny, ""} {
		l := intent("a", policy.Dollar)
		l.IdempotencyKey = "k"
		res, err := s.Reserve(t.Context(), l, noon, periods, func(policy.Usage) policy.Decision { return policy.Decision{Verdict: verdict, PolicyHash: "h"} })
		require.NoError(t, err)
		require.Equal(t, verdict, res.Decision.Verdict)
		require.Equal(t, "h", res.Decision.PolicyHash)
		require.False(t, res.Existing, "a denial leaves the key free")
		_, err = s.Get(t.Context(), l.ID)
		require.ErrorIs(t, err, lease.ErrNotFound)
		_, err = s.ByKey(t.Context(), "a", "k")
		require.ErrorIs(t, err, lease.ErrNotFound)
	}
	u, err := s.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.Zero(t, u)
	require.Panics(t, func() {
		_, _ = s.Reserve(t.Context(), intent("a", 1), noon, periods, func(policy.Usage) policy.Decision { panic("decide") })
	})
	reserve(t, s, intent("a", 1)) // nothing was left locked
}

func testBegin(t *testing.T, s lease.Store) {
	for name, change := range map[string]func(*lease.Lease){
		"no id":              func(l *lease.Lease) { l.ID = "" },
		"an id of ours only": func(l *lease.Lease) { l.ID = "Not-An-ID" },
		"ended":              func(l *lease.Lease) { l.State, l.EndedAt, l.Reserved = lease.Ended, noon, 0 },
		"no state":           func(l *lease.Lease) { l.State = "" },
		"unknown state":      func(l *lease.Lease) { l.State = "paused" },
		"negative hold":      func(l *lease.Lease) { l.Reserved = -1 },
		"negative price":     func(l *lease.Lease) { l.Price = -1 },
		"no time":            func(l *lease.Lease) { l.CreatedAt = time.Time{} },
	} {
		l := intent("a", policy.Dollar)
		change(&l)
		_, err := s.Reserve(t.Context(), l, noon, periods, allow)
		require.Error(t, err, name)
	}
	l := reserve(t, s, intent("a", policy.Dollar))
	_, err := s.Reserve(t.Context(), l, noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrDuplicate, "the same lease twice")
	all, err := s.List(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, []lease.Lease{l}, all)
}

func testIdempotency(t *testing.T, s lease.Store) {
	first := intent("alice", policy.Dollar)
	first.IdempotencyKey = "train"
	first = reserve(t, s, first)

	repeat := func(principal string) (lease.Reservation, int) {
		l, asked := intent(principal, policy.Dollar), 0
		l.IdempotencyKey = "train"
		res, err := s.Reserve(t.Context(), l, noon.Add(100*24*time.Hour), periods, func(policy.Usage) policy.Decision {
			asked++
			return policy.Decision{Verdict: policy.Allow}
		})
		require.NoError(t, err)
		return res, asked
	}
	res, asked := repeat("alice")
	require.Equal(t, lease.Reservation{Lease: first, Existing: true}, res)
	require.Zero(t, asked, "nothing is decided")

	first = end(t, s, first, policy.Dollar, noon)
	res, _ = repeat("alice")
	require.Equal(t, lease.Reservation{Lease: first, Existing: true}, res, "also after the end")
	got, err := s.ByKey(t.Context(), "alice", "train")
	require.NoError(t, err)
	require.Equal(t, first, got)

	_, err = s.ByKey(t.Context(), "bob", "train")
	require.ErrorIs(t, err, lease.ErrNotFound)
	res, _ = repeat("bob")
	require.False(t, res.Existing, "keys of one principal are nothing to another")

	reserve(t, s, intent("alice", 0))
	reserve(t, s, intent("alice", 0))
	_, err = s.ByKey(t.Context(), "alice", "")
	require.ErrorIs(t, err, lease.ErrNotFound, "no key is not a key")
}

func testIdempotencyRace(t *testing.T, s lease.Store) {
	ids := make([]lease.ID, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			l := intent("a", policy.Dollar)
			l.IdempotencyKey = "once"
			res, err := s.Reserve(t.Context(), l, noon, periods, allow)
			assert.NoError(t, err)
			ids[i] = res.Lease.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	u, err := s.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.Equal(t, policy.Dollar, u.Account.Day)
}

func testConflict(t *testing.T, s lease.Store) {
	old := reserve(t, s, intent("a", policy.Dollar))
	l := old
	l.State = lease.Booting
	l = update(t, s, l)

	stale := old
	stale.Detail = "I know better"
	got, err := s.Update(t.Context(), stale, "")
	require.ErrorIs(t, err, lease.ErrConflict)
	require.Equal(t, stale, got, "the caller keeps what it had")
	_, _, err = s.Rereserve(t.Context(), stale, noon, periods, "", allow)
	require.ErrorIs(t, err, lease.ErrConflict)
	future := l
	future.Version++
	_, err = s.Update(t.Context(), future, "")
	require.ErrorIs(t, err, lease.ErrConflict)

	unknown := intent("a", 0)
	_, err = s.Update(t.Context(), unknown, "")
	require.ErrorIs(t, err, lease.ErrNotFound)
	_, _, err = s.Rereserve(t.Context(), unknown, noon, periods, "", allow)
	require.ErrorIs(t, err, lease.ErrNotFound)
	_, err = s.Get(t.Context(), unknown.ID)
	require.ErrorIs(t, err, lease.ErrNotFound)

	now, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, now, "nothing of all this was written")
}

func testConflictRace(t *testing.T, s lease.Store) {
	l := reserve(t, s, intent("a", policy.Dollar))
	const writers = 16
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			mine := l
			mine.State, mine.Detail = lease.Booting, fmt.Sprint(i)
			_, errs[i] = s.Update(t.Context(), mine, "")
		})
	}
	wg.Wait()
	won := 0
	got, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	for i, err := range errs {
		if err == nil {
			won++
			require.Equal(t, fmt.Sprint(i), got.Detail)
			continue
		}
		require.ErrorIs(t, err, lease.ErrConflict)
	}
	require.Equal(t, 1, won)
	require.EqualValues(t, 2, got.Version)
}

func testTransitions(t *testing.T, s lease.Store) {
	// reach is how to come to a state from the first of its list.
	reach := map[lease.State][]lease.State{
		lease.WaitingCapacity:  {lease.WaitingCapacity},
		lease.AwaitingApproval: {lease.AwaitingApproval},
		lease.Launching:        {lease.Launching},
		lease.Booting:          {lease.Launching, lease.Booting},
		lease.Ready:            {lease.Launching, lease.Booting, lease.Ready},
		lease.Stopping:         {lease.Launching, lease.Stopping},
		lease.Ended:            {lease.Launching, lease.Ended},
	}
	set := func(l lease.Lease, to lease.State) lease.Lease {
		l.State = to
		if to == lease.Ended {
			l.Reserved, l.EndedAt = 0, noon
		}
		return l
	}
	for from, path := range reach {
		for _, to := range lease.States() {
			l := intent("a", policy.Dollar)
			l.State = path[0]
			l = reserve(t, s, l)
			for _, step := range path[1:] {
				l = update(t, s, set(l, step))
			}
			_, err := s.Update(t.Context(), set(l, to), "")
			if from.CanBecome(to) {
				require.NoError(t, err, "%s to %s", from, to)
				continue
			}
			require.ErrorIs(t, err, ledger.ErrTransition, "%s to %s", from, to)
			require.NotErrorIs(t, err, lease.ErrConflict, "trying again would never help")
			_, _, err = s.Rereserve(t.Context(), set(l, to), noon, periods, "", allow)
			require.ErrorIs(t, err, ledger.ErrTransition, "%s to %s", from, to)
			got, err := s.Get(t.Context(), l.ID)
			require.NoError(t, err)
			require.Equal(t, l, got)
		}
	}
}

func testRules(t *testing.T, s lease.Store) {
	l := intent("alice", 5*policy.Dollar)
	l.IdempotencyKey = "k"
	l = reserve(t, s, l)
	for name, c := range map[string]struct {
		change func(*lease.Lease)
		want   error
	}{
		"more reserved":            {func(l *lease.Lease) { l.Reserved++ }, ledger.ErrUnreserved},
		"negative reservation":     {func(l *lease.Lease) { l.Reserved = -1 }, ledger.ErrInvalid},
		"negative cost":            {func(l *lease.Lease) { l.Cost = -1 }, ledger.ErrInvalid},
		"ended but reserved":       {func(l *lease.Lease) { l.State, l.EndedAt = lease.Ended, noon }, ledger.ErrInvalid},
		"ended, nobody knows when": {func(l *lease.Lease) { l.State, l.Reserved = lease.Ended, 0 }, ledger.ErrInvalid},
		"another principal":        {func(l *lease.Lease) { l.Principal = "bob" }, ledger.ErrImmutable},
		"another key":              {func(l *lease.Lease) { l.IdempotencyKey = "" }, ledger.ErrImmutable},
		"another time":             {func(l *lease.Lease) { l.CreatedAt = l.CreatedAt.Add(-time.Hour) }, ledger.ErrImmutable},
	} {
		bad := l
		c.change(&bad)
		got, err := s.Update(t.Context(), bad, "")
		require.ErrorIs(t, err, c.want, name)
		require.Equal(t, bad, got, name)
	}
	got, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	l.Reserved--
	update(t, s, l)
}

func testDuplicates(t *testing.T, s lease.Store) {
	a, b := reserve(t, s, intent("a", 0)), reserve(t, s, intent("a", 0))
	a.InstanceID = "i-1"
	update(t, s, a)
	b.InstanceID = "i-1"
	_, err := s.Update(t.Context(), b, "")
	require.ErrorIs(t, err, ledger.ErrDuplicate)
	require.NotErrorIs(t, err, lease.ErrConflict)
	c := intent("a", 0)
	c.Name = a.Name
	_, err = s.Reserve(t.Context(), c, noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrDuplicate)
}

func testRereserve(t *testing.T, s lease.Store) {
	l := reserve(t, s, intent("alice", 4*policy.Dollar))
	reserve(t, s, intent("alice", policy.Dollar))
	reserve(t, s, intent("bob", 2*policy.Dollar))

	l.State, l.Reserved, l.Detail = lease.Booting, 7*policy.Dollar, "longer"
	var seen policy.Usage
	got, d, err := s.Rereserve(t.Context(), l, noon, periods, "extend", func(u policy.Usage) policy.Decision {
		seen = u
		return policy.Decision{Verdict: policy.Deny, PolicyHash: "no"}
	})
	require.NoError(t, err)
	require.Equal(t, policy.Deny, d.Verdict)
	require.Equal(t, l, got)
	totals := func(n int, m policy.Money) policy.Totals {
		return policy.Totals{Leases: n, GPUs: n, LaunchesLastHour: n, BurnPerHour: policy.Money(n) * policy.Dollar, Day: m, Week: m, Month: m, Lifetime: m}
	}
	require.Equal(t, policy.Usage{Account: totals(2, 3*policy.Dollar), Principal: totals(1, policy.Dollar)}, seen)
	now, err := s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, 4*policy.Dollar, now.Reserved, "a denial changes nothing")

	got, d, err = s.Rereserve(t.Context(), l, noon, periods, "extend", under(10*policy.Dollar, 7*policy.Dollar))
	require.NoError(t, err)
	require.Equal(t, policy.Allow, d.Verdict)
	l.Version++
	require.Equal(t, l, got)
	now, err = s.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, now)
	h, err := s.History(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, lease.Event{At: noon, From: lease.Launching, To: lease.Booting, Note: "extend", Lease: l.ID}, h[1])
}

func testUsage(t *testing.T, s lease.Store) {
	add := func(principal string, gpus int, price, reserved policy.Money, created time.Time) lease.Lease {
		l := intent(principal, reserved)
		l.GPUs, l.Price, l.CreatedAt, l.ReservedAt = gpus, price, created, created
		return reserve(t, s, l)
	}
	day := 24 * time.Hour
	add("bob", 2, 2*policy.Dollar, 7*policy.Dollar, noon.Add(-60*day))
	for _, e := range []struct {
		principal string
		cost      policy.Money
		ended     time.Time
	}{
		{"alice", 100_000, periods.Month.Add(-time.Millisecond)},
		{"bob", 10_000, periods.Month},
		{"alice", 1000, periods.Week.Add(-time.Millisecond)},
		{"bob", 100, periods.Week},
		{"alice", 10, periods.Day.Add(-time.Millisecond)},
		{"alice", 1, periods.Day},
	} {
		end(t, s, add(e.principal, 4, policy.Dollar, policy.Dollar, e.ended), e.cost, e.ended)
	}
	add("bob", 2, 2*policy.Dollar, 5*policy.Dollar, noon.Add(-61*time.Minute))
	add("alice", 1, policy.Dollar, 3*policy.Dollar, noon.Add(-59*time.Minute))
	add("alice", 8, 20*policy.Dollar, 100*policy.Dollar, noon)

	alice := policy.Totals{
		Leases: 2, GPUs: 9, LaunchesLastHour: 2, BurnPerHour: 21 * policy.Dollar,
		Day: 103*policy.Dollar + 1, Week: 103*policy.Dollar + 11, Month: 103*policy.Dollar + 1011, Lifetime: 103*policy.Dollar + 101_011,
	}
	all := policy.Totals{
		Leases: 4, GPUs: 13, LaunchesLastHour: 2, BurnPerHour: 25 * policy.Dollar,
		Day: 115*policy.Dollar + 1, Week: 115*policy.Dollar + 111, Month: 115*policy.Dollar + 11_111, Lifetime: 115*policy.Dollar + 111_111,
	}
	want := policy.Usage{Account: all, Principal: alice}
	u, err := s.Usage(t.Context(), "alice", noon, periods)
	require.NoError(t, err)
	require.Equal(t, want, u)
	var handed policy.Usage
	_, err = s.Reserve(t.Context(), intent("alice", 0), noon, periods, func(u policy.Usage) policy.Decision { handed = u; return policy.Decision{} })
	require.NoError(t, err)
	require.Equal(t, want, handed)
	u, err = s.Usage(t.Context(), "carol", noon, periods)
	require.NoError(t, err)
	require.Equal(t, policy.Usage{Account: all}, u)
}

// A lease that nobody has ended in time counts with what it costs, once that is more than it has reserved.
func testOverdue(t *testing.T, s lease.Store) {
	l := intent("alice", 2*policy.Dollar) // at $1 an hour
	l.BillingFrom = noon
	reserve(t, s, l)
	for hours, want := range map[int]policy.Money{1: 2 * policy.Dollar, 2: 2 * policy.Dollar, 5: 5 * policy.Dollar} {
		u, err := s.Usage(t.Context(), "alice", noon.Add(time.Duration(hours)*time.Hour), periods)
		require.NoError(t, err)
		for _, got := range []policy.Totals{u.Account, u.Principal} {
			require.Equal(t, policy.Totals{Leases: 1, GPUs: 1, BurnPerHour: policy.Dollar, Day: want, Week: want, Month: want, Lifetime: want},
				policy.Totals{Leases: got.Leases, GPUs: got.GPUs, BurnPerHour: got.BurnPerHour, Day: got.Day, Week: got.Week, Month: got.Month, Lifetime: got.Lifetime}, "after %d h", hours)
		}
	}
}

func testLists(t *testing.T, s lease.Store) {
	live, err := s.Live(t.Context())
	require.NoError(t, err)
	require.Empty(t, live)
	var made []lease.Lease
	for i := range 5 {
		l := intent("a", 0)
		l.CreatedAt = noon.Add(time.Duration(i/2) * time.Second) // some at the same moment
		made = append(made, reserve(t, s, l))
	}
	made[1] = end(t, s, made[1], 0, noon)
	live, err = s.Live(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lease.Lease{made[0], made[2], made[3], made[4]}, live)
	for limit, want := range map[int][]lease.Lease{
		0: {made[4], made[3], made[2], made[1], made[0]}, 2: {made[4], made[3]}, 9: {made[4], made[3], made[2], made[1], made[0]},
	} {
		got, err := s.List(t.Context(), limit)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func testHistory(t *testing.T, s lease.Store) {
	l := reserve(t, s, intent("a", policy.Dollar))
	reserve(t, s, intent("a", policy.Dollar))
	l.State = lease.Booting
	l = update(t, s, l)
	l = end(t, s, l, 42, noon)
	h, err := s.History(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, []lease.Event{
		{At: noon, From: "", To: lease.Launching, Note: "reserved", Lease: l.ID},
		{At: noon, From: lease.Launching, To: lease.Booting, Note: "to booting", Lease: l.ID},
		{At: noon, From: lease.Booting, To: lease.Ended, Note: "to ended", Cost: 42, Lease: l.ID},
	}, h)
	h, err = s.History(t.Context(), newID())
	require.NoError(t, err)
	require.Empty(t, h)
}

func testGuards(t *testing.T, s lease.Store) {
	ctx := t.Context()
	id, err := s.LedgerID(ctx)
	require.NoError(t, err)
	require.Regexp(t, "^[a-z2-7]{4}$", id)
	require.NoError(t, s.Beat(ctx, "keeper 1", noon))
	require.NoError(t, s.Beat(ctx, "server 2", noon.Add(time.Second)))
	require.NoError(t, s.Beat(ctx, "keeper 1", noon.Add(2*time.Second)))
	g, err := s.Guards(ctx)
	require.NoError(t, err)
	require.Equal(t, []lease.Guard{{Name: "keeper 1", Seen: noon.Add(2 * time.Second)}, {Name: "server 2", Seen: noon.Add(time.Second)}}, g)
	month := noon.Add(31 * 24 * time.Hour)
	require.NoError(t, s.Beat(ctx, "server 3", month))
	g, err = s.Guards(ctx)
	require.NoError(t, err)
	require.Equal(t, []lease.Guard{{Name: "server 3", Seen: month}}, g, "the silent are forgotten")
}

func testCap(t *testing.T, s lease.Store) {
	const limit, each = 10 * policy.Dollar, 300_000 // 33 fit
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 4 {
				l := intent("a", each)
				res, err := s.Reserve(t.Context(), l, noon, periods, under(limit, each))
				if !assert.NoError(t, err) || res.Decision.Verdict != policy.Allow {
					return
				}
				l = res.Lease
				l.State = lease.Booting
				_, err = s.Update(t.Context(), l, "")
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	u, err := s.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.EqualValues(t, 33*each, u.Account.Lifetime)
	require.Equal(t, 33, u.Account.Leases)
}

func testContext(t *testing.T, s lease.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := intent("a", 0)
	_, err := s.Reserve(ctx, l, noon, periods, allow)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Get(ctx, l.ID)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Live(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Beat(ctx, "g", noon), context.Canceled)
	_, err = s.Get(t.Context(), l.ID)
	require.ErrorIs(t, err, lease.ErrNotFound)

	// Once it is being decided, the caller learns the outcome.
	ctx, cancel = context.WithCancel(t.Context())
	_, err = s.Reserve(ctx, l, noon, periods, func(policy.Usage) policy.Decision {
		cancel()
		return policy.Decision{Verdict: policy.Allow}
	})
	require.NoError(t, err)
	_, err = s.Get(t.Context(), l.ID)
	require.NoError(t, err)
}
