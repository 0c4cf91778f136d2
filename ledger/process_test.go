package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
	"github.com/gpulease/gpulease/policy"
)

// childEnv makes the test binary one of the children, on the ledger that is its argument.
const childEnv = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](context.Background(), os.Args[1], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// A default: what the command line says comes later.
	if err := flag.Set("rapid.checks", rapidChecks); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(tidy{m})
}

// tidy ends the shared PostgreSQL server after the tests.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	code := m.M.Run()
	if err := postgrestest.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "end the PostgreSQL server:", err)
		code = max(code, 1)
	}
	return code
}

var children = map[string]func(ctx context.Context, path string, out io.Writer) error{
	"spend":  childSpend,
	"hammer": childHammer,
	"open":   childOpen,
	"race":   childRace,
}

// child is the test binary as another process.
func child(ctx context.Context, name, path string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, path)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd, nil
}

func childDB(ctx context.Context, path string) (*ledger.DB, error) {
	return ledger.Open(ctx, path, ledger.Options{Now: func() time.Time { return noon }, BusyTimeout: 30 * time.Second})
}

const (
	spendLimit = 10 * policy.Dollar
	spendEach  = policy.Money(70_000) // 142 fit
)

// childSpend reserves until it is denied, and settles every third lease at what it reserved. It prints how many it got.
func childSpend(ctx context.Context, path string, out io.Writer) error {
	db, err := childDB(ctx, path)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		res, err := db.Reserve(ctx, intent("p"+strconv.Itoa(os.Getpid()), spendEach), noon, periods, under(spendLimit, spendEach))
		if err != nil {
			return errors.Join(err, db.Close())
		}
		if res.Decision.Verdict != policy.Allow {
			_, err := fmt.Fprintln(out, n)
			return errors.Join(err, db.Close())
		}
		if l := res.Lease; n%3 == 0 {
			l.State, l.Cost, l.Reserved, l.EndedAt = lease.Ended, l.Reserved, 0, noon
			if _, err := db.Update(ctx, l, "settled"); err != nil {
				return errors.Join(err, db.Close())
			}
		}
	}
}

// Eight processes that all begin with making the ledger.
func TestProcessesNeverExceedACap(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path := b.fresh(t)
		type outcome struct {
			out []byte
			err error
		}
		outcomes := make(chan outcome)
		const processes = 8
		for range processes {
			cmd, err := child(t.Context(), "spend", path)
			require.NoError(t, err)
			cmd.Stderr = os.Stderr
			go func() { out, err := cmd.Output(); outcomes <- outcome{out, err} }()
		}
		got := 0
		var errs []error
		for range processes {
			o := <-outcomes
			n, err := strconv.Atoi(strings.TrimSpace(string(o.out)))
			got += n
			errs = append(errs, o.err, err)
		}
		require.NoError(t, errors.Join(errs...))
		require.EqualValues(t, spendLimit/spendEach, got, "all that fits and no more")

		db := open(t, path)
		require.NoError(t, db.Verify(t.Context()))
		u, err := db.Usage(t.Context(), "", noon, periods)
		require.NoError(t, err)
		require.Equal(t, policy.Money(got)*spendEach, u.Account.Lifetime)
		decisions, err := db.Decisions(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, decisions, got+processes, "each denial is on record")
	})
}

// childHammer reserves and settles without end, and says so after each commit.
func childHammer(ctx context.Context, path string, out io.Writer) error {
	db, err := childDB(ctx, path)
	if err != nil {
		return err
	}
	for {
		res, err := db.Reserve(ctx, intent("hammer", 10), noon, periods, allow)
		if err != nil {
			return errors.Join(err, db.Close())
		}
		l := res.Lease
		if _, err := fmt.Fprintln(out, l.ID, "reserved"); err != nil {
			return errors.Join(err, db.Close())
		}
		l.State, l.Cost, l.Reserved, l.EndedAt = lease.Ended, 3, 0, noon
		if _, err := db.Update(ctx, l, "settled"); err != nil {
			return errors.Join(err, db.Close())
		}
		if _, err := fmt.Fprintln(out, l.ID, "settled"); err != nil {
			return errors.Join(err, db.Close())
		}
	}
}

func TestKilledWriters(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		path := b.fresh(t)
		said := map[lease.ID]string{} // the last that a process has said about a lease
		for round := range 20 {
			cmd, err := child(t.Context(), "hammer", path)
			require.NoError(t, err)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			lines := bufio.NewScanner(out)
			hear := func() bool {
				if !lines.Scan() {
					return false
				}
				id, what, ok := strings.Cut(lines.Text(), " ")
				if ok && (what == "reserved" || what == "settled") { // else the kill has cut the line short
					said[lease.ID(id)] = what
				}
				return true
			}
			for range 1 + rand.IntN(12) {
				require.True(t, hear(), "the child ended by itself")
			}
			for end := time.Now().Add(time.Duration(rand.IntN(3000)) * time.Microsecond); time.Now().Before(end); {
				// At any point of the next transactions, not only after a line.
			}
			require.NoError(t, cmd.Process.Kill())
			for hear() {
			}
			require.Error(t, cmd.Wait())

			db, err := ledger.Open(t.Context(), path, ledger.Options{})
			require.NoError(t, err, "round %d", round)
			require.NoError(t, db.Verify(t.Context()), "round %d", round)
			all, err := db.List(t.Context(), 0)
			require.NoError(t, err)
			var want policy.Money
			states := map[lease.ID]lease.State{}
			for _, l := range all {
				want += l.Reserved + l.Cost
				states[l.ID] = l.State
			}
			for id, what := range said {
				switch what {
				case "reserved":
					require.Contains(t, []lease.State{lease.Launching, lease.Ended}, states[id], "lease %s was lost", id)
				case "settled":
					require.Equal(t, lease.Ended, states[id], "the settlement of %s was lost", id)
				}
			}
			require.LessOrEqual(t, len(all), len(said)+round+1, "at most one commit a kill went unsaid")
			u, err := db.Usage(t.Context(), "hammer", noon, periods)
			require.NoError(t, err)
			require.Equal(t, want, u.Principal.Lifetime)
			require.NoError(t, db.Close())
		}
	})
}

// childOpen says what comes of opening the ledger.
func childOpen(ctx context.Context, path string, out io.Writer) error {
	db, err := childDB(ctx, path)
	if err == nil {
		_, err = db.Reserve(ctx, intent("a", 1), noon, periods, allow)
		if err = errors.Join(err, db.Close()); err != nil {
			return err // what opens has to work
		}
	}
	_, err = fmt.Fprintf(out, "unwritable=%t err=%v\n", errors.Is(err, ledger.ErrUnwritable), err)
	return err
}
