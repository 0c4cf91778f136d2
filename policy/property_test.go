package policy_test

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/policy"
)

var (
	typeNames   = []string{"gpu_1x_a10", "gpu_1x_h100", "gpu_8x_h100", "gpu_2x_a6000", "cpu_4x"}
	regionNames = []string{"us-east-1", "us-west-2", "europe-1"}
	typeGlobs   = []string{"gpu_*", "*_a10", "gpu_8x_*", "cpu_?x", "*"}
	regionGlobs = []string{"us-*", "*-1", "europe-?", "*"}
)

func money(most policy.Money) *rapid.Generator[policy.Money] {
	return rapid.Map(rapid.Int64Range(0, int64(most)), func(n int64) policy.Money { return policy.Money(n) })
}

// maybe is 0, which is no limit, most of the time, so that many requests pass.
func maybe[T int | policy.Money | time.Duration](g *rapid.Generator[T]) *rapid.Generator[T] {
	nothing := rapid.Just(T(0))
	return rapid.OneOf(nothing, nothing, nothing, nothing, nothing, nothing, g)
}

func span(from, to time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(int64(from), int64(to)), func(n int64) time.Duration { return time.Duration(n) })
}

func drawPatterns(t *rapid.T, globs []string) policy.Patterns {
	if rapid.IntRange(0, 3).Draw(t, "any") > 0 {
		return policy.Patterns{}
	}
	return policy.Patterns{
		Allow: rapid.SliceOfN(rapid.SampledFrom(globs), 0, 2).Draw(t, "allow"),
		Deny:  rapid.SliceOfN(rapid.SampledFrom(globs[:len(globs)-1]), 0, 1).Draw(t, "deny"),
	}
}

func drawLimits(t *rapid.T) policy.Limits {
	capped := maybe(money(100 * policy.Dollar))
	return policy.Limits{
		Types:              drawPatterns(t, typeGlobs),
		Regions:            drawPatterns(t, regionGlobs),
		MaxPricePerHour:    maybe(money(30*policy.Dollar)).Draw(t, "price"),
		MaxTTL:             maybe(span(time.Minute, 30*time.Hour)).Draw(t, "max ttl"),
		MaxLeases:          maybe(rapid.IntRange(0, 4)).Draw(t, "leases"),
		MaxGPUs:            maybe(rapid.IntRange(0, 12)).Draw(t, "gpus"),
		MaxLaunchesPerHour: maybe(rapid.IntRange(0, 5)).Draw(t, "launches"),
		ApproveAbove:       rapid.OneOf(rapid.Just(policy.Money(0)), money(60*policy.Dollar), rapid.Just(policy.AlwaysAsk)).Draw(t, "approve"),
		Caps: policy.Caps{
			PerLease: capped.Draw(t, "per lease"), BurnPerHour: capped.Draw(t, "burn"), PerDay: capped.Draw(t, "day"),
			PerWeek: capped.Draw(t, "week"), PerMonth: capped.Draw(t, "month"), Lifetime: capped.Draw(t, "lifetime"),
		},
	}
}

func drawPolicy(t *rapid.T) *policy.Policy {
	return &policy.Policy{Limits: drawLimits(t), Principals: map[string]policy.Limits{"ci": drawLimits(t)}}
}

func drawTotals(t *rapid.T) policy.Totals {
	spent := rapid.OneOf(rapid.Just(policy.Money(0)), money(60*policy.Dollar))
	return policy.Totals{
		Leases: rapid.IntRange(0, 3).Draw(t, "leases"), GPUs: rapid.IntRange(0, 8).Draw(t, "gpus"),
		LaunchesLastHour: rapid.IntRange(0, 3).Draw(t, "launches"), BurnPerHour: spent.Draw(t, "burn"),
		Day: spent.Draw(t, "day"), Week: spent.Draw(t, "week"), Month: spent.Draw(t, "month"), Lifetime: spent.Draw(t, "ever"),
	}
}

func drawUsage(t *rapid.T) policy.Usage {
	return policy.Usage{Account: drawTotals(t), Principal: drawTotals(t)}
}

func drawRequest(t *rapid.T) policy.Request {
	return policy.Request{
		Principal: rapid.SampledFrom([]string{"ci", "me"}).Draw(t, "who"),
		Type:      rapid.SampledFrom(typeNames).Draw(t, "type"), Region: rapid.SampledFrom(regionNames).Draw(t, "region"),
		GPUs: rapid.IntRange(0, 8).Draw(t, "gpus"), PricePerHour: money(12*policy.Dollar).Draw(t, "price"),
		TTL: span(0, 12*time.Hour).Draw(t, "ttl"), BootAllowance: span(0, time.Hour).Draw(t, "boot"),
		StopAllowance: span(0, time.Hour).Draw(t, "stop"),
	}
}

func drawOffers(t *rapid.T) []policy.Offer {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.Offer {
		return policy.Offer{
			Type: rapid.SampledFrom(typeNames).Draw(t, "type"), Region: rapid.SampledFrom(regionNames).Draw(t, "region"),
			GPUs: rapid.IntRange(0, 8).Draw(t, "gpus"), PricePerHour: money(12*policy.Dollar).Draw(t, "price"),
			BootAllowance: maybe(span(0, time.Hour)).Draw(t, "boot"),
		}
	}), 0, 4).Draw(t, "offers")
}

// breaks is a second opinion, in big numbers and regular expressions: the limits that a request breaks.
func breaks(l policy.Limits, r policy.Request, u policy.Totals) bool {
	num := func(m policy.Money) *big.Int { return big.NewInt(int64(m)) }
	over := func(limit, used, add policy.Money) bool {
		return limit > 0 && new(big.Int).Add(num(used), num(add)).Cmp(num(limit)) > 0
	}
	glob := func(list []string, name string) bool {
		for _, g := range list {
			re := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(g))
			if regexp.MustCompile(`^(?i:` + re + `)$`).MatchString(name) {
				return true
			}
		}
		return false
	}
	named := func(ps policy.Patterns, name string) bool {
		return glob(ps.Deny, name) || len(ps.Allow) > 0 && !glob(ps.Allow, name)
	}
	mins := (int64(r.TTL+r.BootAllowance+r.StopAllowance) + int64(time.Minute) - 1) / int64(time.Minute)
	cost := new(big.Int).Mul(num(r.PricePerHour), big.NewInt(mins))
	cost.Add(cost, big.NewInt(59)).Div(cost, big.NewInt(60))
	worst := policy.Money(cost.Int64())
	return r.TTL <= 0 || r.PricePerHour <= 0 ||
		named(l.Types, r.Type) || named(l.Regions, r.Region) ||
		l.MaxPricePerHour > 0 && r.PricePerHour > l.MaxPricePerHour ||
		l.MaxTTL > 0 && r.TTL > l.MaxTTL ||
		l.MaxLeases > 0 && u.Leases+1 > l.MaxLeases ||
		l.MaxGPUs > 0 && r.GPUs > 0 && u.GPUs+r.GPUs > l.MaxGPUs ||
		l.MaxLaunchesPerHour > 0 && u.LaunchesLastHour+1 > l.MaxLaunchesPerHour ||
		over(l.Caps.PerLease, 0, worst) || over(l.Caps.BurnPerHour, u.BurnPerHour, r.PricePerHour) ||
		over(l.Caps.PerDay, u.Day, worst) || over(l.Caps.PerWeek, u.Week, worst) ||
		over(l.Caps.PerMonth, u.Month, worst) || over(l.Caps.Lifetime, u.Lifetime, worst)
}

func TestVerdictAgreesWithASecondOpinion(t *testing.T) {
	seen := map[policy.Verdict]int{}
	rapid.Check(t, func(t *rapid.T) {
		p, r, u := drawPolicy(t), drawRequest(t), drawUsage(t)
		d := policy.Evaluate(p, r, u, nil)
		seen[d.Verdict]++

		denied := breaks(p.Limits, r, u.Account)
		ask := p.ApproveAbove != 0 && d.WorstCase > p.ApproveAbove
		if own, ok := p.Principals[r.Principal]; ok {
			denied = denied || breaks(own, r, u.Principal)
			ask = ask || own.ApproveAbove != 0 && d.WorstCase > own.ApproveAbove
		}
		require.Equal(t, denied, d.Verdict == policy.Deny, d.Explain())
		require.Equal(t, denied, len(d.Violations) > 0)
		if !denied {
			require.Equal(t, ask, d.Verdict == policy.Ask)
			require.Equal(t, ask, d.ApprovalRule != "")
		}
		require.Equal(t, d.Verdict == policy.Allow, d.Err() == nil)
		for _, c := range d.Caps {
			require.Equal(t, max(0, c.Limit-c.Used), c.Left)
			if d.Verdict != policy.Deny && !strings.HasSuffix(c.Rule, "burn_per_hour") {
				require.LessOrEqual(t, d.WorstCase, c.Left, c.Rule)
			}
		}
	})
	t.Logf("verdicts: %v", seen)
	for _, v := range []policy.Verdict{policy.Allow, policy.Ask, policy.Deny} {
		require.Positive(t, seen[v], "the generators never lead to %s", v)
	}
}

// strictness orders verdicts.
func strictness(v policy.Verdict) int {
	return map[policy.Verdict]int{policy.Allow: 0, policy.Ask: 1, policy.Deny: 2}[v]
}

func TestAskingForMoreNeverPassesMoreEasily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r, u := drawPolicy(t), drawRequest(t), drawUsage(t)
		r.TTL, r.PricePerHour = max(r.TTL, 1), max(r.PricePerHour, 1)
		before := policy.Evaluate(p, r, u, nil)

		more, used := r, u
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0:
			more.TTL += span(0, 20*time.Hour).Draw(t, "more ttl")
		case 1:
			more.PricePerHour += money(20*policy.Dollar).Draw(t, "more price")
		case 2:
			more.BootAllowance += span(0, time.Hour).Draw(t, "more boot")
		case 3:
			more.GPUs += rapid.IntRange(0, 8).Draw(t, "more gpus")
		case 4:
			used.Account.Day += money(60*policy.Dollar).Draw(t, "more spent")
		case 5:
			used.Principal.Leases += rapid.IntRange(0, 3).Draw(t, "more leases")
		}
		after := policy.Evaluate(p, more, used, nil)
		require.GreaterOrEqual(t, strictness(after.Verdict), strictness(before.Verdict))
		require.GreaterOrEqual(t, after.WorstCase, before.WorstCase)
		require.LessOrEqual(t, after.BudgetLeft, before.BudgetLeft)
		require.LessOrEqual(t, after.LongestTTL, before.LongestTTL)
	})
}

func TestLongestTTLIsExact(t *testing.T) {
	positive := 0
	rapid.Check(t, func(t *rapid.T) {
		p, r, u := drawPolicy(t), drawRequest(t), drawUsage(t)
		longest := policy.Evaluate(p, r, u, nil).LongestTTL
		require.Zero(t, longest%time.Minute)
		if longest > 0 {
			positive++
			r.TTL = longest
			require.NotEqual(t, policy.Deny, policy.Evaluate(p, r, u, nil).Verdict)
		}
		r.TTL = longest + time.Minute
		if r.TTL <= p.MaxTTLFor(r.Principal) {
			require.Equal(t, policy.Deny, policy.Evaluate(p, r, u, nil).Verdict)
		}
	})
	require.Positive(t, positive)
}

func TestNearestPasses(t *testing.T) {
	found := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		p, r, u, offers := drawPolicy(t), drawRequest(t), drawUsage(t), drawOffers(t)
		d := policy.Evaluate(p, r, u, offers)
		if d.Nearest == nil {
			if d.Verdict == policy.Deny {
				require.Zero(t, d.LongestTTL)
				for _, o := range offers {
					if o.Type == r.Type && o.Region == r.Region || r.GPUs > 0 && o.GPUs == 0 {
						continue
					}
					require.Zero(t, policy.Evaluate(p, moved(r, o, time.Minute), u, nil).LongestTTL, "%+v would pass", o)
				}
			}
			return
		}
		n := d.Nearest
		candidates := []policy.Request{moved(r, policy.Offer{Type: r.Type, Region: r.Region, GPUs: r.GPUs, PricePerHour: r.PricePerHour}, n.TTL)}
		for _, o := range offers {
			candidates = append(candidates, moved(r, o, n.TTL))
		}
		// A type and region may be offered at several prices; the one that is meant has the worst case that was said.
		for _, c := range candidates {
			if c.Type != n.Type || c.Region != n.Region || c.WorstCase() != n.WorstCase {
				continue
			}
			again := policy.Evaluate(p, c, u, nil)
			if again.Verdict == policy.Deny {
				continue
			}
			if d.Verdict == policy.Ask {
				require.Equal(t, policy.Allow, again.Verdict)
			}
			require.Equal(t, again.Verdict == policy.Ask, n.Approval)
			require.Equal(t, n.Approval, strings.Contains(n.Why, "would need approval by"))
			found[fmt.Sprint(d.Verdict, " ", n.Type == r.Type, " ", n.TTL == r.TTL)]++
			return
		}
		t.Fatalf("nearest %v passes nowhere", n)
	})
	t.Logf("verdict, same type, same TTL: %v", found)
	require.NotEmpty(t, found)
}

func moved(r policy.Request, o policy.Offer, ttl time.Duration) policy.Request {
	r.Type, r.Region, r.GPUs, r.PricePerHour, r.TTL = o.Type, o.Region, o.GPUs, o.PricePerHour, ttl
	if o.BootAllowance > 0 {
		r.BootAllowance = o.BootAllowance
	}
	return r
}
