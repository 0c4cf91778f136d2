package ledger_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
	"github.com/gpulease/gpulease/policy"
)

// The connection breaks during a commit. The caller is told that the outcome is not known; a repeat either writes it or finds it, and
// never writes it twice.
func TestACommitThatIsCutOff(t *testing.T) {
	for _, c := range []struct {
		name    string
		mode    int32
		written bool
	}{
		{"before the server has seen it", cutBefore, false},
		{"before its answer has come", cutAfter, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			direct, l := closedOn(t, onPostgres)
			address, p := throughProxy(t, direct)
			db, other := open(t, address), open(t, direct)
			cut := func(do func() error) {
				t.Helper()
				before := p.cuts.Load()
				p.set(c.mode)
				err := do()
				p.set(passing)
				require.ErrorIs(t, err, ledger.ErrUnknown)
				require.Equal(t, before+1, p.cuts.Load(), "it was cut off at the commit")
			}
			used := func() policy.Money {
				t.Helper()
				require.NoError(t, other.Beat(t.Context(), "server 1", noon)) // behind whatever is under way
				return usageOf(t, other, "a", noon).Account.Lifetime
			}
			before := used()

			plain := intent("a", 7)
			again := func() (lease.Reservation, error) { return db.Reserve(t.Context(), plain, noon, periods, allow) }
			cut(func() error { _, err := again(); return err })
			if c.written {
				require.Equal(t, before+7, used())
				_, err := again()
				require.ErrorIs(t, err, ledger.ErrDuplicate, "its id is there")
			} else {
				require.Equal(t, before, used())
				_, err := again()
				require.NoError(t, err)
			}
			require.Equal(t, before+7, used(), "once")

			keyed := intent("a", 20)
			keyed.IdempotencyKey = "train"
			cut(func() error { _, err := db.Reserve(t.Context(), keyed, noon, periods, allow); return err })
			like := intentLike(keyed)
			res, err := db.Reserve(t.Context(), like, noon, periods, allow)
			require.NoError(t, err)
			require.Equal(t, c.written, res.Existing)
			require.Equal(t, c.written, res.Lease.ID == keyed.ID)
			require.Equal(t, before+27, used(), "once")

			booting := l
			booting.State, booting.Detail = lease.Booting, "once"
			cut(func() error { _, err := db.Update(t.Context(), booting, "to booting"); return err })
			_, err = db.Update(t.Context(), booting, "to booting")
			if c.written {
				require.ErrorIs(t, err, lease.ErrConflict, "its version is there")
			} else {
				require.NoError(t, err)
			}
			got, err := db.Get(t.Context(), l.ID)
			require.NoError(t, err)
			require.Equal(t, "once", got.Detail)
			require.EqualValues(t, 2, got.Version)
			h, err := db.History(t.Context(), l.ID)
			require.NoError(t, err)
			require.Len(t, h, 2)

			gate := db.Gate("acct")
			slot := lambda.Slot{Name: lambda.SlotLaunches, Every: time.Minute}
			cut(func() error { _, err := gate.Take(t.Context(), slot); return err })
			wait, err := gate.Take(t.Context(), slot)
			require.NoError(t, err)
			require.Equal(t, c.written, wait > 0, "a slot that was taken is wasted, never used twice")
			require.NoError(t, other.Verify(t.Context()))
		})
	}
}

// The connection breaks in the middle of a write.
func TestAWriteThatIsCutOff(t *testing.T) {
	direct, _ := closedOn(t, onPostgres)
	address, p := throughProxy(t, direct)
	db := open(t, address)
	l := intent("a", 7)
	_, err := db.Reserve(t.Context(), l, noon, periods, func(policy.Usage) policy.Decision {
		p.breakAll()
		return policy.Decision{Verdict: policy.Allow}
	})
	require.ErrorIs(t, err, ledger.ErrAway)
	require.NotErrorIs(t, err, ledger.ErrUnknown, "it is known that nothing was written")
	_, err = db.Get(t.Context(), l.ID)
	require.ErrorIs(t, err, lease.ErrNotFound)
	reserve(t, db, l)
}

// Whoever waits for a server that says nothing any more waits as long as the ledger's patience, or their own if that is shorter.
func TestAServerThatFallsSilent(t *testing.T) {
	direct, l := closedOn(t, onPostgres)
	address, p := throughProxy(t, direct)
	for name, do := range map[string]func(*ledger.DB, context.Context) error{
		"a read":  func(db *ledger.DB, ctx context.Context) error { _, err := db.Get(ctx, l.ID); return err },
		"a write": func(db *ledger.DB, ctx context.Context) error { _, err := db.Update(ctx, l, ""); return err },
		"in the middle of a write": func(db *ledger.DB, ctx context.Context) error {
			p.set(passing)
			_, err := db.Reserve(ctx, intent("a", 1), noon, periods, func(policy.Usage) policy.Decision { p.set(silent); return policy.Decision{Verdict: policy.Allow} })
			return err
		},
		"a first contact": func(_ *ledger.DB, ctx context.Context) error {
			_, err := ledger.Open(ctx, address, ledger.Options{BusyTimeout: 2 * time.Second})
			return err
		},
		"the lead": func(db *ledger.DB, _ context.Context) error {
			leader := db.Leader()
			lead, err := leader.Try("acct")
			require.False(t, lead)
			require.NoError(t, leader.Close())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.set(passing)
			db := impatient(t, address)
			require.NoError(t, db.Beat(t.Context(), "server 1", noon))
			p.set(silent)
			began := time.Now()
			require.ErrorIs(t, do(db, t.Context()), ledger.ErrAway)
			require.Less(t, time.Since(began), 10*time.Second)
			p.set(passing)
			require.Eventually(t, func() bool { return db.Beat(t.Context(), "server 1", noon) == nil }, 10*time.Second, 10*time.Millisecond, "it goes on afterwards")
		})
	}
	t.Run("the caller's own patience", func(t *testing.T) {
		p.set(passing)
		db := open(t, address)
		p.set(silent)
		defer p.set(passing)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := db.Get(ctx, l.ID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = db.Update(ctx, l, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 3*time.Second)
	})
}

func TestAServerThatCrashesAndComesBack(t *testing.T) {
	s, err := postgrestest.Start(t.Context())
	postgrestest.Need(t, err)
	defer func() { require.NoError(t, s.Stop()) }()
	address := s.NewAddress(t)
	db := open(t, address)
	l := reserve(t, db, intent("a", 1))
	leader := db.Leader()
	defer func() { require.NoError(t, leader.Close()) }()
	lead, err := leader.Try("acct")
	require.NoError(t, err)
	require.True(t, lead)

	require.NoError(t, s.Crash())
	began := time.Now()
	_, err = db.Get(t.Context(), l.ID)
	require.ErrorIs(t, err, ledger.ErrAway)
	_, err = db.Reserve(t.Context(), intent("a", 1), noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrAway)
	lead, err = leader.Try("acct")
	require.ErrorIs(t, err, ledger.ErrAway)
	require.False(t, lead)
	_, err = ledger.Open(t.Context(), address, ledger.Options{})
	require.ErrorIs(t, err, ledger.ErrAway)
	later, err := ledger.Open(t.Context(), address, ledger.Options{Later: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, later.Close()) }()
	_, err = later.LedgerID(t.Context())
	require.ErrorIs(t, err, ledger.ErrAway)
	_, err = later.Live(t.Context())
	require.ErrorIs(t, err, ledger.ErrAway)
	require.Less(t, time.Since(began), 8*time.Second, "none of it waits for a server that is not there")

	require.NoError(t, s.Again(t.Context()))
	for _, db := range []*ledger.DB{db, later} {
		got, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err, "what was committed survives a crash")
		require.Equal(t, l, got)
		l = update(t, db, l)
		require.NoError(t, db.Verify(t.Context()))
	}
	lead, err = leader.Try("acct")
	require.NoError(t, err)
	require.True(t, lead)
}

// A ledger whose server is away from the start makes its tables as soon as it is there.
func TestAServerThatComesLater(t *testing.T) {
	address, p := throughProxy(t, freshOnServer(t))
	p.set(refusing)
	db, err := ledger.Open(t.Context(), address, ledger.Options{Later: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Reserve(t.Context(), intent("a", 1), noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrAway)
	p.set(passing)
	reserve(t, db, intent("a", 1))
	require.NoError(t, db.Verify(t.Context()))
}

// A reader that began before a write and looks at what it has got after it has not seen a ledger that was set back.
func TestReadersBesideAWriter(t *testing.T) {
	db := open(t, freshOnServer(t))
	l := reserve(t, db, intent("a", 1))
	id := l.ID
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 6 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := db.Get(t.Context(), id); !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	for range 200 {
		l = update(t, db, l)
	}
	close(done)
	readers.Wait()
}
