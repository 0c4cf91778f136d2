package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

func newAudit(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Check the ledger's history, and show it"}
	c.AddCommand(newAuditVerify(s), newAuditShow(s))
	return c
}

// history opens a ledger that is there, for what concerns its history only. It
// needs no API key and makes no ledger.
func (s *settings) history(c *cobra.Command, do func(ctx context.Context, db *ledger.DB) error) error {
	if err := s.check(); err != nil {
		return err
	}
	s.quiet(c)
	if !s.ledgerIsThere() {
		return fmt.Errorf("there is no ledger at %s", ledger.Redact(s.ledgerPath))
	}
	log, err := s.logger(c.ErrOrStderr())
	if err != nil {
		return err
	}
	db, err := ledger.Open(c.Context(), s.ledgerPath, ledger.Options{Logger: log, ReadOnly: ledger.OnServer(s.ledgerPath)})
	if err != nil {
		return fmt.Errorf("the ledger cannot be used: %w", err)
	}
	return errors.Join(do(c.Context(), db), db.Close())
}

func newAuditVerify(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that no row of the ledger was changed or removed",
		Long: `verify reads the whole ledger: SQLite's own structures, the two hash chains (what happened to leases, and
what was decided), and that each lease is what its last event says. It names every place that is not
as it was written and exits with 1 then.

The chains show a change by hand or by damage. They do not stop somebody who rewrites the whole file,
hashes included: keep a copy of the ledger elsewhere if that is what you fear.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.history(c, func(ctx context.Context, db *ledger.DB) error {
				return s.verify(ctx, c, db, asJSON)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return c
}

func (s *settings) verify(ctx context.Context, c *cobra.Command, db *ledger.DB, asJSON bool) error {
	err := db.Verify(ctx)
	found := tampered(err)
	if asJSON {
		type problem struct {
			Table string `json:"table"`
			Row   string `json:"row"`
			What  string `json:"what"`
		}
		out := struct {
			Ledger   string    `json:"ledger"`
			Whole    bool      `json:"whole"`
			Problems []problem `json:"problems"`
			Error    string    `json:"error,omitempty"`
		}{Ledger: ledger.Redact(s.ledgerPath), Whole: err == nil, Problems: []problem{}}
		for _, t := range found {
			out.Problems = append(out.Problems, problem{t.Table, t.Row, t.What})
		}
		if err != nil && len(found) == 0 {
			out.Error = err.Error()
		}
		if err := json.NewEncoder(c.OutOrStdout()).Encode(out); err != nil {
			return err
		}
		if err != nil {
			return &exitError{code: 1}
		}
		return nil
	}
	switch {
	case err == nil:
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s is whole: no row was changed or removed\n", ledger.Redact(s.ledgerPath))
		return err
	case len(found) == 0:
		return err
	}
	for _, t := range found {
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", printable(t.Error())); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is not what was written: %d places differ. Find out who changed it; what it says about spending cannot be relied on", ledger.Redact(s.ledgerPath), len(found))
}

// tampered are all places that an error of Verify names.
func tampered(err error) []*ledger.TamperError {
	var t *ledger.TamperError
	switch e := err.(type) {
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		var all []*ledger.TamperError
		for _, inner := range e.Unwrap() {
			all = append(all, tampered(inner)...)
		}
		return all
	default:
		if inner := errors.Unwrap(err); inner != nil {
			return tampered(inner)
		}
		if errors.As(err, &t) {
			return []*ledger.TamperError{t}
		}
	}
	return nil
}

func newAuditShow(s *settings) *cobra.Command {
	var asJSON bool
	limit := 20
	c := &cobra.Command{
		Use:   "show [LEASE]",
		Short: "Show what happened to a lease, or the last decisions",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError(errors.New("--limit cannot be negative"))
			}
			return s.history(c, func(ctx context.Context, db *ledger.DB) error {
				if len(args) == 1 {
					return showEvents(ctx, c, db, lease.ID(args[0]), limit, asJSON)
				}
				return showDecisions(ctx, c, db, limit, asJSON)
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", limit, "how many at most, the newest; 0 for all")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON lines")
	return c
}

func showEvents(ctx context.Context, c *cobra.Command, db *ledger.DB, id lease.ID, limit int, asJSON bool) error {
	if _, err := db.Get(ctx, id); errors.Is(err, lease.ErrNotFound) {
		return noLease(id)
	} else if err != nil {
		return err
	}
	events, err := db.History(ctx, id)
	if err != nil {
		return err
	}
	if limit > 0 && len(events) > limit {
		events = events[len(events)-limit:]
	}
	if asJSON {
		out := json.NewEncoder(c.OutOrStdout())
		for _, e := range events {
			row := struct {
				At   time.Time    `json:"at"`
				ID   lease.ID     `json:"lease_id"`
				From lease.State  `json:"from,omitempty"`
				To   lease.State  `json:"to"`
				Note string       `json:"note"`
				Cost policy.Money `json:"cost_usd"`
			}{e.At, id, e.From, e.To, e.Note, e.Cost}
			if err := out.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "AT\tSTATE\tCOST\tWHAT")
	for _, e := range events {
		cost := "-"
		if e.Cost != 0 {
			cost = e.Cost.String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", local(e.At), e.To, cost, printable(e.Note))
	}
	return t.Flush()
}

func showDecisions(ctx context.Context, c *cobra.Command, db *ledger.DB, limit int, asJSON bool) error {
	decisions, err := db.Decisions(ctx, limit)
	if err != nil {
		return err
	}
	if asJSON {
		out := json.NewEncoder(c.OutOrStdout())
		for _, d := range decisions {
			row := struct {
				At         time.Time      `json:"at"`
				Principal  string         `json:"principal"`
				Verdict    policy.Verdict `json:"verdict"`
				WorstCase  policy.Money   `json:"worst_case_usd"`
				ID         lease.ID       `json:"lease_id,omitempty"`
				Policy     string         `json:"policy"`
				Violations []string       `json:"violations,omitempty"`
			}{d.At, d.Principal, d.Verdict, d.WorstCase, d.Lease, d.PolicyHash, rulesOf(d)}
			if err := out.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	if len(decisions) == 0 {
		_, err := fmt.Fprintln(c.OutOrStdout(), "no decisions")
		return err
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "AT\tVERDICT\tWORST CASE\tLEASE\tPRINCIPAL\tRULES")
	for _, d := range decisions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", local(d.At), d.Verdict, d.WorstCase, orDash(string(d.Lease)), printable(d.Principal), orDash(printable(strings.Join(rulesOf(d), "; "))))
	}
	return t.Flush()
}

// rulesOf are the rules that denied, each with its reason.
func rulesOf(d ledger.Decision) []string {
	var out []string
	for _, v := range d.Violations {
		out = append(out, v.Rule+": "+v.Message)
	}
	return out
}
