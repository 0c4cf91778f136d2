package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func newApprove(s *settings) *cobra.Command {
	var yes bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "approve LEASE",
		Short: "Say yes to a launch that waits for a person",
		Long: `approve shows a request that the policy (approve_above) has put before a person, asks, and has it
launched as it was asked: this type, region and time, at no higher price. gpulease leases shows
what waits. The policy decides once more at the launch; what is over a cap by then is not launched.

Without a terminal it wants --yes, so that an agent with a shell does not approve by accident. It
is no lock: an agent that runs as you can do what you can. If it must not, run it as another user.`,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := oneLease(args)
			if err != nil {
				return err
			}
			s.quiet(c)
			a, err := s.open(c.Context(), "approve", c.ErrOrStderr())
			if err != nil {
				return err
			}
			return errors.Join(s.approve(c, a, id, yes, wait), a.close())
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for the launch, and show what came of it")
	return c
}

func (s *settings) approve(c *cobra.Command, a *app, id lease.ID, yes bool, wait time.Duration) error {
	ctx := c.Context()
	l, err := a.manager.Get(ctx, id)
	if err != nil {
		return withNext(err)
	}
	if l.State == lease.AwaitingApproval {
		if err := a.printRequest(ctx, c.OutOrStdout(), l); err != nil {
			return err
		}
		if doubts := a.manager.Doubts(ctx, l); doubts != "" {
			if _, err := fmt.Fprintf(c.OutOrStdout(), "WARNING     as things are now it would be refused all the same: %s\n", printable(doubts)); err != nil {
				return err
			}
		}
		if err := confirm(c, yes, "approve it?"); err != nil {
			return err
		}
	}
	if l, err = a.manager.Approve(ctx, id, person()); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "%s: approved by %s\n", id, printable(l.ApprovedBy)); err != nil {
		return err
	}
	if err := s.somebodyLaunches(ctx, a, l); err != nil {
		return err
	}
	if wait <= 0 {
		return nil
	}
	return a.untilLaunched(ctx, c.OutOrStdout(), id, wait)
}

// printRequest shows what a person is to decide about.
func (a *app) printRequest(ctx context.Context, w io.Writer, l lease.Lease) error {
	region := l.AskedRegion
	if region == "" {
		region = "any region that the policy allows"
	}
	left := "no budget is set"
	if _, err := a.manager.Policy.Current(); err != nil {
		left = "the policy cannot be used, so it will not be launched: " + printable(err.Error())
	} else if b := a.manager.Status(ctx, l).BudgetLeft; b != policy.Unlimited {
		left = b.String() + " of budget left"
	}
	_, err := fmt.Fprintf(w, `lease       %s, asked for by %s at %s
purpose     %s
machine     %s in %s, %s/h
time        %s once it is ready
worst case  %s (%s)
expires     %s
`, l.ID, printable(l.Principal), local(l.CreatedAt), orDash(printable(l.Purpose)), printable(l.Type), printable(region), l.Price,
		span(l.TTL), l.WorstCase(), left, local(l.DecideBy))
	return err
}

// somebodyLaunches makes sure that what was approved is launched: by a keeper
// here, or by whoever works for the state directory that it was asked for in.
func (s *settings) somebodyLaunches(ctx context.Context, a *app, l lease.Lease) error {
	if l.Home != a.manager.Home && l.Home != "" {
		return nil // its private key belongs to another computer
	}
	_, keyErr := a.account.get(ctx) // a keeper that is started now gets it from us
	_, err := s.ensureKeeper(ctx, a)
	if err == nil {
		return nil
	}
	if keyErr != nil {
		err = keyErr
	}
	return fmt.Errorf("it is approved, and no keeper could be started that launches it: %w. A server on this state directory does it, within 15 minutes", err)
}

// untilLaunched waits until an approved request is launched, or is not.
func (a *app) untilLaunched(ctx context.Context, w io.Writer, id lease.ID, wait time.Duration) error {
	l, err := a.manager.Wait(ctx, id, wait, func(l lease.Lease) bool {
		return l.State != lease.AwaitingApproval && l.State != lease.Launching && l.State != lease.WaitingCapacity
	})
	switch {
	case err != nil:
		return err
	case l.State == lease.Ended || l.State == lease.Stopping:
		return fmt.Errorf("lease %s: %s (%s): %s", id, l.State, l.Reason, printable(l.Detail))
	case l.State != lease.Booting && l.State != lease.Ready:
		return fmt.Errorf("lease %s is still %s after %s: %s", id, l.State, wait, printable(l.Detail))
	}
	return printLeases(w, []lease.Lease{l})
}

func newDeny(s *settings) *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "deny LEASE",
		Short: "Say no to a launch that waits for a person",
		Long: `deny ends a request that waits for approval, also one that was approved and is not launched yet.
The agent is told, with the reason that you give.`,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := oneLease(args)
			if err != nil {
				return err
			}
			return s.decideHere(c, "deny", func(ctx context.Context, a *app) (string, error) {
				l, err := a.manager.Deny(ctx, id, person(), why)
				return fmt.Sprintf("%s: %s", id, printable(l.Detail)), withNext(err)
			})
		},
	}
	c.Flags().StringVar(&why, "why", "", "what to tell the agent")
	return c
}

// local is a moment for people: date, time and zone.
func local(t time.Time) string { return t.Local().Format(time.DateTime + " MST") }

// span is a duration without the zeros that Go puts behind it.
func span(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
