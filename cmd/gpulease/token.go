package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/token"
)

func newToken(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens of principals who use a server over HTTP",
		Long: `token keeps the bearer tokens by which gpulease serve --transport http knows its principals, one for
each. Only their hashes are kept, in the state directory. A running server sees every change at once.`,
	}
	c.AddCommand(newTokenCreate(s), newTokenList(s), newTokenRevoke(s))
	return c
}

func (s *settings) tokens() (*token.Store, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return &token.Store{Path: s.tokensPath()}, nil
}

func newTokenCreate(s *settings) *cobra.Command {
	var replace bool
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a principal's token and print it, once",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := s.tokens()
			if err != nil {
				return err
			}
			if err := token.CheckName(args[0]); err != nil {
				return usageError(err)
			}
			secret, err := store.Create(args[0], replace, time.Now())
			if errors.Is(err, token.ErrExists) {
				return fmt.Errorf("%w: --replace ends it and makes a new one", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "The token of %s, which is shown only now. Clients send it as \"Authorization: Bearer TOKEN\".\n", args[0])
			_, err = fmt.Fprintln(c.OutOrStdout(), secret)
			return err
		},
	}
	c.Flags().BoolVar(&replace, "replace", false, "end the token that the principal has")
	return c
}

func newTokenList(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the principals who have a token",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := s.tokens()
			if err != nil {
				return err
			}
			all, err := store.List()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PRINCIPAL\tCREATED")
			for _, r := range all {
				fmt.Fprintf(w, "%s\t%s\n", r.Principal, r.Created.Format(time.RFC3339))
			}
			return w.Flush()
		},
	}
}

func newTokenRevoke(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a principal's token; its leases go on",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := s.tokens()
			if err != nil {
				return err
			}
			if err := store.Revoke(args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is not let in any more; its leases go on: gpulease leases shows them\n", args[0])
			return err
		},
	}
}
