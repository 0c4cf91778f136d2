package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// candidate is a type that may be launched.
type candidate struct {
	name    string
	regions []string
	price   policy.Money
	worst   policy.Money // what a launch can cost at most
}

// maxCandidates is how many types are tried while Lambda says that it has none
// after all.
const maxCandidates = 3

// choose finds what is free, what the user's policy and budget allow and what
// stays under the limit, cheapest first. It changes nothing.
func (r *run) choose(ctx context.Context) ([]candidate, error) {
	p, err := r.Policy.Current()
	if err != nil {
		return nil, &blocked{EnvironmentBlocked, fmt.Errorf("read the policy: %w", err)}
	}
	if longest := p.MaxTTLFor(r.Principal); r.TTL > longest {
		return nil, blockf(EnvironmentBlocked, "the policy allows a TTL of %s at most, not %s", longest, r.TTL)
	}
	types, err := r.Cloud.InstanceTypes(ctx)
	if err != nil {
		return nil, r.ofCloud("list instance types", err)
	}
	if r.Type != "" {
		types = slices.DeleteFunc(slices.Clone(types), func(o lambda.InstanceTypeOffer) bool { return o.InstanceType.Name != r.Type })
		if len(types) == 0 {
			return nil, blockf(EnvironmentBlocked, "Lambda has no instance type %q", r.Type)
		}
	}
	usage, err := r.usage(ctx, p)
	if err != nil {
		return nil, &blocked{EnvironmentBlocked, fmt.Errorf("read the ledger: %w", err)}
	}
	var good []candidate
	var why refusals
	for _, o := range types {
		c, err := r.judge(p, usage, o)
		if err != nil {
			why = append(why, err)
			continue
		}
		good = append(good, c)
	}
	if len(good) == 0 {
		return nil, why.worst()
	}
	slices.SortFunc(good, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.price, b.price), strings.Compare(a.name, b.name))
	})
	good = good[:min(len(good), maxCandidates)]
	r.worst = slices.MaxFunc(good, func(a, b candidate) int { return cmp.Compare(a.worst, b.worst) }).worst
	r.say("choose", "%s at %s/h in %s; %s at most, the limit is %s", good[0].name, good[0].price, strings.Join(good[0].regions, ", "), good[0].worst, r.Limit)
	return good, nil
}

// judge says whether a type may be launched for this check, and if not why, as a
// blocked error.
func (r *run) judge(p *policy.Policy, u policy.Usage, o lambda.InstanceTypeOffer) (candidate, error) {
	t := o.InstanceType
	c := candidate{name: t.Name, price: policy.Cents(int64(t.PriceCentsPerHour))}
	if t.Specs.GPUs == 0 || c.price <= 0 {
		return c, blockf(EnvironmentBlocked, "%s has no GPU, or no price", t.Name)
	}
	if ok, rule := p.TypeAllowed(r.Principal, t.Name, "", c.price); !ok {
		return c, blockf(EnvironmentBlocked, "%s is not allowed by the policy: %s", t.Name, rule)
	}
	for _, region := range o.Regions {
		if ok, _ := p.TypeAllowed(r.Principal, t.Name, region.Name, c.price); ok {
			c.regions = append(c.regions, region.Name)
		}
	}
	if len(c.regions) == 0 {
		return c, blockf(CapacityBlocked, "no %s is free in an allowed region", t.Name)
	}
	boot := doctor.BootOne
	if t.Specs.GPUs > 1 {
		boot = doctor.BootMany
	}
	req := policy.Request{
		Principal: r.Principal, Type: t.Name, Region: c.regions[0], Image: doctor.ImageFamily, GPUs: t.Specs.GPUs, PricePerHour: c.price,
		TTL: r.TTL, BootAllowance: boot, StopAllowance: doctor.StopAllowance,
	}
	if c.worst = req.WorstCase(); c.worst > r.Limit {
		return c, blockf(BillingBlocked, "%s could cost %s, above the limit of %s", t.Name, c.worst, r.Limit)
	}
	switch d := policy.Evaluate(p, req, u, nil); {
	case d.Verdict == policy.Allow:
		return c, nil
	case d.Code() == policy.CodeBudgetExceeded:
		return c, blockf(BillingBlocked, "%s: %s", t.Name, d.Explain())
	default:
		return c, blockf(EnvironmentBlocked, "%s: %s", t.Name, d.Explain())
	}
}

// refusals are why none of the types will do.
type refusals []error

// worst is the refusal that came closest to a launch: what is above the limit is
// at least free, and what is not free is at least allowed.
func (w refusals) worst() error {
	for _, as := range []Classification{BillingBlocked, CapacityBlocked} {
		for _, err := range w {
			var b *blocked
			if errors.As(err, &b) && b.as == as {
				return err
			}
		}
	}
	return w[0]
}

// usage is what counts against the user's own caps.
func (r *run) usage(ctx context.Context, p *policy.Policy) (u policy.Usage, err error) {
	c, err := doctor.CopyLedger(ctx, r.LedgerPath)
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Usage{}, nil
	}
	if err != nil {
		return policy.Usage{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	now := r.Now()
	day, week, month := p.PeriodStarts(now)
	return c.Usage(ctx, r.Principal, now, lease.Periods{Day: day, Week: week, Month: month})
}

// ofCloud classifies a failed call to Lambda.
func (r *run) ofCloud(what string, err error) error {
	as := EnvironmentBlocked
	switch class, _ := doctor.Classify(err); class {
	case doctor.Billing:
		as = BillingBlocked
	case doctor.Quota:
		as = QuotaBlocked
	case doctor.Capacity:
		as = CapacityBlocked
	}
	return &blocked{as, fmt.Errorf("%s: %w", what, err)}
}

func (r *run) stateDir() string   { return filepath.Join(r.dir, "state") }
func (r *run) ledger() string     { return filepath.Join(r.stateDir(), "ledger.db") }
func (r *run) home() string       { return filepath.Join(r.dir, "files") }
func (r *run) policyPath() string { return filepath.Join(r.dir, "policy.yaml") }

// policyText is the policy of the run's own server: the types that were chosen,
// one lease, and not a micro-dollar above the limit.
func (r *run) policyText(candidates []candidate) string {
	var types, regions []string
	for _, c := range candidates {
		types = append(types, c.name)
		regions = append(regions, c.regions...)
	}
	slices.Sort(regions)
	return fmt.Sprintf(`# The policy of one run of the live check.
types: {allow: [%s]}
regions: {allow: [%s]}
max_price_per_hour: none
default_ttl: %[3]s
max_ttl: %[3]s
max_leases: 1
caps:
  per_lease: %[4]s
  per_day: none
  per_month: none
  lifetime: %[4]s
require_guard: true
`, strings.Join(types, ", "), strings.Join(slices.Compact(regions), ", "), minutes(r.TTL), r.Limit.Decimal())
}

func minutes(d time.Duration) string { return fmt.Sprintf("%dm", int(d/time.Minute)) }
