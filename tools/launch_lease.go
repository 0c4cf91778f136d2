package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

type launchIn struct {
	Type           string   `json:"type" jsonschema_description:"From list_capacity."`
	Region         string   `json:"region,omitempty" jsonschema_description:"Default: any."`
	TTLMinutes     int      `json:"ttl_minutes,omitempty" jsonschema:"minimum=1,maximum=525600" jsonschema_description:"From ready to the forced end."`
	Purpose        string   `json:"purpose,omitempty"`
	IdempotencyKey string   `json:"idempotency_key,omitempty" jsonschema_description:"Same key, same lease."`
	Results        []string `json:"results,omitempty" jsonschema_description:"Paths there to bring home."`
	DryRun         bool     `json:"dry_run,omitempty" jsonschema_description:"Only quote."`
}

type launchOut struct {
	standing
	Decision   string        `json:"decision,omitempty" jsonschema:"enum=allow,enum=ask,enum=deny"`
	WorstCase  *policy.Money `json:"worst_case_usd,omitempty"`
	TTLMinutes int           `json:"ttl_minutes,omitempty"`
	Why        string        `json:"why,omitempty"`
	advice
}

// launchTime leaves some of a call's time to say what came of a launch call that
// takes long. The launch goes on by itself.
const launchTime = 40

func launchLease(l interface {
	Reader
	Changer
}, roots, denied []string) Tool {
	return New(Def{
		Name:  "launch_lease",
		Title: "Launch a GPU lease",
		Description: "Launches a GPU machine. COSTS MONEY from boot until stop_lease is confirmed. " +
			"Returns while it boots (minutes): wait with get_lease. " +
			"At the deadline everything on it is lost.",
		Annotations: Annotations{OpenWorld: true},
		AlwaysLoad:  true,
	}, func(ctx context.Context, in launchIn) (launchOut, error) {
		req := lease.LaunchRequest{
			Type: in.Type, Region: in.Region, TTL: time.Duration(in.TTLMinutes) * time.Minute,
			Purpose: in.Purpose, IdempotencyKey: in.IdempotencyKey, Results: in.Results, Elsewhere: true,
		}
		if len(in.Results) > 0 {
			dir, err := resultsDir(lease.LeaseInPath, roots, denied)
			if err != nil {
				return launchOut{}, err
			}
			req.ResultsDir = dir
		}
		if in.DryRun {
			return quoteOf(ctx, l, req)
		}
		if req.IdempotencyKey == "" && CallID(ctx) != "" {
			req.IdempotencyKey = "call " + CallID(ctx)
		}
		brief, cancel := context.WithTimeout(ctx, Wait(ctx, launchTime))
		defer cancel()
		got, err := launchOrResume(brief, l, req)
		if err != nil {
			return launchOut{}, ofLease(err, got.ID)
		}
		got, warning, err := byPerson(ctx, l, got)
		if err != nil {
			return launchOut{}, err
		}
		s := status(ctx, l, got)
		out := launchOut{standing: standingOf(s), TTLMinutes: int(got.TTL / time.Minute), advice: adviceOf(s, nextFor(got))}
		if got.State == lease.AwaitingApproval {
			worst := got.WorstCase()
			out.WorstCase = &worst
		}
		if warning != "" {
			out.Warnings = append(slices.Clone(out.Warnings), warning)
		}
		return out, nil
	})
}

// launchOrResume launches, but for a call that brings a person's answer: what was asked
// about is there already, and the same call must not ask for another one.
func launchOrResume(ctx context.Context, l interface {
	Reader
	Changer
}, req lease.LaunchRequest) (lease.Lease, error) {
	if asker := Asking(ctx); asker != nil && asker.About() != "" {
		return l.Get(ctx, asker.About())
	}
	return l.Launch(ctx, req)
}

func quoteOf(ctx context.Context, r Reader, req lease.LaunchRequest) (launchOut, error) {
	q, err := r.Quote(ctx, req)
	if err != nil {
		return launchOut{}, err
	}
	d := q.Decision
	out := launchOut{
		standing: standing{InstanceType: q.Offer.Type, Region: strings.Join(q.Regions, " or "), Price: &q.Offer.Price},
		Decision: string(d.Verdict), WorstCase: &d.WorstCase, TTLMinutes: int(q.TTL / time.Minute), Why: short(d.Explain(), 4*seen),
		advice: advice{BudgetLeft: limited(d.BudgetLeft), Next: then("launch_lease", launchArguments(req), "launch_lease with the same arguments and without dry_run; this was a quote, nothing was launched")},
	}
	switch n := d.Nearest; {
	case d.Verdict == policy.Allow:
	case n != nil:
		outcome := "pass"
		if n.Approval {
			outcome = "need approval by a person"
		}
		nearest := req
		nearest.Type, nearest.Region, nearest.TTL = n.Type, n.Region, n.TTL
		out.Next = then("launch_lease", launchArguments(nearest), "launch_lease with type %q, region %q and ttl_minutes %d would %s (%s at most)", n.Type, n.Region, int(n.TTL/time.Minute), outcome, n.WorstCase)
	default:
		out.Next = then("list_capacity", with{}, "list_capacity shows what is allowed; only a person can change the policy")
	}
	return out, nil
}

// launchArguments are those of the launch that was asked for.
func launchArguments(r lease.LaunchRequest) with {
	w := with{"type": r.Type}
	if r.Region != "" {
		w["region"] = r.Region
	}
	if r.TTL > 0 {
		w["ttl_minutes"] = int(r.TTL / time.Minute)
	}
	if r.Purpose != "" {
		w["purpose"] = short(r.Purpose, seen)
	}
	if r.IdempotencyKey != "" {
		w["idempotency_key"] = r.IdempotencyKey
	}
	if len(r.Results) > 0 {
		w["results"] = r.Results
	}
	return w
}

// Text is the lease, or the quote, in a line.
func (o launchOut) Text() string {
	if o.Decision == "" {
		return o.line() + o.lines()
	}
	return fmt.Sprintf("quote for %s, %d min: %s, at most %s\n%s", o.InstanceType, o.TTLMinutes, o.Decision, *o.WorstCase, o.Why) + o.lines()
}
