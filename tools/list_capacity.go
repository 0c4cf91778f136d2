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

type capacityIn struct {
	Region      string `json:"region,omitempty"`
	MinVRAM     int    `json:"min_vram_gib,omitempty" jsonschema:"minimum=1" jsonschema_description:"Of all GPUs together."`
	Unavailable bool   `json:"include_unavailable,omitempty" jsonschema_description:"Also types without capacity now."`
}

type capacityOut struct {
	Offers []offer `json:"offers"`
	advice
}

type offer struct {
	Type       string       `json:"instance_type"`
	GPU        string       `json:"gpu,omitempty"`
	GPUs       int          `json:"gpus"`
	VRAM       int          `json:"vram_gib,omitempty"`
	VCPUs      int          `json:"vcpus,omitempty"`
	RAM        int          `json:"ram_gib,omitempty"`
	Storage    int          `json:"storage_gib,omitempty"`
	Arch       string       `json:"arch,omitempty"`
	Regions    []string     `json:"regions"`
	Price      policy.Money `json:"price_usd_per_hour"`
	Allowed    bool         `json:"allowed"`
	Rule       string       `json:"rule,omitempty"`
	LongestTTL int          `json:"longest_ttl_minutes,omitempty"`
}

func listCapacity(r Reader) Tool {
	return New(Def{
		Name:        "list_capacity",
		Title:       "List GPU capacity",
		Description: "Lists the GPU machines free now, cheapest first: price, regions, what policy and budget allow.",
		Annotations: Annotations{ReadOnly: true, Idempotent: true, OpenWorld: true},
		AlwaysLoad:  true,
	}, func(ctx context.Context, in capacityIn) (capacityOut, error) {
		c, err := r.Capacity(ctx)
		if err != nil {
			return capacityOut{}, err
		}
		out := capacityOut{Offers: []offer{}, advice: advice{BudgetLeft: limited(c.BudgetLeft), Warnings: r.Notices(ctx)}}
		best := ""
		for _, o := range c.Offers {
			regions := o.Regions
			if in.Region != "" {
				regions = slices.DeleteFunc(slices.Clone(regions), func(name string) bool { return name != in.Region })
			}
			if (len(regions) == 0 && !in.Unavailable) || o.VRAMGiB < in.MinVRAM {
				continue
			}
			if best == "" && o.Allowed && len(regions) > 0 && o.GPUs > 0 {
				best = o.Type
			}
			out.Offers = append(out.Offers, offer{
				Type: o.Type, GPU: short(o.GPU, seen), GPUs: o.GPUs, VRAM: o.VRAMGiB, VCPUs: o.VCPUs, RAM: o.RAMGiB, Storage: o.StorageGiB, Arch: o.Arch,
				Regions: append([]string{}, regions...), Price: o.Price,
				Allowed: o.Allowed, Rule: o.Rule, LongestTTL: int(o.LongestTTL / time.Minute),
			})
		}
		if n := slices.IndexFunc(c.Offers, func(o lease.Offer) bool { return o.Type == best }); n >= 0 && c.BudgetLeft < c.Offers[n].Price {
			out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("budget low: the %s that are left do not pay an hour of %s", c.BudgetLeft, best))
		}
		var omitted int
		if out.Offers, omitted = fit(out.Offers, listRoom); omitted > 0 {
			out.Warnings = append(slices.Clone(out.Warnings), plural(omitted, "more type")+" not listed; ask with region or min_vram_gib")
		}
		switch {
		case best != "":
			out.Next = then("launch_lease", with{"type": best}, "launch_lease with type %q (dry_run: true quotes without launching)", best)
		case len(out.Offers) > 0:
			out.Next = say("none of these can be launched now: see rule and regions; ask a person to change the policy, or try again in a few minutes")
		default:
			out.Next = then("list_capacity", with{}, "list_capacity with fewer conditions, or again in a few minutes: capacity comes and goes")
			if free := regionsOf(c.Offers); in.Region != "" && len(free) > 0 && !slices.Contains(free, in.Region) {
				out.Next = then("list_capacity", with{}, "list_capacity without region: nothing is free in a region called %q; there is capacity in %s", in.Region, strings.Join(free, ", "))
			}
		}
		return out, nil
	})
}

// regionsOf is where anything is free, sorted.
func regionsOf(offers []lease.Offer) []string {
	var all []string
	for _, o := range offers {
		all = append(all, o.Regions...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Text lists the offers, one a line.
func (o capacityOut) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", plural(len(o.Offers), "machine type"))
	if o.BudgetLeft != nil {
		fmt.Fprintf(&b, ", budget left %s", *o.BudgetLeft)
	}
	for _, x := range o.Offers {
		where := "not free now"
		if len(x.Regions) > 0 {
			where = strings.Join(x.Regions, ", ")
		}
		verdict := "denied: " + x.Rule
		if x.Allowed {
			verdict = "allowed"
			if x.LongestTTL > 0 { // for what is not free there is no region to reckon with
				verdict += fmt.Sprintf(" up to %d min", x.LongestTTL)
			}
			if x.Rule != "" {
				verdict += "; " + x.Rule
			}
		}
		fmt.Fprintf(&b, "\n%s %s/h, %s; %s", x.Type, x.Price, where, verdict)
	}
	return b.String() + o.lines()
}
