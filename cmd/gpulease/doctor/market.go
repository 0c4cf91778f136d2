package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// allowed says whether the policy lets the principal have a type in a region,
// whatever the budget.
func (x *examination) allowed(t lambda.InstanceType, region string) bool {
	ok, _ := x.policy.TypeAllowed(x.Principal, t.Name, region, policy.Cents(int64(t.PriceCentsPerHour)))
	return ok
}

// allowedTypes are the types with GPUs that the policy allows in some region.
func (x *examination) allowedTypes() []lambda.InstanceTypeOffer {
	return slices.DeleteFunc(slices.Clone(x.account.types.got), func(o lambda.InstanceTypeOffer) bool {
		return o.InstanceType.Specs.GPUs == 0 || !x.allowed(o.InstanceType, "")
	})
}

// allowedRegions are the regions in which the policy allows one of the types.
func (x *examination) allowedRegions() []string {
	var out []string
	for _, r := range x.account.regions.got {
		if slices.ContainsFunc(x.allowedTypes(), func(o lambda.InstanceTypeOffer) bool { return x.allowed(o.InstanceType, r.Name) }) {
			out = append(out, r.Name)
		}
	}
	return out
}

func (x *examination) regions() {
	if err := x.account.regions.err; err != nil {
		x.unread("regions", err)
		return
	}
	if x.policy == nil || x.account.types.err != nil {
		return // said by the lines policy and capacity
	}
	if len(x.allowedTypes()) == 0 {
		return // said by the line capacity
	}
	all, may := x.account.regions.got, x.allowedRegions()
	if len(may) == 0 {
		x.fail("regions", Policy, "gpulease policy show, and allow a region", "the policy allows none of Lambda's %d regions", len(all))
		return
	}
	if unknown := x.unknownNames(); len(unknown) > 0 {
		x.warn("regions", Policy, "gpulease policy show", "the policy names what Lambda does not have: %s", names(unknown))
		return
	}
	x.ok("regions", Policy, "%d of Lambda's %d regions are allowed: %s", len(may), len(all), names(may))
}

// unknownNames are names in the policy, not patterns, that Lambda does not have:
// slips of the keyboard, mostly.
func (x *examination) unknownNames() []string {
	var types, regions []string
	for _, o := range x.account.types.got {
		types = append(types, o.InstanceType.Name)
	}
	for _, r := range x.account.regions.got {
		regions = append(regions, r.Name)
	}
	var out []string
	look := func(key string, p policy.Patterns, known []string) {
		for _, name := range slices.Concat(p.Allow, p.Deny) {
			if strings.ContainsAny(name, "*?") || slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
				continue
			}
			out = append(out, key+" "+name)
		}
	}
	look("types", x.policy.Types, types)
	look("regions", x.policy.Regions, regions)
	return out
}

// images checks that the image that launches pin is there where they may go.
func (x *examination) images() {
	if err := x.account.images.err; err != nil {
		x.unread("images", err)
		return
	}
	if x.policy == nil || x.account.types.err != nil || x.account.regions.err != nil {
		return
	}
	has := func(region, arch string) bool {
		return slices.ContainsFunc(x.account.images.got, func(i lambda.Image) bool {
			return i.Family == ImageFamily && i.Region.Name == region && (arch == "" || i.Architecture == arch)
		})
	}
	regions := x.allowedRegions()
	var missing []string
	for _, r := range regions {
		if !has(r, "") {
			missing = append(missing, r)
		}
	}
	// Where a type is free now, its architecture counts too.
	for _, o := range x.allowedTypes() {
		for _, r := range o.Regions {
			if arch := o.InstanceType.Architecture; arch != "" && x.allowed(o.InstanceType, r.Name) && has(r.Name, "") && !has(r.Name, arch) {
				missing = append(missing, fmt.Sprintf("%s for %s (%s)", r.Name, o.InstanceType.Name, arch))
			}
		}
	}
	switch {
	case len(regions) == 0:
	case len(missing) == 0:
		x.ok("images", Capacity, "%s, which every launch names, is in all allowed regions", ImageFamily)
	case len(missing) >= len(regions):
		x.fail("images", Capacity, "update gpulease", "%s, which every launch names, is in none of the allowed regions", ImageFamily)
	default:
		x.warn("images", Policy, "deny these regions in the policy", "%s, which every launch names, is missing in %s", ImageFamily, names(missing))
	}
}

// free is a type that could be had now.
type free struct {
	offer   lambda.InstanceType
	regions []string
}

func (x *examination) capacity(ctx context.Context) {
	if err := x.account.types.err; err != nil {
		x.unread("capacity", err)
		return
	}
	if x.policy == nil {
		return
	}
	types := x.allowedTypes()
	if len(types) == 0 {
		x.fail("capacity", Policy, "gpulease policy show, and allow a type", "the policy allows none of Lambda's %d types", len(x.account.types.got))
		return
	}
	var now []free
	for _, o := range types {
		f := free{offer: o.InstanceType}
		for _, r := range o.Regions {
			if x.allowed(o.InstanceType, r.Name) {
				f.regions = append(f.regions, r.Name)
			}
		}
		if len(f.regions) > 0 {
			now = append(now, f)
		}
	}
	if len(now) == 0 {
		x.fail("capacity", Capacity, "try again in a few minutes, or allow more types and regions: gpulease policy show", "none of the %d allowed types is free in an allowed region", len(types))
		return
	}
	slices.SortFunc(now, func(a, b free) int {
		return cmp.Or(cmp.Compare(a.offer.PriceCentsPerHour, b.offer.PriceCentsPerHour), strings.Compare(a.offer.Name, b.offer.Name))
	})
	var list []string
	for _, f := range now {
		list = append(list, fmt.Sprintf("%s %s/h (%s)", f.offer.Name, policy.Cents(int64(f.offer.PriceCentsPerHour)), strings.Join(f.regions, " ")))
	}
	x.ok("capacity", Capacity, "%d of %d allowed types are free now: %s", len(now), len(types), names(list))
	x.budget(ctx, now[0])
}

// budget asks the policy about an ordinary launch of the cheapest type.
func (x *examination) budget(ctx context.Context, f free) {
	var used policy.Usage
	switch {
	case x.noFile:
	case x.ledger == nil:
		return
	default:
		day, week, month := x.policy.PeriodStarts(x.now())
		var err error
		if used, err = x.ledger.Usage(ctx, x.Principal, x.now(), lease.Periods{Day: day, Week: week, Month: month}); err != nil {
			x.fail("budget", State, "mend the ledger", "what is spent cannot be read: %v", err)
			return
		}
	}
	boot := BootOne
	if f.offer.Specs.GPUs > 1 {
		boot = BootMany
	}
	r := policy.Request{
		Principal: x.Principal, Type: f.offer.Name, Region: f.regions[0], Image: ImageFamily, GPUs: f.offer.Specs.GPUs,
		PricePerHour: policy.Cents(int64(f.offer.PriceCentsPerHour)), TTL: x.policy.TTLFor(x.Principal, 0), BootAllowance: boot, StopAllowance: StopAllowance,
	}
	d := policy.Evaluate(x.policy, r, used, nil)
	left := d.BudgetLeft.String() + " of budget left"
	if d.BudgetLeft == policy.Unlimited {
		left = "no budget is set"
	}
	what := fmt.Sprintf("%s for %s (%s at most)", r.Type, short(r.TTL), d.WorstCase)
	switch d.Verdict {
	case policy.Allow:
		x.ok("budget", Policy, "%s could be launched now; %s", what, left)
	case policy.Ask:
		x.warn("budget", Policy, "gpulease approve LEASE once an agent has asked for it, or raise approve_above", "%s waits for a person's approval; %s", what, left)
	default:
		mend := "wait, or have the owner of the policy raise the limit: gpulease policy show"
		if len(x.live) > 0 {
			mend = "gpulease leases, and stop what is not needed"
		}
		x.fail("budget", Policy, mend, "%s would be refused now: %s; %s", what, refusal(d), left)
	}
}

// refusal is why a request would be refused, in one line. Other offers were not looked at,
// so without a nearest request that passes nothing is said about one.
func refusal(d policy.Decision) string {
	lines := strings.Split(d.Explain(), "\n")
	if d.Nearest == nil {
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "nearest request") })
	}
	return strings.Join(lines, "; ")
}
