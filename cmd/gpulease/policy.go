package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/policy"
)

func newPolicy(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Show, check and start the policy file"}
	c.AddCommand(
		&cobra.Command{
			Use: "show", Short: "Show what is in force, and where each value is set", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				if err := s.check(); err != nil {
					return err
				}
				p, err := s.policySource().Current()
				if err != nil {
					return err
				}
				return p.Show(c.OutOrStdout())
			},
		},
		&cobra.Command{
			Use: "check [FILE]", Short: "Read a policy file strictly and say what is wrong with it", Args: cobra.MaximumNArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				if err := s.check(); err != nil {
					return err
				}
				path := s.policyPath
				if len(args) == 1 {
					path = args[0]
				}
				if len(args) == 0 && !s.policyIsGiven {
					if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
						_, err := fmt.Fprintf(c.OutOrStdout(), "there is no policy file at %s: the defaults are in force (policy show shows them, policy init writes a file)\n", path)
						return err
					}
				}
				p, err := policy.Load(path)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s is fine (policy %s)\n", path, p.Hash())
				return err
			},
		},
		&cobra.Command{
			Use: "init", Short: "Write a commented policy file with the defaults", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				if err := s.check(); err != nil {
					return err
				}
				if err := os.MkdirAll(filepath.Dir(s.policyPath), 0o700); err != nil {
					return fmt.Errorf("write the policy file: %w", err)
				}
				f, err := os.OpenFile(s.policyPath, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if errors.Is(err, fs.ErrExist) {
					return usageError(fmt.Errorf("%s is there already; it was not touched", s.policyPath))
				}
				if err != nil {
					return fmt.Errorf("write the policy file: %w", err)
				}
				_, err = f.WriteString(policy.Starter())
				if err = errors.Join(err, f.Close()); err != nil {
					return fmt.Errorf("write the policy file: %w", err)
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), s.policyPath)
				return err
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the policy file's JSON Schema, for editors", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", policy.Schema())
				return err
			},
		},
	)
	return c
}
