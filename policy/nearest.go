package policy

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// longestTTL is the longest TTL in whole minutes with which r satisfies ok; 0 is none. Every rule that looks at the TTL gets
// only stricter as it grows, so halving finds it exactly.
func (j judge) longestTTL(r Request, ok func(Request) bool) time.Duration {
	most := j.policy.MaxTTLFor(r.Principal) / time.Minute
	n := sort.Search(int(most), func(i int) bool {
		r.TTL = time.Duration(i+1) * time.Minute
		return !ok(r)
	})
	return time.Duration(n) * time.Minute
}

// nearest looks for a request that is not denied: the same type and region for less time; then another offer for the time
// asked; then another offer for less time. Among offers the same type comes first, then as many GPUs, then the nearest price
// below, then the nearest above. Who asks for GPUs is never offered a type without any. What needs no approval comes before
// what does, in each of the three steps together.
func (j judge) nearest(r Request, longest time.Duration, offers []Offer) *Nearest {
	free := func(r Request) bool { return j.passes(r) && j.approval(r) == "" }
	if n := j.nearestBy(r, j.longestTTL(r, free), offers, free); n != nil {
		return n
	}
	return j.nearestBy(r, longest, offers, j.passes)
}

func (j judge) nearestBy(r Request, longest time.Duration, offers []Offer, ok func(Request) bool) *Nearest {
	wanted := r.TTL
	if wanted <= 0 {
		wanted = j.policy.TTLFor(r.Principal, 0)
	}
	if ttl := min(wanted, longest); ttl > 0 {
		n := r
		n.TTL = ttl
		if ok(n) {
			return j.found(n, fmt.Sprintf("the same type for %s instead of %s", span(ttl), span(r.TTL)))
		}
	}
	sorted := slices.Clone(offers)
	slices.SortStableFunc(sorted, func(a, b Offer) int {
		return cmp.Or(
			first(a.Type == r.Type, b.Type == r.Type),
			first(a.GPUs == r.GPUs, b.GPUs == r.GPUs),
			first(a.PricePerHour <= r.PricePerHour, b.PricePerHour <= r.PricePerHour),
			a.PricePerHour.distance(r.PricePerHour, b.PricePerHour),
			first(a.Region == r.Region, b.Region == r.Region),
			cmp.Compare(a.Type, b.Type),
			cmp.Compare(a.Region, b.Region),
		)
	})
	sorted = slices.DeleteFunc(sorted, func(o Offer) bool { return o.Type == r.Type && o.Region == r.Region || r.GPUs > 0 && o.GPUs == 0 })
	for _, o := range sorted {
		if n := r.at(o, wanted); ok(n) {
			return j.found(n, fmt.Sprintf("%s at %s/h for %s", o.place(r), o.PricePerHour, span(wanted)))
		}
	}
	for _, o := range sorted {
		n := r.at(o, 0)
		n.TTL = min(wanted, j.longestTTL(n, ok))
		if n.TTL > 0 && ok(n) {
			return j.found(n, fmt.Sprintf("%s at %s/h, and for %s instead of %s", o.place(r), o.PricePerHour, span(n.TTL), span(wanted)))
		}
	}
	return nil
}

// withoutApproval is the longest TTL of the same type and region that needs no approval.
func (j judge) withoutApproval(r Request) *Nearest {
	n := r
	n.TTL = j.longestTTL(r, func(r Request) bool { return j.passes(r) && j.approval(r) == "" })
	if n.TTL <= 0 {
		return nil
	}
	return j.found(n, fmt.Sprintf("the same type for %s needs no approval", span(n.TTL)))
}

func (j judge) found(r Request, why string) *Nearest {
	rule := j.approval(r)
	if rule != "" {
		why += "; would need approval by " + rule
	}
	return &Nearest{Type: r.Type, Region: r.Region, TTL: r.TTL, WorstCase: r.WorstCase(), Approval: rule != "", Why: why}
}

// at is the request moved to an offer.
func (r Request) at(o Offer, ttl time.Duration) Request {
	r.Type, r.Region, r.GPUs, r.PricePerHour, r.TTL = o.Type, o.Region, o.GPUs, o.PricePerHour, ttl
	if o.BootAllowance > 0 {
		r.BootAllowance = o.BootAllowance
	}
	return r
}

func (o Offer) place(r Request) string {
	if o.Type == r.Type {
		return "the same type in " + o.Region
	}
	if o.GPUs != r.GPUs {
		return fmt.Sprintf("another type with %d instead of %d GPUs, %s in %s,", o.GPUs, r.GPUs, o.Type, o.Region)
	}
	return "another type, " + o.Type + " in " + o.Region + ","
}

// distance compares how far two prices are from one. Prices above 0 cannot overflow.
func (m Money) distance(from, other Money) int {
	return cmp.Compare(max(m-from, from-m), max(other-from, from-other))
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
