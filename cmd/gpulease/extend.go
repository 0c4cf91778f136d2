package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
)

func newExtend(s *settings) *cobra.Command {
	var minutes int
	var yes bool
	c := &cobra.Command{
		Use:   "extend LEASE --minutes N",
		Short: "Give a lease more time",
		Long: `extend moves a lease's deadline. The policy decides about all of the lease's time together and more
is reserved, as for an agent's extend_lease; but what needs a person's approval has it with this.
No extension goes beyond the hard stop that is in the machine's name. Without a terminal it wants --yes.`,
		RunE: func(c *cobra.Command, args []string) error {
			if minutes < 1 || minutes > 525600 {
				return usageError(errors.New("--minutes has to be between 1 and 525600"))
			}
			id, err := oneLease(args)
			if err != nil {
				return err
			}
			s.quiet(c)
			a, err := s.open(c.Context(), "extend", c.ErrOrStderr())
			if err != nil {
				return err
			}
			return errors.Join(a.extend(c, id, time.Duration(minutes)*time.Minute, yes), a.close())
		},
	}
	c.Flags().IntVar(&minutes, "minutes", 0, "how many minutes more (required)")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) extend(c *cobra.Command, id lease.ID, more time.Duration, yes bool) error {
	l, err := a.manager.Get(c.Context(), id)
	if err != nil {
		return withNext(err)
	}
	if l.State == lease.Ready || l.State == lease.Booting {
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s: %s in %s at %s/h, until %s; %s more cost up to %s\n",
			l.ID, printable(l.Type), printable(l.Region), l.Price, local(l.Deadline), span(more), l.Price.For(more))
		if err != nil {
			return err
		}
		if err := confirm(c, yes, "extend it?"); err != nil {
			return err
		}
	}
	got, err := a.manager.Extend(c.Context(), id, lease.Extension{More: more, By: person()})
	if err != nil {
		return withNext(err)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: until %s, %s reserved\n", got.ID, local(got.Deadline), got.Reserved)
	return err
}

// noLease is for people what list_leases is for agents.
func noLease(id lease.ID) error {
	return fmt.Errorf("there is no lease %q; gpulease leases --all lists them", id)
}

// withNext adds the next step to an error of package lease, for people.
func withNext(err error) error {
	var e *lease.Error
	if !errors.As(err, &e) || e.Next == "" {
		return err
	}
	if e.Code == lease.CodeLeaseNotFound {
		return noLease(e.LeaseID)
	}
	if e.Code == lease.CodeLeaseEnded {
		return fmt.Errorf("%w\nnext: gpulease audit show %s says what happened to it", err, e.LeaseID)
	}
	return fmt.Errorf("%w\nnext: %s", err, e.Next)
}
