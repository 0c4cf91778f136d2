package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

func newKeeperStatus(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether a keeper runs, which program it is, and what it guards",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s.quiet(c)
			a, err := s.open(c.Context(), "status", c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.close()
			running, err := s.keeperRuns()
			if err != nil {
				return err
			}
			live, err := a.store.Live(c.Context())
			if err != nil {
				return err
			}
			guards, err := a.store.Guards(c.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), strings.Join(s.keeperStatus(running, live, guards, time.Now()), "\n"))
			return err
		},
	}
}

// keeperStatus are the lines that say how the keeper is.
func (s *settings) keeperStatus(running bool, live []lease.Lease, guards []lease.Guard, now time.Time) []string {
	if !running {
		if len(live) > 0 {
			return []string{"no keeper runs, but " + countLeases(len(live)) + " should be guarded; gpulease leases starts one"}
		}
		return []string{"no keeper runs; no lease is alive"}
	}
	var lines []string
	add := func(name, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("%-10s ", name)+fmt.Sprintf(format, args...))
	}
	n, known := s.keeperNote()
	if known {
		kind := "ends when nothing lives"
		if n.Stays {
			kind = "stays (a service)"
		}
		add("keeper", "pid %d, %s", n.PID, kind)
		add("program", "%s", n.Build)
		add("since", "%s", n.Since.Local().Format(time.DateTime+" MST"))
	} else {
		add("keeper", "runs, and has left no note about itself")
	}
	beat := "none yet"
	for _, g := range guards { // newest first
		if strings.HasPrefix(g.Name, lease.GuardKeeper+" ") {
			beat = fmt.Sprintf("%s, %s ago", g.Name, now.Sub(g.Seen).Round(time.Second))
			break
		}
	}
	if len(live) > 0 {
		add("heartbeat", "%s", beat)
	}
	add("guards", "%s in %s", countLeases(len(live)), ledger.Redact(s.ledgerPath))
	for _, l := range live {
		add("", "%s %s, deadline %s", l.ID, l.State, deadline(l))
	}
	return append(lines, fmt.Sprintf("%-10s %s", "log", s.keeperLog()))
}
