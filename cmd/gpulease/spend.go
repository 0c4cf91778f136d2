package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func newSpend(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "spend",
		Short: "Show what was spent, what is reserved, and what is left under each cap",
		Long: `spend shows every cap that binds, with what counts against it and where it is set; what each principal
has used this month; the leases that live or have ended this month; and the instances in the account
that no lease accounts for. --principal chooses whose own caps are shown. It needs no API key, and
while the policy file is broken it shows all but the caps.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s.quiet(c)
			a, err := s.open(c.Context(), "spend", c.ErrOrStderr())
			if err != nil {
				return err
			}
			sp, err := a.manager.Spend(c.Context(), s.principal)
			if err == nil && asJSON {
				err = printSpendJSON(c.OutOrStdout(), sp)
			} else if err == nil {
				err = printSpend(c.OutOrStdout(), sp)
			}
			return errors.Join(err, a.close())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return c
}

// corrections is what was added to ended leases after they had been settled.
func corrections(s lease.Spending) policy.Money {
	sum := s.Usage.Account.Month - s.Held
	for _, l := range s.Leases {
		if l.State == lease.Ended {
			sum -= l.Cost
		}
	}
	return sum
}

func printSpend(w io.Writer, s lease.Spending) error {
	var b strings.Builder
	if s.Frozen.On() {
		fmt.Fprintln(&b, frozenLine(s.Frozen))
	}
	if s.Trouble != "" {
		fmt.Fprintln(&b, printable(s.Trouble))
	}
	fmt.Fprintf(&b, "%s spent and reserved since %s, %s of it reserved by what lives\n", s.Usage.Account.Month, local(s.Since), s.Held)
	if more := corrections(s); more > 0 {
		fmt.Fprintf(&b, "%s of it are later corrections (gpulease audit show LEASE)\n", more)
	}
	capTable(&b, s.Caps)
	table(&b, "PRINCIPAL\tLIVE LEASES\tTODAY\tTHIS MONTH\tIN ALL", len(s.Principals), func(i int) string {
		p := s.Principals[i]
		return fmt.Sprintf("%s\t%d\t%s\t%s\t%s", printable(p.Name), p.Totals.Leases, p.Totals.Day, p.Totals.Month, p.Totals.Lifetime)
	})
	table(&b, "LEASE\tPRINCIPAL\tSTATE\tREASON\tTYPE\tCOST\tRESERVED\tENDED\tPURPOSE", len(s.Leases), func(i int) string {
		l := s.Leases[i]
		ended := "-"
		if !l.EndedAt.IsZero() {
			ended = local(l.EndedAt)
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", l.ID, printable(l.Principal), l.State, l.Reason, printable(l.Type), l.CostAt(s.At), l.Reserved, ended, printable(l.Purpose))
	})
	table(&b, "WITHOUT A LEASE\tTYPE\tREGION\tRATE\tSINCE\tSEEN\tNAME", len(s.Strangers), func(i int) string {
		x := s.Strangers[i]
		return fmt.Sprintf("%s\t%s\t%s\t%s/h\t%s\t%s\t%s", printable(x.Instance), printable(x.Type), printable(x.Region), x.Price, local(x.Since), local(x.Seen), printable(x.Name))
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// capTable writes the caps that bind, a line each.
func capTable(b *strings.Builder, caps []policy.CapLeft) {
	table(b, "CAP\tUSED\tLIMIT\tLEFT\tSET IN", len(caps), func(i int) string {
		c := caps[i]
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", c.Rule, c.Used, c.Limit, c.Left, printable(c.Source))
	})
}

func frozenLine(f lease.Freeze) string {
	text := fmt.Sprintf("FROZEN since %s by %s", local(f.At), printable(f.By))
	if f.Why != "" {
		text += ": " + printable(f.Why)
	}
	return text + " (gpulease unfreeze lifts it)"
}

// table writes some rows below a heading, or nothing where there are none.
func table(b *strings.Builder, heading string, rows int, row func(i int) string) {
	if rows == 0 {
		return
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	for i := range rows {
		fmt.Fprintln(t, row(i))
	}
	_ = t.Flush() // a strings.Builder takes everything
}

type spendCap struct {
	Rule   string       `json:"rule"`
	Limit  policy.Money `json:"limit_usd"`
	Used   policy.Money `json:"used_usd"`
	Left   policy.Money `json:"left_usd"`
	Source string       `json:"source"`
}

type spendPrincipal struct {
	Name     string       `json:"principal"`
	Leases   int          `json:"live_leases"`
	Day      policy.Money `json:"day_usd"`
	Month    policy.Money `json:"month_usd"`
	Lifetime policy.Money `json:"lifetime_usd"`
}

type spendStranger struct {
	Account  string       `json:"account"`
	Instance string       `json:"instance_id"`
	Name     string       `json:"name,omitempty"`
	Type     string       `json:"instance_type"`
	Region   string       `json:"region"`
	Price    policy.Money `json:"price_usd_per_hour"`
	Since    time.Time    `json:"since"`
	Seen     time.Time    `json:"seen"`
}

type spendFreeze struct {
	At  time.Time `json:"at"`
	By  string    `json:"by"`
	Why string    `json:"why,omitempty"`
}

func printSpendJSON(w io.Writer, s lease.Spending) error {
	out := struct {
		At          time.Time        `json:"at"`
		Since       time.Time        `json:"since"`
		Principal   string           `json:"principal"`
		Month       policy.Money     `json:"month_usd"`
		Reserved    policy.Money     `json:"reserved_usd"`
		Corrections policy.Money     `json:"corrections_usd"`
		Caps        []spendCap       `json:"caps"`
		Principals  []spendPrincipal `json:"principals"`
		Leases      []leaseRow       `json:"leases"`
		Untracked   []spendStranger  `json:"untracked"`
		Frozen      *spendFreeze     `json:"frozen,omitempty"`
		Trouble     string           `json:"trouble,omitempty"` // why there are no caps
	}{
		At: s.At, Since: s.Since, Principal: s.Principal, Month: s.Usage.Account.Month, Reserved: s.Held, Corrections: corrections(s),
		Caps: []spendCap{}, Principals: []spendPrincipal{}, Leases: []leaseRow{}, Untracked: []spendStranger{}, Trouble: s.Trouble,
	}
	for _, c := range s.Caps {
		out.Caps = append(out.Caps, spendCap{c.Rule, c.Limit, c.Used, c.Left, c.Source})
	}
	for _, p := range s.Principals {
		out.Principals = append(out.Principals, spendPrincipal{p.Name, p.Totals.Leases, p.Totals.Day, p.Totals.Month, p.Totals.Lifetime})
	}
	for _, l := range s.Leases {
		out.Leases = append(out.Leases, rowOf(l, s.At))
	}
	for _, x := range s.Strangers {
		out.Untracked = append(out.Untracked, spendStranger{x.Account, x.Instance, x.Name, x.Type, x.Region, x.Price, x.Since, x.Seen})
	}
	if s.Frozen.On() {
		out.Frozen = &spendFreeze{s.Frozen.At, s.Frozen.By, s.Frozen.Why}
	}
	return json.NewEncoder(w).Encode(out)
}
