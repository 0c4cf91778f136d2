package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newFreeze(s *settings) *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "freeze",
		Short: "Stop new launches and extensions at once, over all processes",
		Long: `freeze stops every launch and extension from now on, over all processes that share the ledger, also
what was reserved and is not sent yet. What runs goes on and ends as ever: gpulease stop --all ends it
now. It needs no API key. gpulease unfreeze lifts it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.decideHere(c, "freeze", func(ctx context.Context, a *app) (string, error) {
				by := person()
				return "launches and extensions are frozen by " + by + "; what runs goes on (gpulease stop --all ends it)", a.manager.Freeze(ctx, by, why)
			})
		},
	}
	c.Flags().StringVar(&why, "why", "", "what to tell agents")
	return c
}

func newUnfreeze(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "unfreeze",
		Short: "Let launches go on after a freeze",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.decideHere(c, "unfreeze", func(ctx context.Context, a *app) (string, error) {
				f, err := a.manager.Frozen(ctx)
				if err != nil || !f.On() {
					return "launches are not frozen", err
				}
				return fmt.Sprintf("launches go on; they were frozen since %s by %s", local(f.At), printable(f.By)), a.manager.Unfreeze(ctx, person())
			})
		},
	}
}

// decideHere opens the ledger, does one thing and says so.
func (s *settings) decideHere(c *cobra.Command, role string, do func(context.Context, *app) (said string, err error)) error {
	s.quiet(c)
	a, err := s.open(c.Context(), role, c.ErrOrStderr())
	if err != nil {
		return err
	}
	said, err := do(c.Context(), a)
	if err == nil {
		_, err = fmt.Fprintln(c.OutOrStdout(), said)
	}
	return errors.Join(err, a.close())
}
