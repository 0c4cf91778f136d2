package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func newSim(*settings) *cobra.Command {
	var o lambdatest.Options
	var emulate bool
	c := &cobra.Command{
		Use:   "sim",
		Short: "Run a simulated Lambda Cloud whose machines run real commands",
		Long: `sim is a simulation of Lambda Cloud: the same API, and instances that are SSH hosts on
loopback addresses and run real commands of this computer as you. Nothing in it costs money.

When it is ready it prints one JSON line with api_url, ssh_port and api_key. To use it:
  GPULEASE_API_URL=<api_url> GPULEASE_SSH_PORT=<ssh_port> LAMBDA_API_KEY=<api_key> gpulease serve`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.HostGPU = !emulate
			return lambdatest.Run(c.Context(), o, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "address of the API")
	f.DurationVar(&o.BootTime, "boot-time", 3*time.Second, "from launch to active")
	f.StringVar(&o.StateFile, "state", "", "file that keeps instances and bill over a restart")
	f.StringVar(&o.CatalogFile, "catalog", "", "JSON file with types, prices and regions (default: Lambda's of 2026)")
	f.StringVar(&o.ScenarioFile, "scenario", "", "YAML file with faults, see docs/sim.md")
	f.BoolVar(&o.Strict, "strict", false, "refuse request fields that Lambda's document does not know")
	f.BoolVar(&o.Newer, "newer", false, "emit the fields that the service has added since the document")
	f.BoolVar(&o.RateLimit, "rate-limit", false, "answer 429 above one request a second and one launch in 12 s")
	f.BoolVar(&o.NoSSH, "no-ssh", false, "no machines behind the instances")
	f.BoolVar(&emulate, "emulate-gpu", false, "emulate nvidia-smi even where this computer has a real one")
	return c
}
