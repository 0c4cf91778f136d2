package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker at a release.
var version = "dev"

func newRoot(s *settings, stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "gpulease",
		Short: "Lease GPU machines on Lambda Cloud to AI agents",
		Long: `gpulease leases GPU machines on Lambda Cloud to AI agents over the Model Context
Protocol. A policy decides before every billable call, the worst case is reserved
before every launch, and every lease has a deadline.

An agent host starts "gpulease serve". "gpulease demo" shows the whole loop on a
simulated cloud, without an account.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return seeHelp(c, err) })
	s.flags(root.PersistentFlags())
	root.AddCommand(
		newServe(s), newSim(s), newDemo(s), newDoctor(s), newSmoke(s), newLeases(s), newStop(s), newExtend(s), newSSH(s),
		newApprove(s), newDeny(s), newFreeze(s), newUnfreeze(s), newSpend(s), newAudit(s), newKeeper(s), newReap(s), newInstall(s), newUninstall(s), newPolicy(s), newToken(s), newVersion(),
	)
	refuseUnknown(root)
	return root
}

func seeHelp(c *cobra.Command, err error) error {
	return usageError(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
}

// refuseUnknown makes arguments and subcommands that no command knows usage
// errors.
func refuseUnknown(c *cobra.Command) {
	for _, sub := range c.Commands() {
		refuseUnknown(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return seeHelp(c, fmt.Errorf("unexpected arguments: %q", args))
			}
			return nil
		}
	}
	if c.Runnable() {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return noCommand(c, args)
	}
}

func noCommand(c *cobra.Command, args []string) error {
	c.SuggestionsMinimumDistance = 2
	maybe := ""
	if names := c.SuggestionsFor(args[0]); len(names) > 0 {
		maybe = " (perhaps " + strings.Join(names, ", ") + ")"
	}
	return seeHelp(c, fmt.Errorf("there is no command %q%s", args[0], maybe))
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show version, commit and Go release",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b := thisBuild()
			_, err := fmt.Fprintf(c.OutOrStdout(), "gpulease %s (%s, %s %s/%s)\n", b.Version, b.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
