package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func newSim(*settings) *cobra.Command {
	var o lambdatest.Options
	c := &cobra.Command{
		Use:   "sim",
		Short: "Run a simulated Lambda Cloud whose machines run real commands",
		Long: `sim is a simulation of Lambda Cloud: the same API, and instances that are SSH hosts on
loopback addresses and run real commands of this computer as you. Nothing in it costs money.

When it is ready it prints one JSON line with api_url, ssh_port and api_key. To use it:
  GPULEASE_API_URL=<api_url> GPULEASE_SSH_PORT=<ssh_port> LAMBDA_API_KEY=<api_key> gpulease serve`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return lambdatest.Run(c.Context(), o, c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "address of the API")
	f.DurationVar(&o.BootTime, "boot-time", 3*time.Second, "from launch to active")
	f.StringVar(&o.StateFile, "state", "", "file that keeps instances and bill over a restart")
	f.StringVar(&o.CatalogFile, "catalog", "", "JSON file with types, prices and regions (default: Lambda's of 2026)")
	return c
}
