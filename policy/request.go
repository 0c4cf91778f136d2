package policy

import (
	"math"
	"time"
)

// Request is a lease that somebody asks for, with one definite type and region.
//
// To ask for more time on a lease that exists, give the TTL that it would have in all, counted from its start, and a [Usage]
// without that lease (its reservation, its GPUs and its rate taken out) and with LaunchesLastHour 0, for nothing is launched.
type Request struct {
	Principal string // who asks; selects the limits under principals in the policy
	Type      string // instance type, such as "gpu_1x_a10"
	Region    string // region, such as "us-east-1"
	Image     string // image family or id; "" is Lambda's default image and is matched as "default"

	GPUs         int   // GPUs of the type; 0 for a type without any
	PricePerHour Money // must be known, so above 0: without a price nothing is launched

	TTL           time.Duration // how long the lease may live once it is ready; above 0
	BootAllowance time.Duration // what booting may take before that and is billed or might be; 0 or more
	StopAllowance time.Duration // what confirming the stop may take after that; 0 or more
}

// WorstCase is the most that the lease can cost: its price for the boot allowance, the TTL and the stop allowance together,
// rounded up to whole minutes. Negative durations count as 0; the result saturates.
func (r Request) WorstCase() Money {
	var total time.Duration
	for _, d := range []time.Duration{r.BootAllowance, r.TTL, r.StopAllowance} {
		total += min(max(d, 0), math.MaxInt64-total)
	}
	return r.PricePerHour.For(total)
}

// Totals is what counts against the caps so far: spent plus reserved, and the leases alive. The request under decision is not
// in it.
type Totals struct {
	Leases           int   // leases that are not ended
	GPUs             int   // GPUs of those leases
	LaunchesLastHour int   // launches begun within the last hour
	Waiting          int   // requests that wait for a person's approval; no rule is about them
	BurnPerHour      Money // price per hour of all that is alive
	Day              Money // spent plus reserved in the day that [Policy.PeriodStarts] gives
	Week             Money // the same for the week
	Month            Money // the same for the month
	Lifetime         Money // the same for all time
}

// Usage is what counts so far, for the whole account and for the principal who asks.
type Usage struct {
	Account   Totals
	Principal Totals

	// Untracked is what instances cost that no lease accounts for. With [Policy.CountUntracked] it counts against the account's caps.
	Untracked Totals
}

// Offer is something that could be had instead, for the search for the nearest request that passes.
type Offer struct {
	Type         string
	Region       string
	GPUs         int
	PricePerHour Money

	// BootAllowance is the offer's own; 0 takes the request's.
	BootAllowance time.Duration
}
