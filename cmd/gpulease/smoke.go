package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/cmd/gpulease/smoke"
	"github.com/gpulease/gpulease/policy"
)

// newSmoke is hidden: it spends money, and is for who works on gpulease or wants
// to know that it works with their account.
func newSmoke(s *settings) *cobra.Command {
	var o smoke.Options
	var limit string
	c := &cobra.Command{
		Use:    "smoke --limit-usd AMOUNT",
		Short:  "Lease one machine for a few minutes and check the whole loop; costs money",
		Hidden: true,
		Long: `smoke checks gpulease against the live service, or whatever GPULEASE_API_URL names: doctor, quote,
launch of the cheapest type that is allowed and free, nvidia-smi, a detached job, a new server that
reads its output, a file home, stop, nothing left behind, cost under the limit.

It needs an API key and GPULEASE_LIVE=1. Before anything is launched it refuses whatever could cost
more than --limit-usd. It has a ledger and a policy of its own, so its cost is not counted in yours;
your policy and budget are asked beforehand.

The last line is classification= and one of passed (exit code 0), validation_failed (1), cleanup_failed
(3: something may still cost money), environment_blocked, billing_blocked, quota_blocked and
capacity_blocked (4).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.completeSmoke(c.Context(), &o, limit); err != nil {
				o.Settings = err
			}
			if code := smoke.Run(c.Context(), o, c.OutOrStdout()).ExitCode(); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&limit, "limit-usd", "", "the most that it may cost, in dollars (required)")
	f.StringVar(&o.Type, "type", "", "instance type (default: the cheapest with a GPU that is allowed and free)")
	f.DurationVar(&o.TTL, "ttl", 10*time.Minute, "TTL of the lease")
	f.DurationVar(&o.JobTime, "job-time", 20*time.Second, "how long the detached job runs")
	f.DurationVar(&o.CleanTime, "clean-time", 20*time.Minute, "how long a stop may take to be confirmed")
	return c
}

// completeSmoke fills in what the settings say. Nothing is read, asked or run
// before the user has said that money may be spent.
func (s *settings) completeSmoke(ctx context.Context, o *smoke.Options, limit string) (err error) {
	if o.Live = s.env["GPULEASE_LIVE"] == "1"; !o.Live {
		return nil // said by smoke itself
	}
	if err := s.check(); err != nil {
		return err
	}
	if limit != "" {
		if o.Limit, err = policy.ParseMoney(limit); err != nil {
			return fmt.Errorf("--limit-usd: %w", err)
		}
	}
	key, err := s.apiKey(ctx)
	if err != nil {
		return err
	}
	o.Secrets = []string{key.Reveal()}
	if o.Cloud, err = s.reader(key); err != nil {
		return err
	}
	if o.Binary, err = os.Executable(); err != nil {
		return fmt.Errorf("find our own binary: %w", err)
	}
	o.Doctor = func(ctx context.Context) (doctor.Report, error) {
		return doctor.Run(ctx, s.doctorConfig(key, o.Cloud, nil)), nil
	}
	o.Policy, o.Principal, o.LedgerPath, o.StateDir = s.policySource(), s.principal, s.ledgerPath, s.stateDir
	for k, v := range s.env {
		o.Env = append(o.Env, k+"="+v)
	}
	o.Env = append(o.Env, "GPULEASE_API_URL="+s.apiURL, "GPULEASE_SSH_PORT="+strconv.Itoa(s.sshPort),
		"LAMBDA_API_KEY_COMMAND="+s.keyCommand, "LAMBDA_API_KEY_FILE="+s.keyFile,
		authKeyCommandVariable+"="+s.authKeyCommand, authKeyFileVariable+"="+s.authKeyFile, "GPULEASE_TAILSCALE="+s.tailscale)
	o.Detach, o.Version, o.Now = detach, version, time.Now
	return nil
}
