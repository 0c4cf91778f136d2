package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

type listIn struct {
	Ended bool `json:"include_ended,omitempty" jsonschema_description:"Also leases that are over."`
	Limit int  `json:"limit,omitempty" jsonschema:"minimum=1,maximum=100,default=20"`
}

type listOut struct {
	Leases []standing    `json:"leases"`
	Total  *policy.Money `json:"total_usd_per_hour,omitempty" jsonschema_description:"Of the leases listed that are not over."`
	advice
}

func listLeases(r Reader) Tool {
	return New(Def{
		Name:        "list_leases",
		Title:       "List leases",
		Description: "Lists the leases that are alive, also those of earlier sessions, with state, cost and deadline. Newest first.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true},
	}, func(ctx context.Context, in listIn) (listOut, error) {
		room := max(listRoom, in.Limit*seen*4) // whoever names a number wants so many
		if in.Limit == 0 {
			in.Limit, room = 20, listRoom
		}
		leases, err := r.List(ctx, !in.Ended, in.Limit)
		if err != nil {
			return listOut{}, err
		}
		slices.SortStableFunc(leases, func(a, b lease.Lease) int { return b.CreatedAt.Compare(a.CreatedAt) })
		var total policy.Money
		out := listOut{Leases: []standing{}, Total: &total}
		out.Warnings = r.Notices(ctx)
		var texts []string
		about := map[string][]string{} // the leases that a warning is about
		for _, s := range r.Statuses(ctx, leases) {
			l := s.Lease
			out.Leases = append(out.Leases, standingOf(s))
			out.BudgetLeft = limited(s.BudgetLeft)
			if l.Counts() {
				total += l.Price
			}
			for _, w := range s.Warnings {
				if slices.Contains(out.Warnings, w) {
					continue
				}
				if len(about[w]) == 0 {
					texts = append(texts, w)
				}
				about[w] = append(about[w], string(l.ID))
			}
		}
		out.Warnings = slices.Clip(out.Warnings)
		var omitted int
		if out.Leases, omitted = fit(out.Leases, room); omitted > 0 {
			out.Warnings = append(out.Warnings, plural(omitted, "more lease")+" not listed; limit says how many are")
		}
		for _, w := range texts {
			out.Warnings = append(out.Warnings, strings.Join(about[w], ", ")+": "+w)
		}
		out.Next = then("list_capacity", with{}, "list_capacity, then launch_lease for a machine")
		if waiting := slices.IndexFunc(leases, func(l lease.Lease) bool { return l.State == lease.AwaitingApproval }); waiting >= 0 {
			out.Next = nextFor(leases[waiting])
		}
		if total > 0 {
			out.Next = say("get_lease for one of them; stop_lease for each that is not needed")
		}
		return out, nil
	})
}

// Text lists the leases, one a line.
func (o listOut) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s/h together", plural(len(o.Leases), "lease"), *o.Total)
	for _, l := range o.Leases {
		b.WriteString("\n" + l.line())
	}
	return b.String() + o.lines()
}
