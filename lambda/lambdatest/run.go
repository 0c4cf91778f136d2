package lambdatest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Options are the settings of a simulator that is a process by itself.
type Options struct {
	Listen                  string // default "127.0.0.1:0"
	APIKey                  string // default: random, or the one in the state file
	SSHPort                 int    // default: a free one
	NoSSH                   bool   // no machines behind the instances
	HostGPU                 bool   // show this host's GPUs
	Dir                     string // of the machines' homes
	BootTime, TerminateTime time.Duration
	StateFile               string
	CatalogFile             string
	ScenarioFile            string
	Quota                   int
	Seed                    uint64
	Strict, Newer, Nulls    bool
	RateLimit, RateHTML     bool
	Logf                    func(format string, args ...any)
}

// Run is the simulator as a process: it listens, writes one line of JSON to
// stdout when it is ready,
//
//	{"api_url":"http://127.0.0.1:PORT/api/v1","ssh_port":PORT,"api_key":"secret_sim_…"}
//
// and serves until the context ends. Then every machine is ended and its files
// are removed; the state file stays.
func Run(ctx context.Context, o Options, stdout io.Writer) (err error) {
	cfg := Config{APIKey: o.APIKey, SSHHosts: !o.NoSSH, SSHPort: o.SSHPort, Dir: o.Dir, HostGPU: o.HostGPU,
		BootTime: o.BootTime, TerminateTime: o.TerminateTime, StateFile: o.StateFile, Quota: o.Quota, Seed: o.Seed,
		Strict: o.Strict, Newer: o.Newer, Nulls: o.Nulls, RateLimit: o.RateLimit, RateLimitHTML: o.RateHTML, Logf: o.Logf}
	if o.CatalogFile != "" {
		if cfg.Catalog, err = LoadCatalog(o.CatalogFile); err != nil {
			return err
		}
	}
	if o.ScenarioFile != "" {
		if cfg.Scenario, err = LoadScenario(o.ScenarioFile); err != nil {
			return err
		}
	}
	s, err := New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil && e != nil {
			err = fmt.Errorf("end the simulated machines: %w", e)
		}
	}()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if err := s.Listen(o.Listen); err != nil {
		return err
	}
	line, err := json.Marshal(struct {
		APIURL  string `json:"api_url"`
		SSHPort int    `json:"ssh_port"`
		APIKey  string `json:"api_key"`
	}{s.URL(), s.SSHPort(), s.APIKey()})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%s\n", line); err != nil {
		return fmt.Errorf("tell where the simulator listens: %w", err)
	}
	<-ctx.Done()
	return nil
}
