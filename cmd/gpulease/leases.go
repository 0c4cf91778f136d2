package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
)

func newLeases(s *settings) *cobra.Command {
	var all, asJSON, keep bool
	c := &cobra.Command{
		Use:   "leases",
		Short: "List leases with state, cost and deadline",
		Long: `leases lists what is alive, then what waits for a person's approval and how to give it, what concerns all
of it (a freeze, stops that are not confirmed, instances in the account without a lease), and who
enforces the deadlines. It exits with 3 while a stop is not confirmed. It needs no API key; with one,
and where no lease is alive, it says whether the account has machines of a lost ledger. Where leases
are alive and no keeper runs, it starts one if it has the key, and says so.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			s.quiet(c)
			a, err := s.open(c.Context(), "leases", c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.close()
			leases, err := a.manager.List(c.Context(), !all, 0)
			if err != nil {
				return err
			}
			if keep {
				defer s.mendGuard(c.Context(), a, leases, c.ErrOrStderr())
			}
			if asJSON {
				return printLeasesJSON(c.OutOrStdout(), leases)
			}
			if err := printLeases(c.OutOrStdout(), leases); err != nil {
				return err
			}
			if err := a.printNotices(c.Context(), c.OutOrStdout(), leases); err != nil {
				return err
			}
			if len(leases) == 0 {
				a.hintAtLost(c.Context(), c.ErrOrStderr())
			}
			for _, l := range leases {
				if l.State == lease.Stopping {
					return &exitError{code: exitUnconfirmed, err: unconfirmed(l)}
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "ended leases too")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON lines")
	keeperFlag(c, &keep)
	return c
}

func keeperFlag(c *cobra.Command, keep *bool) {
	c.Flags().BoolVar(keep, "keeper", true, "start a keeper where leases are alive and none runs")
}

func newStop(s *settings) *cobra.Command {
	var all, keep bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "stop [LEASE...]",
		Short: "End leases and wait until Lambda shows their machines as gone",
		Long: `stop ends leases and waits until Lambda itself shows their machines as gone. It needs no
server. It exits with 3 while a stop is not confirmed: money is still being spent then, and
whatever reconciles (a server, or stop again) goes on trying. Without a usable API key it says so first, and relies on a
server or keeper that has one.`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usageError(fmt.Errorf("give the ids of the leases to stop, or --all"))
			}
			s.quiet(c)
			a, err := s.openGuarded(c.Context(), "stop", keep, c.ErrOrStderr())
			if err != nil {
				return err
			}
			a.started = func(what string) { fmt.Fprintln(c.ErrOrStderr(), "gpulease:", what) }
			ids, live, err := a.named(c.Context(), args, all)
			switch {
			case err != nil:
				return errors.Join(err, a.close())
			case len(ids) == 0:
				_, err := fmt.Fprintln(c.OutOrStdout(), "no leases")
				a.hintAtLost(c.Context(), c.ErrOrStderr())
				return errors.Join(err, a.close())
			}
			why := ""
			if live {
				why = a.unusableKey(c.Context())
			}
			if why == "" {
				return a.whileReconciling(c.Context(), func(ctx context.Context) error {
					return stopAll(ctx, c.OutOrStdout(), a.manager, ids, wait)
				})
			}
			fmt.Fprintf(c.ErrOrStderr(), "gpulease: %s.\n"+
				"The end is written down, and a server or keeper that runs with a key carries it out. If none does: set LAMBDA_API_KEY,\n"+
				"LAMBDA_API_KEY_COMMAND or LAMBDA_API_KEY_FILE to a valid key and run stop again, or end the machine in Lambda's console.\n", why)
			if running, err := s.keeperRuns(); err == nil && !running {
				fmt.Fprintf(c.ErrOrStderr(), "No keeper runs: %s.\n", a.guardedBy(c.Context()))
			}
			// Without a key this process must not reconcile: it would keep from it
			// those who have one.
			err = stopAll(c.Context(), c.OutOrStdout(), a.manager, ids, min(wait, keylessWait))
			return errors.Join(err, a.close())
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every lease of this ledger")
	c.Flags().DurationVar(&wait, "wait", 3*time.Minute, "how long to wait for the confirmation")
	keeperFlag(c, &keep)
	return c
}

// named are the ids of the leases to stop, and whether one of them is alive.
func (a *app) named(ctx context.Context, args []string, all bool) (ids []lease.ID, live bool, err error) {
	for _, arg := range args {
		ids = append(ids, lease.ID(arg))
	}
	alive, err := a.manager.List(ctx, true, 0)
	if err != nil {
		return nil, false, err
	}
	for _, l := range alive {
		if all {
			ids = append(ids, l.ID)
		}
		live = live || slices.Contains(ids, l.ID)
	}
	return ids, live, nil
}

const (
	// keyCheck bounds the question whether Lambda takes the API key.
	keyCheck = 15 * time.Second
	// keylessWait is how long somebody else may take to end a machine that we
	// cannot end.
	keylessWait = 20 * time.Second
)

// unusableKey says what is wrong with the API key; "" for nothing, or if Lambda
// does not answer.
func (a *app) unusableKey(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, keyCheck)
	defer cancel()
	_, err := a.account.Instances(ctx)
	var e *lease.Error
	switch {
	case lambda.IsBadKey(err):
		return "Lambda does not accept the API key"
	case errors.As(err, &e) && e.Code == lease.CodeBadAPIKey:
		return "there is no usable Lambda API key: " + e.Why
	}
	return ""
}

// stopAll decides all the ends first and waits afterwards: deciding saves money.
// Its error has a line for each lease that has not ended.
func stopAll(ctx context.Context, w io.Writer, m *lease.Manager, ids []lease.ID, wait time.Duration) error {
	var errs []error
	decided := make([]lease.ID, 0, len(ids))
	for _, id := range ids {
		switch _, err := m.Stop(ctx, id); {
		case lease.CodeOf(err) == lease.CodeLeaseNotFound:
			errs = append(errs, fmt.Errorf("there is no lease %q; gpulease leases --all lists them", id))
		case err != nil:
			errs = append(errs, fmt.Errorf("stop lease %s: %w", id, err))
		default:
			decided = append(decided, id)
		}
	}
	code := 1
	until := time.Now().Add(wait)
	for _, id := range decided {
		l, err := m.Wait(ctx, id, max(time.Until(until), time.Second), func(l lease.Lease) bool { return l.State == lease.Ended })
		switch {
		case err != nil:
			code = exitUnconfirmed // the end is decided, and nobody has seen it
			errs = append(errs, fmt.Errorf("lease %s: STOP NOT CONFIRMED: %w", id, err))
		case l.State == lease.Ended:
			if _, err := fmt.Fprintf(w, "%s: ended (%s), cost %s\n", id, l.Reason, l.Cost); err != nil {
				errs = append(errs, fmt.Errorf("lease %s has ended: %w", id, err))
			}
		default:
			code = exitUnconfirmed
			errs = append(errs, unconfirmed(l))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &exitError{code: code, err: errors.Join(errs...)}
}

func unconfirmed(l lease.Lease) error {
	return fmt.Errorf("lease %s: STOP NOT CONFIRMED, %s/h are still being spent (%s)", l.ID, l.Price, printable(strings.TrimPrefix(l.Detail, "STOP NOT CONFIRMED, ")))
}

// quiet keeps the log out of what a person reads, who is told everything anyway,
// unless they have asked for it.
func (s *settings) quiet(c *cobra.Command) {
	if s.env["GPULEASE_LOG_LEVEL"] == "" && !c.Flags().Changed("log-level") {
		s.logLevel = quietLevel
	}
}

const quietLevel = "error+4"

// printable escapes what a terminal could take for more than text: an agent, or
// the cloud, has written it.
func printable(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if unicode.IsPrint(r) && !(r == utf8.RuneError && n == 1) {
			b.WriteString(text[i : i+n])
		} else {
			quoted := strconv.QuoteToASCII(text[i : i+n])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}
