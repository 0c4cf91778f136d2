package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// raceEnv is how long processes try to overspend a cap, for instance 30s.
const raceEnv = "LEDGER_RACE_TIME"

const (
	racers    = 16
	raceCap   = 100 * policy.Dollar
	raceLeast = 3 * policy.Dollar // the smallest reservation that a racer tries
)

func raceTime(t testing.TB) time.Duration {
	if v := os.Getenv(raceEnv); v != "" {
		d, err := time.ParseDuration(v)
		require.NoError(t, err, raceEnv)
		return d
	}
	return 2 * time.Second
}

// childRace reserves as much as it gets, for the time that raceEnv says, and settles a lease whenever it is denied one, so that the
// cap is always nearly reached. It prints how long each write took in nanoseconds, and at the end what it has spent.
func childRace(ctx context.Context, path string, out io.Writer) error {
	lasting, err := time.ParseDuration(os.Getenv(raceEnv))
	if err != nil {
		return err
	}
	db, err := childDB(ctx, path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	timed := func(write func() error) error {
		began := time.Now()
		err := write()
		fmt.Fprintln(w, time.Since(began).Nanoseconds())
		return err
	}
	var mine []lease.Lease
	var spent policy.Money
	denied := false
	step := func() error {
		amount := raceLeast + policy.Money(rand.Int64N(int64(policy.Dollar)))
		over := false
		var res lease.Reservation
		err := timed(func() (err error) {
			res, err = db.Reserve(ctx, intent("p"+strconv.Itoa(os.Getpid()), amount), noon, periods, func(u policy.Usage) policy.Decision {
				over = over || u.Account.Lifetime > raceCap
				return under(raceCap, amount)(u)
			})
			return err
		})
		switch {
		case err != nil:
			return err
		case over:
			return errors.New("the cap was exceeded")
		case res.Decision.Verdict == policy.Allow:
			mine = append(mine, res.Lease)
			return nil
		}
		denied = true
		if len(mine) == 0 {
			return nil
		}
		l := mine[0]
		mine = mine[1:]
		cost := policy.Money(rand.Int64N(100)) // little of the cap, so that the race goes on
		l.State, l.Cost, l.Reserved, l.EndedAt = lease.Ended, cost, 0, noon
		spent += cost
		return timed(func() error { _, err := db.Update(ctx, l, "settled"); return err })
	}
	for began := time.Now(); time.Since(began) < lasting || !denied; { // a slow computer fills the cap later
		if err := step(); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	for _, l := range mine {
		spent += l.Reserved
	}
	fmt.Fprintln(w, "spent", int64(spent))
	return errors.Join(w.Flush(), db.Close())
}

// Sixteen processes race for one cap: it is never exceeded, nobody fails, and nobody waits for ever.
func TestProcessesRaceForACap(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, lasting := b.fresh(t), raceTime(t)
		db := open(t, address)
		type outcome struct {
			out []byte
			err error
		}
		outcomes := make(chan outcome, racers)
		for range racers {
			cmd, err := child(t.Context(), "race", address)
			require.NoError(t, err)
			cmd.Env = append(cmd.Env, raceEnv+"="+lasting.String())
			cmd.Stderr = os.Stderr
			go func() { out, err := cmd.Output(); outcomes <- outcome{out, err} }()
		}
		var all []time.Duration
		var spent policy.Money
		var each []int
		var errs []error
		for seen := 0; seen < racers; {
			select {
			case o := <-outcomes:
				seen++
				errs = append(errs, o.err)
				before := len(all)
				for line := range bytes.Lines(o.out) {
					text, last := strings.CutPrefix(strings.TrimSpace(string(line)), "spent ")
					n, err := strconv.ParseInt(text, 10, 64)
					errs = append(errs, err)
					if last {
						spent += policy.Money(n)
					} else {
						all = append(all, time.Duration(n))
					}
				}
				each = append(each, len(all)-before)
			case <-time.After(20 * time.Millisecond): // look on meanwhile
				u, err := db.Usage(t.Context(), "", noon, periods)
				require.NoError(t, err)
				require.LessOrEqual(t, u.Account.Lifetime, raceCap)
			}
		}
		require.NoError(t, errors.Join(errs...))
		u, err := db.Usage(t.Context(), "", noon, periods)
		require.NoError(t, err)
		require.Equal(t, spent, u.Account.Lifetime, "what the processes know of is what is written")
		require.LessOrEqual(t, u.Account.Lifetime, raceCap)
		denied, err := db.Denials(t.Context())
		require.NoError(t, err)
		require.Positive(t, denied, "the cap was in the way")
		require.NoError(t, db.Verify(t.Context()))
		slices.Sort(all)
		at := func(percent int) time.Duration { return all[len(all)*percent/100].Round(10 * time.Microsecond) }
		t.Logf("%s: %d processes, %d writes in %s, %.0f a second; p50 %s, p99 %s, longest %s; a process made %d to %d of them; %d denials",
			b.name, racers, len(all), lasting, float64(len(all))/lasting.Seconds(), at(50), at(99), all[len(all)-1].Round(10*time.Microsecond), slices.Min(each), slices.Max(each), denied)
	})
}
