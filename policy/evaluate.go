package policy

import (
	"fmt"
	"time"
)

// Evaluate decides about r under p, given what counts so far (u, without r) and what else could be had (offers, for
// [Decision.Nearest]; nil to search the same type only). It says everything at once: each rule that denies, the account's and
// the principal's, with its source; what is left under every cap; and the nearest request that passes, which has been put to
// the same rules. What cannot be judged (no price, a negative total) is denied. A nil policy denies.
//
// To be safe against races the caller evaluates inside the transaction that reserves.
func Evaluate(p *Policy, r Request, u Usage, offers []Offer) Decision {
	if p == nil {
		return Decision{Verdict: Deny, WorstCase: r.WorstCase(), Violations: []Violation{{
			Rule: "policy", Code: CodePolicyDenied, Source: sourceBuiltIn, Message: "there is no policy to decide by",
		}}}
	}
	j := judge{policy: p, usage: p.counted(u)}
	d := Decision{
		Verdict:    Allow,
		WorstCase:  r.WorstCase(),
		Violations: j.violations(r),
		BudgetLeft: Unlimited,
		LongestTTL: j.longestTTL(r, j.passes),
		PolicyHash: p.Hash(),
	}
	for _, s := range j.scopes(r) {
		for _, c := range s.caps(r) {
			left := max(0, c.limit.plus(-max(c.used, 0)))
			d.Caps = append(d.Caps, CapLeft{
				Rule: s.prefix + c.rule, Limit: c.limit, Used: c.used, Left: left, Source: p.source(s.prefix + c.rule),
			})
			if c.budget {
				d.BudgetLeft = min(d.BudgetLeft, left)
			}
		}
	}
	if len(d.Violations) > 0 {
		d.Verdict = Deny
		d.Nearest = j.nearest(r, d.LongestTTL, offers)
		return d
	}
	if d.ApprovalRule = j.approval(r); d.ApprovalRule != "" {
		d.Verdict = Ask
		d.Nearest = j.withoutApproval(r)
	}
	return d
}

// TypeAllowed says whether a type could be had in a region at a price, whatever the budget: the rules types, regions and
// max_price_per_hour of the account and of the principal. If not, rule is the first that denies it, with its value and its
// source. An empty region is not judged.
func (p *Policy) TypeAllowed(principal, typ, region string, price Money) (ok bool, rule string) {
	j := judge{policy: p}
	found := j.kindViolations(Request{Principal: principal, Type: typ, Region: region, PricePerHour: price}, region != "", false)
	if len(found) == 0 {
		return true, ""
	}
	return false, found[0].rule()
}

// rule is the violated rule with its value and its source.
func (v Violation) rule() string {
	if v.Limit == "" {
		return fmt.Sprintf("%s: %s (%s)", v.Rule, v.Message, v.Source)
	}
	return fmt.Sprintf("%s: %s (%s)", v.Rule, v.Limit, v.Source)
}

// judge puts requests to one policy at one usage.
type judge struct {
	policy *Policy
	usage  Usage
}

// scope is one set of limits that binds, with the totals that it binds.
type scope struct {
	prefix string // of rule names: "" or "principals.NAME."
	limits Limits
	totals Totals

	untracked Totals // of totals
}

func (j judge) scopes(r Request) []scope {
	all := []scope{{"", j.policy.Limits, j.usage.Account, j.usage.Untracked}}
	if own, ok := j.policy.Principals[r.Principal]; ok {
		all = append(all, scope{"principals." + r.Principal + ".", own, j.usage.Principal, Totals{}})
	}
	return all
}

// passes says whether no rule denies r.
func (j judge) passes(r Request) bool { return len(j.violations(r)) == 0 }

func (j judge) violations(r Request) []Violation {
	found := j.unreadable(r)
	found = append(found, j.kindViolations(r, true, true)...)
	for _, s := range j.scopes(r) {
		found = append(found, j.timeViolations(s, r)...)
		found = append(found, j.countViolations(s, r)...)
		found = append(found, j.moneyViolations(s, r)...)
	}
	return found
}

// unreadable is what makes a request or a usage impossible to judge.
func (j judge) unreadable(r Request) []Violation {
	var found []Violation
	deny := func(bad bool, rule, limit, asked, message string) {
		if bad {
			found = append(found, Violation{rule, CodePolicyDenied, limit, asked, sourceBuiltIn, message})
		}
	}
	deny(r.TTL <= 0, "ttl", "above 0", span(r.TTL), "a lease needs a TTL above 0")
	deny(r.TTL > longestTTL, "ttl", span(longestTTL), span(r.TTL),
		fmt.Sprintf("a TTL of %s is longer than any lease may live, %s", span(r.TTL), span(longestTTL)))
	deny(r.BootAllowance < 0 || r.StopAllowance < 0, "allowances", "0 or more", "less", "a boot or stop allowance is negative")
	deny(r.GPUs < 0, "gpus", "0 or more", fmt.Sprint(r.GPUs), "the number of GPUs is negative")
	deny(j.usage.Account.negative() || j.usage.Principal.negative(), "usage", "0 or more", "less",
		"what was spent so far cannot be told: a total is negative")
	return found
}

// counted is the usage with what is untracked among the account's, where the policy counts it.
func (p *Policy) counted(u Usage) Usage {
	if !p.CountUntracked {
		u.Untracked = Totals{}
		return u
	}
	a, t := &u.Account, u.Untracked
	if a.negative() || t.negative() {
		a.Day = -1 // cannot be judged
		return u
	}
	a.BurnPerHour, a.Day, a.Week = a.BurnPerHour.plus(t.BurnPerHour), a.Day.plus(t.Day), a.Week.plus(t.Week)
	a.Month, a.Lifetime = a.Month.plus(t.Month), a.Lifetime.plus(t.Lifetime)
	return u
}

func (t Totals) negative() bool {
	return min(t.Leases, t.GPUs, t.LaunchesLastHour) < 0 || min(t.BurnPerHour, t.Day, t.Week, t.Month, t.Lifetime) < 0
}

// kindViolations judges what is asked for and at what price, not how long and how many.
func (j judge) kindViolations(r Request, region, image bool) []Violation {
	var found []Violation
	if r.Type == "" {
		found = append(found, Violation{"type", CodePolicyDenied, "", "", sourceBuiltIn, "no instance type is named"})
	}
	if r.PricePerHour <= 0 {
		found = append(found, Violation{"price", CodePolicyDenied, "above $0.00", r.PricePerHour.String(), sourceBuiltIn,
			fmt.Sprintf("the price of %s is not known, and without one nothing is launched", r.Type)})
	}
	for _, s := range j.scopes(r) {
		match := func(section, noun, name string, ps Patterns) {
			ok, which, limit := ps.allows(name)
			if ok {
				return
			}
			rule := s.prefix + section + "." + which
			message := fmt.Sprintf("%s %s is denied by %s", noun, orNone(name), limit)
			if which == "allow" {
				message = fmt.Sprintf("%s %s is not among those allowed: %s", noun, orNone(name), limit)
			}
			found = append(found, Violation{rule, CodePolicyDenied, limit, name, j.policy.source(rule), message})
		}
		match("types", "type", r.Type, s.limits.Types)
		if region {
			match("regions", "region", r.Region, s.limits.Regions)
		}
		if image {
			match("images", "image", imageName(r.Image), s.limits.Images)
		}
		if limit := s.limits.MaxPricePerHour; limit > 0 && r.PricePerHour > limit {
			rule := s.prefix + "max_price_per_hour"
			found = append(found, Violation{rule, CodePolicyDenied, limit.String(), r.PricePerHour.String(), j.policy.source(rule),
				fmt.Sprintf("%s costs %s/h, above the %s/h allowed", r.Type, r.PricePerHour, limit)})
		}
	}
	return found
}

func (j judge) timeViolations(s scope, r Request) []Violation {
	limit := s.limits.MaxTTL
	if limit <= 0 || r.TTL <= limit {
		return nil
	}
	rule := s.prefix + "max_ttl"
	return []Violation{{rule, CodePolicyDenied, span(limit), span(r.TTL), j.policy.source(rule),
		fmt.Sprintf("a TTL of %s is longer than the %s allowed", span(r.TTL), span(limit))}}
}

func (j judge) countViolations(s scope, r Request) []Violation {
	var found []Violation
	for _, c := range []struct {
		rule             string
		limit, used, add int
		what             string
	}{
		{"max_leases", s.limits.MaxLeases, s.totals.Leases, 1, "leases at once"},
		{"max_gpus", s.limits.MaxGPUs, s.totals.GPUs, r.GPUs, "GPUs at once"},
		{"max_launches_per_hour", s.limits.MaxLaunchesPerHour, s.totals.LaunchesLastHour, 1, "launches within an hour"},
	} {
		// add > limit - used, in the form that cannot overflow for the non-negative numbers that are judged.
		if c.limit <= 0 || c.add <= 0 || c.used <= c.limit && c.add <= c.limit-c.used {
			continue
		}
		rule := s.prefix + c.rule
		found = append(found, Violation{rule, CodePolicyDenied, fmt.Sprint(c.limit), fmt.Sprintf("%d more than %d", c.add, c.used),
			j.policy.source(rule),
			fmt.Sprintf("%d more would be above the %d %s allowed: there are %d", c.add, c.limit, c.what, c.used)})
	}
	return found
}

// moneyCap is one cap in dollars that applies to a request.
type moneyCap struct {
	rule             string
	limit, used, add Money
	per              string
	untracked        Money // of used
	budget           bool  // counts toward Decision.BudgetLeft
}

func (s scope) caps(r Request) []moneyCap {
	worst, c, t, x := r.WorstCase(), s.limits.Caps, s.totals, s.untracked
	var set []moneyCap
	for _, m := range []moneyCap{
		{"caps.per_lease", c.PerLease, 0, worst, "a lease", 0, false},
		{"caps.burn_per_hour", c.BurnPerHour, t.BurnPerHour, r.PricePerHour, "an hour at once", x.BurnPerHour, false},
		{"caps.per_day", c.PerDay, t.Day, worst, "a day", x.Day, true},
		{"caps.per_week", c.PerWeek, t.Week, worst, "a week", x.Week, true},
		{"caps.per_month", c.PerMonth, t.Month, worst, "a month", x.Month, true},
		{"caps.lifetime", c.Lifetime, t.Lifetime, worst, "in all", x.Lifetime, true},
	} {
		if m.limit > 0 {
			set = append(set, m)
		}
	}
	return set
}

func (j judge) moneyViolations(s scope, r Request) []Violation {
	var found []Violation
	for _, c := range s.caps(r) {
		total := c.used.plus(c.add)
		if total <= c.limit && total < Unlimited { // a sum that saturated is not known to be below anything
			continue
		}
		what := "worst case " + c.add.String()
		if c.rule == "caps.burn_per_hour" {
			what = "a price of " + c.add.String() + "/h"
		}
		message := fmt.Sprintf("%s is above the cap of %s %s", what, c.limit, c.per)
		if c.rule != "caps.per_lease" {
			message = fmt.Sprintf("%s is more than the %s left of %s %s", what, max(0, c.limit-c.used), c.limit, c.per)
			if c.untracked > 0 {
				message += fmt.Sprintf(" (%s of it by instances that no lease accounts for)", c.untracked)
			}
		}
		rule := s.prefix + c.rule
		found = append(found, Violation{rule, CodeBudgetExceeded, c.limit.String(), c.add.String(), j.policy.source(rule), message})
	}
	return found
}

// approval is the rule that wants a person's approval for r, with its value and its source; "" is none.
func (j judge) approval(r Request) string {
	var text string
	var lowest Money
	for _, s := range j.scopes(r) {
		limit := s.limits.ApproveAbove
		if limit == 0 || r.WorstCase() <= limit || text != "" && limit >= lowest {
			continue
		}
		rule := s.prefix + "approve_above"
		lowest, text = limit, fmt.Sprintf("%s: %s (%s)", rule, max(0, limit), j.policy.source(rule))
	}
	return text
}

func imageName(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "(none named)"
	}
	return s
}

// span writes a duration as people write it in the file: "8h", "1h30m", "45s".
func span(d time.Duration) string {
	if d <= 0 || d%time.Minute != 0 {
		return d.String()
	}
	h, m := d/time.Hour, d%time.Hour/time.Minute
	switch {
	case m == 0:
		return fmt.Sprintf("%dh", h)
	case h == 0:
		return fmt.Sprintf("%dm", m)
	}
	return fmt.Sprintf("%dh%dm", h, m)
}
