package tools

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lease"
)

type stopIn struct {
	LeaseID     lease.ID `json:"lease_id"`
	Results     []string `json:"results,omitempty" jsonschema_description:"More paths to bring home first."`
	WaitSeconds *int     `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45,default=40"`
}

type stopOut struct {
	standing
	Confirmed     bool   `json:"confirmed"`
	BilledSeconds *int64 `json:"billed_seconds,omitempty"`
	Rescue        string `json:"rescue,omitempty"`
	GPUUse        string `json:"gpu_use,omitempty"`
	advice
}

const defaultStopWait = 40

func stopLease(l interface {
	Reader
	Changer
}, roots, denied []string) Tool {
	return New(Def{
		Name:  "stop_lease",
		Title: "Stop a lease",
		Description: "Ends a lease and gives the receipt. EVERYTHING ON THE MACHINE IS LOST. " +
			"Until confirmed is true money is still spent: call again.",
		Annotations: Annotations{Destructive: true, Idempotent: true, OpenWorld: true},
		AlwaysLoad:  true,
	}, func(ctx context.Context, in stopIn) (stopOut, error) {
		warning, err := nameResults(ctx, l, in.LeaseID, in.Results, roots, denied)
		if err != nil {
			return stopOut{}, err
		}
		got, err := l.Stop(ctx, in.LeaseID)
		if err != nil {
			return stopOut{}, err
		}
		wait := defaultStopWait
		if in.WaitSeconds != nil {
			wait = *in.WaitSeconds
		}
		if got.State != lease.Ended && wait > 0 {
			now, err := watch(ctx, l, in.LeaseID, wait, func(l lease.Lease) bool { return l.State == lease.Ended })
			if err != nil {
				return stopOut{}, ofLease(err, in.LeaseID)
			}
			got = now
		}
		s := status(ctx, l, got)
		out := stopOut{standing: standingOf(s), Confirmed: got.State == lease.Ended, Rescue: short(got.Rescue, 4*seen), GPUUse: got.GPUUse().String(), advice: adviceOf(s, nextFor(got))}
		if warning != "" {
			out.Warnings = append(slices.Clone(out.Warnings), warning)
		}
		if out.Confirmed {
			billed := int64(billedTime(got) / time.Second)
			out.BilledSeconds = &billed
		}
		return out, nil
	})
}

// billedTime is how long an ended lease was billed, before rounding.
func billedTime(l lease.Lease) time.Duration {
	if l.BillingFrom.IsZero() {
		return 0
	}
	end := l.GoneAt
	if end.IsZero() {
		end = l.EndedAt
	}
	return max(0, end.Sub(l.BillingFrom))
}

// Text is the receipt, or the warning that there is none yet.
func (o stopOut) Text() string {
	if !o.Confirmed {
		return "STOP NOT CONFIRMED, money is still being spent: " + o.line() + o.lines()
	}
	text := fmt.Sprintf("ended (%s): %s, %d s, billed as %d min, at %s/h cost %s", o.Reason, o.LeaseID, *o.BilledSeconds, (*o.BilledSeconds+59)/60, *o.Price, *o.Cost)
	if o.GPUUse != "" {
		text += "; " + o.GPUUse
	}
	if o.Rescue != "" {
		text += "; before the end: " + o.Rescue
	}
	return text + o.lines()
}
