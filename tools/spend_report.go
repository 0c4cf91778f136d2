package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

type spendIn struct {
	Limit int `json:"limit,omitempty" jsonschema:"minimum=1,maximum=100,default=20" jsonschema_description:"Leases to list."`
}

type spendOut struct {
	Since      string           `json:"since" jsonschema_description:"Start of the month."`
	Caps       []capLine        `json:"caps"`
	Reserved   policy.Money     `json:"reserved_usd"`
	Principals []principalSpent `json:"principals"`
	Leases     []leaseSpent     `json:"leases" jsonschema_description:"Newest first."`
	Omitted    int              `json:"leases_omitted,omitempty"`
	Untracked  []untracked      `json:"untracked,omitempty"`
	advice
}

type capLine struct {
	Rule   string       `json:"rule"`
	Limit  policy.Money `json:"limit_usd"`
	Used   policy.Money `json:"used_usd"`
	Left   policy.Money `json:"left_usd"`
	Source string       `json:"source"`
}

type principalSpent struct {
	Principal string       `json:"principal"`
	Leases    int          `json:"live_leases"`
	Month     policy.Money `json:"month_usd"`
}

type leaseSpent struct {
	LeaseID   lease.ID     `json:"lease_id"`
	Principal string       `json:"principal"`
	State     string       `json:"state"`
	Cost      policy.Money `json:"cost_usd"`
	Reserved  policy.Money `json:"reserved_usd"`
}

type untracked struct {
	Instance string       `json:"instance_id"`
	Type     string       `json:"instance_type"`
	Price    policy.Money `json:"price_usd_per_hour"`
}

// What a report lists at most; its totals are of all.
const (
	leasesShown    = 20
	untrackedShown = 20
)

func spendReport(r Reader) Tool {
	return New(Def{
		Name:        "spend_report",
		Title:       "Report spending",
		Description: "Shows what was spent and reserved, and what is left under each cap; per principal, per lease, and instances in the account without a lease.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true},
	}, func(ctx context.Context, in spendIn) (spendOut, error) {
		if in.Limit == 0 {
			in.Limit = leasesShown
		}
		s, err := r.Spend(ctx, "")
		if err != nil {
			return spendOut{}, err
		}
		out := spendOut{
			Since: clock(s.Since), Caps: capLines(s), Reserved: s.Held, Principals: []principalSpent{}, Leases: []leaseSpent{},
			advice: advice{BudgetLeft: leftOf(s), Warnings: r.Notices(ctx), Next: then("list_capacity", with{}, "list_capacity, then launch_lease for a machine")},
		}
		if s.Trouble != "" {
			out.Warnings, out.Next = append([]string{s.Trouble}, out.Warnings...), say("a person has to mend the policy file")
		}
		for _, c := range s.Caps {
			if c.Left < c.Limit/10 {
				out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("budget low: %s of %s are left under %s", c.Left, c.Limit, c.Rule))
			}
		}
		for _, p := range s.Principals {
			out.Principals = append(out.Principals, principalSpent{Principal: p.Name, Leases: p.Totals.Leases, Month: p.Totals.Month})
		}
		for i, l := range s.Leases {
			if l.Counts() {
				out.Next = say("stop_lease for each lease that is not needed")
			}
			if i >= in.Limit {
				out.Omitted++
				continue
			}
			out.Leases = append(out.Leases, leaseSpent{LeaseID: l.ID, Principal: l.Principal, State: string(l.State), Cost: l.CostAt(s.At), Reserved: l.Reserved})
		}
		for _, x := range s.Strangers[:min(len(s.Strangers), untrackedShown)] {
			out.Untracked = append(out.Untracked, untracked{Instance: x.Instance, Type: x.Type, Price: x.Price})
		}
		if n := len(s.Strangers) - untrackedShown; n > 0 {
			out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("%d more instances without a lease are not listed", n))
		}
		room := listRoom / 2
		if in.Limit > leasesShown {
			room = in.Limit * seen
		}
		out.trimLists(room)
		return out, nil
	})
}

// trimLists keeps a report short in an account with many leases and principals.
func (o *spendOut) trimLists(leaseRoom int) {
	var omitted int
	o.Leases, omitted = fit(o.Leases, leaseRoom)
	o.Omitted += omitted
	if o.Principals, omitted = fit(o.Principals, listRoom/4); omitted > 0 {
		o.Warnings = append(slices.Clone(o.Warnings), plural(omitted, "more principal")+" not listed")
	}
	if o.Caps, omitted = fit(o.Caps, listRoom/4); omitted > 0 {
		o.Warnings = append(slices.Clone(o.Warnings), plural(omitted, "more cap")+" not listed")
	}
}

// Text is the report, a line for each thing.
func (o spendOut) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "since %s; %s reserved by live leases", o.Since, o.Reserved)
	for _, c := range o.Caps {
		fmt.Fprintf(&b, "\n%s: %s used of %s, %s left (%s)", c.Rule, c.Used, c.Limit, c.Left, c.Source)
	}
	for _, p := range o.Principals {
		fmt.Fprintf(&b, "\nprincipal %s: %s, %s this month", flat(p.Principal), plural(p.Leases, "live lease"), p.Month)
	}
	for _, l := range o.Leases {
		fmt.Fprintf(&b, "\nlease %s of %s: %s, cost %s, reserved %s", l.LeaseID, flat(l.Principal), l.State, l.Cost, l.Reserved)
	}
	if o.Omitted > 0 {
		fmt.Fprintf(&b, "\n%s more", plural(o.Omitted, "lease"))
	}
	for _, x := range o.Untracked {
		fmt.Fprintf(&b, "\nwithout a lease: instance %s, %s, %s/h", x.Instance, x.Type, x.Price)
	}
	return b.String() + o.lines()
}
