package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
)

type reapFlags struct {
	once   bool
	wait   time.Duration
	adopt  bool
	from   []string
	asJSON bool
}

// reaping is what a visit has come to.
type reaping struct {
	lease.Reaping
	Due       []lease.Lease // of our own ledger: their end is decided or overdue, and not confirmed
	Adopted   []lease.Lease
	Adoptable map[string][]lease.Reaped // by the ledger that launched them
	Problems  []error                   // what could not be done
}

func newReap(s *settings) *cobra.Command {
	var f reapFlags
	c := &cobra.Command{
		Use:   "reap",
		Short: "End what is past its time, from any computer, with nothing but the API key",
		Long: `reap looks at the account once and ends every instance of gpulease's whose hard stop has passed, of
whatever ledger: the signed name of an instance says that it is ours and when it must be gone. What is
not provably ours is never touched. Let cron, a systemd timer or a CI job run it on another computer:
it is the second enforcer, for the day on which the first one is switched off.

Where there is no ledger it makes none, and needs nothing but LAMBDA_API_KEY. Where there is one, it
first ends what is overdue in it, deadlines too, and writes down that it was here: for a quarter of an
hour that counts as a guard.

--adopt is for the loss of all local state: it writes leases for instances of ours that the ledger does
not know. They count against the caps and are ended at their hard stops; nothing can be run on them,
since their keys are lost. Never adopt from a ledger that is in use elsewhere.

The exit code is 0 if all is well, 3 while an end is not confirmed (money is still being spent), and
1 if it could not look, or not do what was asked.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case !f.once:
				return usageError(errors.New("--once=false: reap looks once; let a timer run it again"))
			case len(f.from) > 0 && !f.adopt:
				return usageError(errors.New("--from-ledger needs --adopt"))
			case f.wait <= 0:
				return usageError(errors.New("--wait has to be above 0"))
			}
			s.quiet(c)
			return s.reap(c, f)
		},
	}
	c.Flags().BoolVar(&f.once, "once", true, "look once and end")
	c.Flags().DurationVar(&f.wait, "wait", 3*time.Minute, "how long to wait for the confirmation of ends")
	c.Flags().BoolVar(&f.adopt, "adopt", false, "write leases for instances of ours that the ledger does not know")
	c.Flags().StringArrayVar(&f.from, "from-ledger", nil, "adopt what this ledger has launched; may be repeated")
	c.Flags().BoolVar(&f.asJSON, "json", false, "as one JSON object")
	return c
}

func (s *settings) reap(c *cobra.Command, f reapFlags) error {
	if err := s.check(); err != nil {
		return err
	}
	log, err := s.logger(c.ErrOrStderr())
	if err != nil {
		return err
	}
	var r reaping
	if f.adopt || s.ledgerIsThere() {
		r, err = s.reapWithLedger(c, f)
	} else {
		r.Reaping, err = lease.Reaper{Cloud: s.bareAccount(log), Now: time.Now, Wait: f.wait, Logger: log}.Reap(c.Context())
	}
	if err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	if f.asJSON {
		err = r.printJSON(c.OutOrStdout())
	} else {
		err = r.print(c.OutOrStdout())
	}
	return errors.Join(err, r.verdict())
}

// bareAccount is the account with nothing on disk.
func (s *settings) bareAccount(log *slog.Logger) *account {
	return &account{connect: func(ctx context.Context) (*lambda.Client, error) {
		key, err := s.apiKey(ctx)
		if err != nil {
			return nil, err
		}
		return lambda.New(key, lambda.WithBaseURL(s.apiURL), lambda.WithUserAgent("gpulease/"+version), lambda.WithLogger(log))
	}}
}

// reapWithLedger is a visit to an account of which there is a ledger here. What
// the ledger cannot do is a problem of its own: the account is looked at all the same.
func (s *settings) reapWithLedger(c *cobra.Command, f reapFlags) (r reaping, err error) {
	a, err := s.open(c.Context(), lease.GuardReap, c.ErrOrStderr())
	if err != nil {
		return r, err
	}
	if _, err := a.account.Instances(c.Context()); err != nil { // who cannot look must not take the lead
		return r, errors.Join(fmt.Errorf("list instances: %w", err), a.close())
	}
	if a.broken != nil {
		r.Problems = append(r.Problems, fmt.Errorf("the ledger cannot be used, so only hard stops are enforced: %w", a.broken))
	}
	visit := func(ctx context.Context) error {
		if a.broken == nil {
			if f.adopt {
				r.Problems = append(r.Problems, s.adopt(ctx, a, f.from, &r)...)
			}
			r.Problems = append(r.Problems, a.endOverdue(ctx, f.wait, &r)...)
		}
		var err error
		if r.Reaping, err = (lease.Reaper{Cloud: a.account, Now: time.Now, Wait: f.wait, Logger: a.log}).Reap(ctx); err != nil || a.broken != nil {
			return err
		}
		if err := a.store.Beat(ctx, a.guard, r.At); err != nil {
			r.Problems = append(r.Problems, fmt.Errorf("write down that we were here: %w", err))
		}
		return nil
	}
	if a.broken != nil {
		err = errors.Join(visit(c.Context()), a.close())
	} else {
		a.visits = true
		err = a.whileReconciling(c.Context(), visit)
	}
	return r, err
}

// keepOwn makes sure that leases of this state directory have a keeper: a reaper
// leaves, and what was approved may be launched while it is here. On a computer from
// which nothing was leased it leaves none behind.
func (s *settings) keepOwn(ctx context.Context, a *app) error {
	live, err := a.store.Live(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(live, func(l lease.Lease) bool { return l.Home == a.manager.Home }) {
		_, err = s.ensureKeeper(ctx, a)
		return err
	}
	return nil
}

// reapTick is how often it is looked whether the own leases are as they should be.
const reapTick = 500 * time.Millisecond

// endOverdue waits while the reconciler ends what is overdue in our own ledger.
func (a *app) endOverdue(ctx context.Context, wait time.Duration, r *reaping) []error {
	until := time.Now().Add(wait)
	tick := time.NewTicker(reapTick)
	defer tick.Stop()
	for {
		due, err := a.manager.Due(ctx)
		if err == nil && len(due) == 0 {
			break
		}
		if ctx.Err() != nil || !time.Now().Before(until) {
			r.Due = due
			if err != nil {
				return []error{fmt.Errorf("look for what is overdue: %w", err)}
			}
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if err := a.manager.Sweep(ctx); err != nil {
		return []error{fmt.Errorf("sweep what ended leases left behind: %w", err)}
	}
	return nil
}

// verdict is the error with the exit code for what was found, nil for all well.
func (r reaping) verdict() error {
	switch n := len(r.Unconfirmed) + len(r.Due); {
	case n > 0:
		return &exitError{code: exitUnconfirmed, err: errors.Join(append([]error{fmt.Errorf("%d ends are NOT CONFIRMED: money is still being spent", n)}, r.Problems...)...)}
	case len(r.Problems) > 0:
		return errors.Join(r.Problems...)
	}
	return nil
}
