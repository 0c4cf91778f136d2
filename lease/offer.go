package lease

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// Offer is one instance type as it can be had now.
type Offer struct {
	Type        string
	Description string
	GPU         string // what one GPU is, in the cloud's words
	GPUs        int
	VRAMGiB     int // of all GPUs together; 0 where the cloud does not say
	VCPUs       int
	RAMGiB      int
	StorageGiB  int
	Arch        string       // "x86_64", "arm64" or "" where the cloud does not say
	Regions     []string     // with capacity now; advisory, it may be gone at the launch
	Price       policy.Money // per hour for the whole instance

	Allowed    bool
	Rule       string        // the rule that denies it, with value and source; where it is allowed, from when a person has to approve it
	LongestTTL time.Duration // that policy and budget afford now; 0 where it is denied
}

// Capacity is the answer to "what is free and what does it cost".
type Capacity struct {
	Offers     []Offer // cheapest first; those that can be had now before the others
	BudgetLeft policy.Money
	AsOf       time.Time
}

// Capacity lists what the cloud offers now, with what the policy says of it. It
// costs nothing and reserves nothing.
func (m *Manager) Capacity(ctx context.Context) (Capacity, error) {
	p, err := m.policyNow()
	if err != nil {
		return Capacity{}, err
	}
	offers, err := m.offers(ctx)
	if err != nil {
		return Capacity{}, err
	}
	now, me := m.now(), m.asker(ctx)
	usage, err := m.Store.Usage(ctx, me, now, m.periods(p, now))
	if err != nil {
		return Capacity{}, ledgerError("list capacity", err)
	}
	c := Capacity{AsOf: now}
	for _, o := range offers {
		regions := o.Regions
		if len(regions) == 0 {
			regions = []string{""}
		}
		// The first region that the policy takes decides; a denial is shown for the
		// first one.
		for i, region := range regions {
			d := policy.Evaluate(p, m.policyRequest(p, me, o, region, 0), usage, nil)
			c.BudgetLeft = d.BudgetLeft
			if region == "" {
				o.Allowed, o.Rule = p.TypeAllowed(me, o.Type, "", o.Price)
				break
			}
			if d.LongestTTL > 0 {
				o.Allowed, o.Rule, o.LongestTTL = true, whenAsked(p, m.policyRequest(p, m.Principal, o, region, 0), usage), d.LongestTTL
				break
			}
			if i == 0 && len(d.Violations) > 0 {
				v := d.Violations[0]
				o.Rule = fmt.Sprintf("%s: %s (%s)", v.Rule, v.Limit, v.Source)
			}
		}
		c.Offers = append(c.Offers, o)
	}
	slices.SortStableFunc(c.Offers, func(a, b Offer) int {
		if x, y := len(a.Regions) > 0, len(b.Regions) > 0; x != y {
			if x {
				return -1
			}
			return 1
		}
		if a.Price != b.Price {
			if a.Price < b.Price {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Type, b.Type)
	})
	return c, nil
}

// whenAsked says from which TTL on a person has to say yes, "" for never.
func whenAsked(p *policy.Policy, r policy.Request, u policy.Usage) string {
	longest := policy.Evaluate(p, r, u, nil).LongestTTL
	r.TTL = max(r.TTL, longest)
	switch d := policy.Evaluate(p, r, u, nil); {
	case d.Verdict != policy.Ask:
		return ""
	case d.Nearest == nil:
		return "a person has to approve it (" + d.ApprovalRule + ")"
	default:
		return fmt.Sprintf("over %d min a person has to approve it (%s)", int(d.Nearest.TTL/time.Minute), d.ApprovalRule)
	}
}

// offers are the cloud's instance types, with capacity or without. None at all is a
// failure of the cloud: it has always listed every type.
func (m *Manager) offers(ctx context.Context) ([]Offer, error) {
	types, err := m.Cloud.InstanceTypes(ctx)
	if err != nil {
		return nil, cloudError("list instance types", "", err)
	}
	if len(types) == 0 {
		return nil, &Error{
			Code: CodeCloudUnavailable, Message: "the cloud lists no instance types at all", Why: "that is a failure of the cloud's; it says nothing about capacity",
			Next: "call again in a minute", Retryable: true,
		}
	}
	offers := make([]Offer, 0, len(types))
	for _, t := range types {
		offers = append(offers, newOffer(t))
	}
	return offers, nil
}

// priceOf is what an instance costs per hour: by its listing, or by the catalogue where
// that shows no price; 0 where both do not.
func (m *Manager) priceOf(ctx context.Context, inst lambda.Instance) policy.Money {
	if cents := inst.InstanceType.PriceCentsPerHour; cents > 0 {
		return policy.Cents(int64(cents))
	}
	offers, err := m.offers(ctx)
	if err != nil {
		m.log.Warn("an instance without a price", "instance", inst.ID, "err", err)
		return 0
	}
	for _, o := range offers {
		if o.Type == inst.InstanceType.Name {
			return max(0, o.Price)
		}
	}
	return 0
}

var memoryOfGPU = regexp.MustCompile(`(\d+)\s*GB`)

func newOffer(t lambda.InstanceTypeOffer) Offer {
	o := Offer{
		Type: t.InstanceType.Name, Description: t.InstanceType.Description, GPU: t.InstanceType.GPUDescription, GPUs: t.InstanceType.Specs.GPUs,
		VCPUs: t.InstanceType.Specs.VCPUs, RAMGiB: t.InstanceType.Specs.MemoryGiB, StorageGiB: t.InstanceType.Specs.StorageGiB,
		Arch: t.InstanceType.Architecture, Price: policy.Cents(int64(t.InstanceType.PriceCentsPerHour)),
	}
	// The memory of a GPU is in the text only, such as "A10 (24 GB PCIe)".
	if f := memoryOfGPU.FindStringSubmatch(o.GPU); f != nil && o.GPUs > 0 {
		if n, err := strconv.Atoi(f[1]); err == nil {
			o.VRAMGiB = n * o.GPUs
		}
	}
	for _, r := range t.Regions {
		o.Regions = append(o.Regions, r.Name)
	}
	return o
}

// policyRequest is what the policy is asked about an offer in a region.
func (m *Manager) policyRequest(p *policy.Policy, principal string, o Offer, region string, ttl time.Duration) policy.Request {
	return policy.Request{
		Principal: principal, Type: o.Type, Region: region, Image: m.ImageFamily, GPUs: o.GPUs, PricePerHour: o.Price,
		TTL: p.TTLFor(principal, ttl), BootAllowance: m.Timing.boot(o.GPUs), StopAllowance: m.Timing.StopAllowance,
	}
}

// alternatives are the offers in the form in which the policy looks for the
// nearest request that passes.
func (m *Manager) alternatives(offers []Offer) []policy.Offer {
	var out []policy.Offer
	for _, o := range offers {
		for _, r := range o.Regions {
			out = append(out, policy.Offer{Type: o.Type, Region: r, GPUs: o.GPUs, PricePerHour: o.Price, BootAllowance: m.Timing.boot(o.GPUs)})
		}
	}
	return out
}
