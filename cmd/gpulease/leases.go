package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
)

func newLeases(s *settings) *cobra.Command {
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "leases",
		Short: "List leases with state, cost and deadline",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			a, err := s.open(c.Context(), "leases", c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.close()
			leases, err := a.manager.List(c.Context(), !all, 0)
			if err != nil {
				return err
			}
			if asJSON {
				return printLeasesJSON(c.OutOrStdout(), leases)
			}
			if err := printLeases(c.OutOrStdout(), leases); err != nil {
				return err
			}
			for _, l := range leases {
				if l.State == lease.Stopping {
					return &exitError{code: exitUnconfirmed, err: fmt.Errorf("lease %s: STOP NOT CONFIRMED, %s/h are still being spent (%s)", l.ID, l.Price, l.Detail)}
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "ended leases too")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON lines")
	return c
}

func printLeases(w io.Writer, leases []lease.Lease) error {
	if len(leases) == 0 {
		_, err := fmt.Fprintln(w, "no leases")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "LEASE\tSTATE\tREASON\tTYPE\tREGION\tRATE\tCOST\tRESERVED\tDEADLINE\tPURPOSE")
	now := time.Now()
	for _, l := range leases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s/h\t%s\t%s\t%s\t%s\n", l.ID, l.State, l.Reason, l.Type, l.Region, l.Price, l.CostAt(now), l.Reserved,
			l.Deadline.Local().Format(time.DateTime), l.Purpose)
	}
	return t.Flush()
}

func printLeasesJSON(w io.Writer, leases []lease.Lease) error {
	e := json.NewEncoder(w)
	now := time.Now()
	for _, l := range leases {
		row := struct {
			ID       lease.ID     `json:"lease_id"`
			State    lease.State  `json:"state"`
			Reason   lease.Reason `json:"reason,omitempty"`
			Detail   string       `json:"detail"`
			Type     string       `json:"instance_type"`
			Region   string       `json:"region"`
			Instance string       `json:"instance_id,omitempty"`
			Rate     any          `json:"price_usd_per_hour"`
			Cost     any          `json:"cost_usd"`
			Reserved any          `json:"reserved_usd"`
			Deadline time.Time    `json:"deadline"`
		}{l.ID, l.State, l.Reason, l.Detail, l.Type, l.Region, l.InstanceID, l.Price, l.CostAt(now), l.Reserved, l.Deadline}
		if err := e.Encode(row); err != nil {
			return fmt.Errorf("print lease %s: %w", l.ID, err)
		}
	}
	return nil
}

func newStop(s *settings) *cobra.Command {
	var all bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "stop [LEASE...]",
		Short: "End leases and wait until Lambda shows their machines as gone",
		Long: `stop ends leases and waits until Lambda itself shows their machines as gone. It needs no
server. It exits with 3 while a stop is not confirmed: money is still being spent then, and
whatever reconciles (a server, or stop again) goes on trying.`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usageError(fmt.Errorf("give the ids of the leases to stop, or --all"))
			}
			a, err := s.open(c.Context(), "stop", c.ErrOrStderr())
			if err != nil {
				return err
			}
			return a.whileReconciling(c.Context(), func(ctx context.Context) error {
				ids := make([]lease.ID, 0, len(args))
				for _, arg := range args {
					ids = append(ids, lease.ID(arg))
				}
				if all {
					live, err := a.manager.List(ctx, true, 0)
					if err != nil {
						return err
					}
					for _, l := range live {
						ids = append(ids, l.ID)
					}
				}
				return stopAll(ctx, c.OutOrStdout(), a.manager, ids, wait)
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every lease of this ledger")
	c.Flags().DurationVar(&wait, "wait", 3*time.Minute, "how long to wait for the confirmation")
	return c
}

// stopAll decides all the ends first and waits afterwards: deciding saves money.
func stopAll(ctx context.Context, w io.Writer, m *lease.Manager, ids []lease.ID, wait time.Duration) error {
	var failed error
	for _, id := range ids {
		if _, err := m.Stop(ctx, id); err != nil {
			fmt.Fprintf(w, "%s: %v\n", id, err)
			failed = fmt.Errorf("not every lease could be stopped: %w", err)
		}
	}
	until := time.Now().Add(wait)
	for _, id := range ids {
		l, err := m.Wait(ctx, id, max(time.Until(until), time.Second), func(l lease.Lease) bool { return l.State == lease.Ended })
		switch {
		case err != nil:
			failed = err
		case l.State == lease.Ended:
			fmt.Fprintf(w, "%s: ended (%s), cost %s\n", id, l.Reason, l.Cost)
		default:
			failed = &exitError{code: exitUnconfirmed, err: fmt.Errorf("lease %s: STOP NOT CONFIRMED, %s/h are still being spent (%s)", id, l.Price, l.Detail)}
			fmt.Fprintln(w, failed)
		}
	}
	return failed
}
