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
		newPolicyCheck(s),
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
