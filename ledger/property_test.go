package ledger_test

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// model is the ledger as a list.
type model struct {
	leases      []lease.Lease
	corrections map[lease.ID]policy.Money
}

// totals adds up what the ledger should say, the slow way. principal "" is everybody.
func (m *model) totals(principal string, except lease.ID, at time.Time, p lease.Periods) (t policy.Totals) {
	for _, l := range m.leases {
		if l.ID == except || principal != "" && l.Principal != principal {
			continue
		}
		if l.CreatedAt.After(at.Add(-time.Hour)) {
			t.LaunchesLastHour++
		}
		amount := max(l.Reserved, l.CostAt(at))
		if l.State == lease.Ended {
			amount = l.Cost + m.corrections[l.ID]
		} else {
			t.Leases++
			t.GPUs += l.GPUs
			t.BurnPerHour += l.Price
		}
		t.Lifetime += amount
		for _, period := range []struct {
			start time.Time
			sum   *policy.Money
		}{{p.Day, &t.Day}, {p.Week, &t.Week}, {p.Month, &t.Month}} {
			if l.State != lease.Ended || !l.EndedAt.Before(period.start) {
				*period.sum += amount
			}
		}
	}
	return t
}

// behind reports whether the ledger has to take a time for a clock that went backwards.
func (m *model) behind(at time.Time) bool {
	var newest time.Time
	for _, l := range m.leases {
		for _, t := range []time.Time{l.CreatedAt, l.ReservedAt, l.EndedAt} {
			if t.After(newest) {
				newest = t
			}
		}
	}
	return lease.CheckClock(at, newest) != nil
}

func (m *model) usage(principal string, except lease.ID, at time.Time, p lease.Periods) policy.Usage {
	return policy.Usage{Account: m.totals("", except, at, p), Principal: m.totals(principal, except, at, p)}
}

func periodsAt(at time.Time) lease.Periods {
	y, m, d := at.Date()
	return lease.Periods{
		Day:   time.Date(y, m, d, 0, 0, 0, 0, time.UTC),
		Week:  time.Date(y, m, d-(int(at.Weekday())+6)%7, 0, 0, 0, 0, time.UTC),
		Month: time.Date(y, m, 1, 0, 0, 0, 0, time.UTC),
	}
}

// Whatever happens, in whatever order: what is handed to decide is what the leases add up to, and a cap that it keeps is kept.
func TestUsageIsTheSum(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		blank := b.fresh
		if b.name == onSQLite.name { // making a file takes longer than copying one
			empty := filepath.Join(t.TempDir(), "empty.db")
			db, err := ledger.Open(t.Context(), empty, ledger.Options{})
			require.NoError(t, err)
			require.NoError(t, db.Close())
			raw, err := os.ReadFile(empty)
			require.NoError(t, err)
			blank = func(t testing.TB) string {
				path := filepath.Join(t.TempDir(), "ledger.db")
				require.NoError(t, os.WriteFile(path, raw, 0o600))
				return path
			}
		} else { // each step takes ten times as long
			defer fewerChecks(t)()
		}
		testUsageIsTheSum(t, blank)
	})
}

// fewerChecks makes rapid check a tenth as often, until it is undone.
func fewerChecks(t *testing.T) (undo func()) {
	const name = "rapid.checks"
	was := flag.Lookup(name).Value.String()
	n, err := strconv.Atoi(was)
	require.NoError(t, err)
	require.NoError(t, flag.Set(name, strconv.Itoa(max(1, n/10))))
	return func() { require.NoError(t, flag.Set(name, was)) }
}

func testUsageIsTheSum(t *testing.T, blank func(testing.TB) string) {
	principals := []string{"alice", "bob", "carol"}
	rapid.Check(t, func(r *rapid.T) {
		c := newClock()
		path := blank(t)
		var db *ledger.DB
		reopen := func() {
			var err error
			db, err = ledger.Open(t.Context(), path, ledger.Options{Now: c.Now})
			require.NoError(r, err)
			require.NoError(r, db.Unsynced(t.Context()))
		}
		reopen()
		defer func() { require.NoError(r, db.Close()) }()
		m := &model{corrections: map[lease.ID]policy.Money{}}
		limit := policy.Money(rapid.IntRange(0, 3000).Draw(r, "cap"))

		// decide keeps the lifetime total under the cap, and checks what it is told.
		decide := func(principal string, except lease.ID, more policy.Money) func(policy.Usage) policy.Decision {
			return func(u policy.Usage) policy.Decision {
				require.Equal(r, m.usage(principal, except, c.Now(), periodsAt(c.Now())), u)
				if u.Account.Lifetime+more > limit {
					return policy.Decision{Verdict: policy.Deny}
				}
				return policy.Decision{Verdict: policy.Allow}
			}
		}
		pick := func(r *rapid.T, live bool) *lease.Lease {
			var fit []*lease.Lease
			for i := range m.leases {
				if (m.leases[i].State != lease.Ended) == live {
					fit = append(fit, &m.leases[i])
				}
			}
			if len(fit) == 0 {
				r.Skip("none")
			}
			return rapid.SampledFrom(fit).Draw(r, "lease")
		}
		amount := rapid.Custom(func(r *rapid.T) policy.Money { return policy.Money(rapid.IntRange(0, 800).Draw(r, "µ$")) })

		r.Repeat(map[string]func(*rapid.T){
			"time passes": func(r *rapid.T) {
				hours := rapid.IntRange(-2, 24*20).Draw(r, "hours") // now and then backwards
				c.add(time.Duration(hours)*time.Hour + time.Duration(rapid.IntRange(0, 3_600_000).Draw(r, "ms"))*time.Millisecond)
			},
			"reserve": func(r *rapid.T) {
				l := intent(rapid.SampledFrom(principals).Draw(r, "principal"), amount.Draw(r, "hold"))
				l.State = rapid.SampledFrom([]lease.State{lease.WaitingCapacity, lease.Launching}).Draw(r, "state")
				l.GPUs, l.CreatedAt, l.ReservedAt = rapid.IntRange(0, 8).Draw(r, "gpus"), c.Now(), c.Now()
				l.Price = policy.Money(rapid.IntRange(0, 600).Draw(r, "price"))
				if rapid.Bool().Draw(r, "billed") { // and overdue before long, where time passes
					l.BillingFrom = c.Now()
				}
				res, err := db.Reserve(t.Context(), l, c.Now(), periodsAt(c.Now()), decide(l.Principal, "", l.Reserved))
				if m.behind(c.Now()) {
					require.ErrorIs(r, err, lease.ErrClock)
					return
				}
				require.NoError(r, err)
				if res.Decision.Verdict == policy.Allow {
					m.leases = append(m.leases, res.Lease)
				}
			},
			"reserve anew": func(r *rapid.T) {
				was := pick(r, true)
				l := *was
				l.Reserved = amount.Draw(r, "hold")
				got, d, err := db.Rereserve(t.Context(), l, c.Now(), periodsAt(c.Now()), "", decide(l.Principal, l.ID, l.Reserved))
				if m.behind(c.Now()) {
					require.ErrorIs(r, err, lease.ErrClock)
					return
				}
				require.NoError(r, err)
				if d.Verdict == policy.Allow {
					*was = got
				}
			},
			"give back": func(r *rapid.T) {
				l := pick(r, true)
				next := *l
				next.Reserved = min(next.Reserved, amount.Draw(r, "hold"))
				got, err := db.Update(t.Context(), next, "")
				require.NoError(r, err)
				*l = got
			},
			"end": func(r *rapid.T) {
				l := pick(r, true)
				next := *l
				next.State, next.Reserved, next.Cost, next.EndedAt = lease.Ended, 0, policy.Money(rapid.Int64Range(0, int64(l.Reserved)).Draw(r, "cost")), c.Now()
				got, err := db.Update(t.Context(), next, "")
				require.NoError(r, err)
				*l = got
			},
			"correct": func(r *rapid.T) {
				l := pick(r, false)
				by := policy.Money(rapid.Int64Range(-int64(l.Cost), 0).Draw(r, "by")) // a rise would break the cap, rightly
				err := db.Correct(t.Context(), l.ID, by, c.Now(), "")
				if l.Cost+m.corrections[l.ID]+by < 0 {
					require.ErrorIs(r, err, ledger.ErrInvalid)
					return
				}
				require.NoError(r, err)
				m.corrections[l.ID] += by
			},
			"reopen": func(r *rapid.T) {
				require.NoError(r, db.Close())
				reopen()
			},
			"": func(r *rapid.T) {
				p := rapid.SampledFrom(principals).Draw(r, "seen by")
				u, err := db.Usage(t.Context(), p, c.Now(), periodsAt(c.Now()))
				require.NoError(r, err)
				require.Equal(r, m.usage(p, "", c.Now(), periodsAt(c.Now())), u)
				held := policy.Money(0)
				for _, l := range m.leases {
					held += l.Reserved + l.Cost + m.corrections[l.ID]
				}
				require.LessOrEqual(r, held, limit)
			},
		})
		all, err := db.List(t.Context(), 0)
		require.NoError(r, err)
		require.Len(r, all, len(m.leases))
		require.NoError(r, db.Verify(t.Context()))
	})
}
