package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
)

func newDoctor(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that a launch depends on; changes nothing",
		Long: `doctor looks at the API key, the account, the clock, the policy, the ledger, the state directory,
who guards the leases, regions, images, capacity, the budget, the firewall, filesystems, Lambda's
limits, and what was left behind in the account. It changes nothing, at Lambda or here, and takes
about ten seconds: Lambda allows one request a second.

Each line has a finding (ok, warn or fail), a class, the check, and what mends it. A warning does
not stop a launch. The exit code is that of the failure to mend first:
  ` + strings.ReplaceAll(doctor.ExitCodes(), ", ", "\n  "),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := s.examine(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = r.Print(c.OutOrStdout())
			}
			if err != nil {
				return fmt.Errorf("print the report: %w", err)
			}
			if code := r.ExitCode(); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return c
}

// examine runs doctor on what the settings say.
func (s *settings) examine(ctx context.Context) (doctor.Report, error) {
	if err := s.check(); err != nil {
		return doctor.Report{}, err
	}
	key, err := s.apiKey(ctx)
	if err != nil {
		return doctor.Run(ctx, s.doctorConfig(key, nil, err)), nil
	}
	cloud, err := s.reader(key)
	if err != nil {
		return doctor.Report{}, usageError(err)
	}
	return doctor.Run(ctx, s.doctorConfig(key, cloud, nil)), nil
}

// doctorConfig is what doctor looks at. Without a key, keyErr says why.
func (s *settings) doctorConfig(key lambda.Key, cloud doctor.Cloud, keyErr error) doctor.Config {
	c := doctor.Config{
		APIURL: s.apiURL, KeySource: s.keySource(), KeyErr: keyErr, Cloud: cloud,
		Policy: s.policySource(), PolicyPath: s.policyPath, Principal: s.principal,
		LedgerPath: s.ledgerPath, StateDir: s.stateDir, KeeperRuns: s.keeperIsThere, Now: time.Now,
	}
	c.Tailnet = s.doctorTailnet()
	if c.KeySource == "LAMBDA_API_KEY_FILE" {
		c.KeyFile = s.keyFile
	}
	if keyErr == nil {
		c.Redact = func(text string) string { return strings.ReplaceAll(text, key.Reveal(), "[redacted]") }
	}
	return c
}

// patience is how long a person who asked is kept waiting for an API that does
// not answer.
var patience = lambda.RetryPolicy{Initial: 500 * time.Millisecond, Max: 4 * time.Second, Multiplier: 2, Jitter: 0.5, Elapsed: 10 * time.Second}

// reader is a client for commands that only read. It returns the type that has
// no changing call, and keeps its pace by itself: taking it from the ledger would
// be a change.
func (s *settings) reader(key lambda.Key, opts ...lambda.Option) (doctor.Cloud, error) {
	c, err := lambda.New(key, append([]lambda.Option{lambda.WithBaseURL(s.apiURL), lambda.WithUserAgent("gpulease/" + version), lambda.WithRetry(patience)}, opts...)...)
	if err != nil {
		return nil, err // not c, which would be a nil pointer in an interface that is not nil
	}
	return c, nil
}

// keySource is the setting that apiKey takes the key from.
func (s *settings) keySource() string {
	switch {
	case s.env["LAMBDA_API_KEY"] != "":
		return "LAMBDA_API_KEY"
	case s.keyCommand != "":
		return "LAMBDA_API_KEY_COMMAND"
	case s.keyFile != "":
		return "LAMBDA_API_KEY_FILE"
	}
	return ""
}

// keeperIsThere is keeperRuns, but makes no lock file.
func (s *settings) keeperIsThere() (bool, error) {
	if _, err := os.Stat(s.keeperLock().Path()); err != nil {
		if os.IsNotExist(err) {
			return false, nil
		}
		return false, fmt.Errorf("look for the keeper: %w", err)
	}
	return s.keeperRuns()
}

// doctorTailnet is what doctor is told of the tailnet.
func (s *settings) doctorTailnet() doctor.Tailnet {
	t := doctor.Tailnet{KeySource: s.authKeySource(), Up: tailnetAccess{s: s}.cli().Up}
	if t.KeySource == authKeyFileVariable {
		_, t.KeyErr = s.fileAuthKey()
	}
	return t
}
