package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

// small is a request that the defaults allow.
func small() policy.Request {
	return policy.Request{
		Principal: "ci", Type: "gpu_1x_a10", Region: "us-east-1", GPUs: 1, PricePerHour: policy.Cents(129),
		TTL: time.Hour, BootAllowance: 15 * time.Minute, StopAllowance: 5 * time.Minute,
	}
}

func rules(d policy.Decision) []string {
	var names []string
	for _, v := range d.Violations {
		names = append(names, v.Rule)
	}
	return names
}

func TestDefaultAllows(t *testing.T) {
	p := policy.Default()
	d := policy.Evaluate(p, small(), policy.Usage{}, nil)
	require.Equal(t, policy.Allow, d.Verdict)
	require.Empty(t, d.Violations)
	require.NoError(t, d.Err())
	require.Empty(t, d.Code())
	require.Nil(t, d.Nearest)
	require.Equal(t, policy.Cents(172), d.WorstCase)
	require.Equal(t, 50*policy.Dollar, d.BudgetLeft)
	require.Equal(t, 8*time.Hour, d.LongestTTL)
	require.Equal(t, p.Hash(), d.PolicyHash)
	require.Equal(t, "allowed: worst case $1.72 of the $50.00 left", d.Explain())
	require.Equal(t, []policy.CapLeft{
		{Rule: "caps.per_lease", Limit: 25 * policy.Dollar, Left: 25 * policy.Dollar, Source: "default"},
		{Rule: "caps.per_day", Limit: 50 * policy.Dollar, Left: 50 * policy.Dollar, Source: "default"},
		{Rule: "caps.per_month", Limit: 300 * policy.Dollar, Left: 300 * policy.Dollar, Source: "default"},
	}, d.Caps)
}

// Each case breaks one rule, of the account and again of the principal.
func TestEachRuleDenies(t *testing.T) {
	type setting func(*policy.Limits)
	usage := func(set func(*policy.Totals)) policy.Usage {
		var u policy.Usage
		set(&u.Account)
		set(&u.Principal)
		return u
	}
	for _, c := range []struct {
		rule  string
		limit setting
		used  func(*policy.Totals)
		code  string
		says  string
	}{
		{"types.deny", func(l *policy.Limits) { l.Types.Deny = []string{"gpu_8x_*", "*_A10"} }, nil, policy.CodePolicyDenied,
			"type gpu_1x_a10 is denied by *_A10"},
		{"types.allow", func(l *policy.Limits) { l.Types.Allow = []string{"gpu_1x_h*", "cpu_*"} }, nil, policy.CodePolicyDenied,
			"type gpu_1x_a10 is not among those allowed: gpu_1x_h*, cpu_*"},
		{"regions.deny", func(l *policy.Limits) { l.Regions.Deny = []string{"us-east-?"} }, nil, policy.CodePolicyDenied,
			"region us-east-1 is denied by us-east-?"},
		{"regions.allow", func(l *policy.Limits) { l.Regions.Allow = []string{"europe-*"} }, nil, policy.CodePolicyDenied,
			"region us-east-1 is not among those allowed: europe-*"},
		{"images.allow", func(l *policy.Limits) { l.Images.Allow = []string{"lambda-stack-22-04"} }, nil, policy.CodePolicyDenied,
			"image default is not among those allowed: lambda-stack-22-04"},
		{"images.deny", func(l *policy.Limits) { l.Images.Deny = []string{"default"} }, nil, policy.CodePolicyDenied,
			"image default is denied by default"},
		{"max_price_per_hour", func(l *policy.Limits) { l.MaxPricePerHour = policy.Dollar }, nil, policy.CodePolicyDenied,
			"gpu_1x_a10 costs $1.29/h, above the $1.00/h allowed"},
		{"max_ttl", func(l *policy.Limits) { l.MaxTTL = 59 * time.Minute }, nil, policy.CodePolicyDenied,
			"a TTL of 1h is longer than the 59m allowed"},
		{"max_leases", func(l *policy.Limits) { l.MaxLeases = 3 }, func(u *policy.Totals) { u.Leases = 3 }, policy.CodePolicyDenied,
			"1 more would be above the 3 leases at once allowed: there are 3"},
		{"max_gpus", func(l *policy.Limits) { l.MaxGPUs = 8 }, func(u *policy.Totals) { u.GPUs = 8 }, policy.CodePolicyDenied,
			"1 more would be above the 8 GPUs at once allowed: there are 8"},
		{"max_launches_per_hour", func(l *policy.Limits) { l.MaxLaunchesPerHour = 1 },
			func(u *policy.Totals) { u.LaunchesLastHour = 1 }, policy.CodePolicyDenied,
			"1 more would be above the 1 launches within an hour allowed: there are 1"},
		{"caps.per_lease", func(l *policy.Limits) { l.Caps.PerLease = policy.Cents(171) }, nil, policy.CodeBudgetExceeded,
			"worst case $1.72 is above the cap of $1.71 a lease"},
		{"caps.burn_per_hour", func(l *policy.Limits) { l.Caps.BurnPerHour = 2 * policy.Dollar },
			func(u *policy.Totals) { u.BurnPerHour = policy.Dollar }, policy.CodeBudgetExceeded,
			"a price of $1.29/h is more than the $1.00 left of $2.00 an hour at once"},
		{"caps.per_day", func(l *policy.Limits) { l.Caps.PerDay = 9 * policy.Dollar },
			func(u *policy.Totals) { u.Day = 8 * policy.Dollar }, policy.CodeBudgetExceeded,
			"worst case $1.72 is more than the $1.00 left of $9.00 a day"},
		{"caps.per_week", func(l *policy.Limits) { l.Caps.PerWeek = 9 * policy.Dollar },
			func(u *policy.Totals) { u.Week = 8 * policy.Dollar }, policy.CodeBudgetExceeded,
			"worst case $1.72 is more than the $1.00 left of $9.00 a week"},
		{"caps.per_month", func(l *policy.Limits) { l.Caps.PerMonth = 9 * policy.Dollar },
			func(u *policy.Totals) { u.Month = 10 * policy.Dollar }, policy.CodeBudgetExceeded,
			"worst case $1.72 is more than the $0.00 left of $9.00 a month"},
		{"caps.lifetime", func(l *policy.Limits) { l.Caps.Lifetime = 9 * policy.Dollar },
			func(u *policy.Totals) { u.Lifetime = 8 * policy.Dollar }, policy.CodeBudgetExceeded,
			"worst case $1.72 is more than the $1.00 left of $9.00 in all"},
	} {
		u := policy.Usage{}
		if c.used != nil {
			u = usage(c.used)
		}
		t.Run(c.rule, func(t *testing.T) {
			p := &policy.Policy{}
			require.Equal(t, policy.Allow, policy.Evaluate(p, small(), u, nil).Verdict, "without the rule")
			c.limit(&p.Limits)
			d := policy.Evaluate(p, small(), u, nil)
			require.Equal(t, policy.Deny, d.Verdict)
			require.Equal(t, []string{c.rule}, rules(d))
			require.Equal(t, c.says, d.Violations[0].Message)
			require.Equal(t, c.code, d.Violations[0].Code)
			require.Equal(t, c.code, d.Code())
			require.Contains(t, d.Explain(), "denied by "+c.rule+": "+c.says+" (set in: default)\n")
		})
		t.Run("principals.ci."+c.rule, func(t *testing.T) {
			var own policy.Limits
			c.limit(&own)
			p := &policy.Policy{Principals: map[string]policy.Limits{"ci": own}}
			only := policy.Usage{Principal: u.Principal}
			require.Equal(t, []string{"principals.ci." + c.rule}, rules(policy.Evaluate(p, small(), only, nil)))

			other := small()
			other.Principal = "somebody"
			require.Equal(t, policy.Allow, policy.Evaluate(p, other, only, nil).Verdict, "another principal is not bound")
			account := policy.Usage{Account: u.Account}
			if c.used != nil {
				require.Equal(t, policy.Allow, policy.Evaluate(p, small(), account, nil).Verdict, "others' use does not count")
			}
		})
	}
}

func TestExactlyAtEachLimitPasses(t *testing.T) {
	r := small()
	worst := r.WorstCase()
	p := &policy.Policy{Limits: policy.Limits{
		MaxPricePerHour: r.PricePerHour, MaxTTL: r.TTL, MaxLeases: 4, MaxGPUs: 5, MaxLaunchesPerHour: 6,
		Caps: policy.Caps{PerLease: worst, BurnPerHour: 2 * r.PricePerHour, PerDay: worst + 1, PerWeek: worst + 2,
			PerMonth: worst + 3, Lifetime: worst + 4},
		ApproveAbove: worst,
	}}
	u := policy.Usage{Account: policy.Totals{Leases: 3, GPUs: 4, LaunchesLastHour: 5, BurnPerHour: r.PricePerHour,
		Day: 1, Week: 2, Month: 3, Lifetime: 4}}
	d := policy.Evaluate(p, r, u, nil)
	require.Equal(t, policy.Allow, d.Verdict, d.Explain())
	require.Equal(t, time.Hour, d.LongestTTL)
	require.Equal(t, worst, d.BudgetLeft)

	// And a step further, in each, does not.
	for rule, tighten := range map[string]func(*policy.Limits){
		"max_price_per_hour":    func(l *policy.Limits) { l.MaxPricePerHour-- },
		"max_ttl":               func(l *policy.Limits) { l.MaxTTL-- },
		"max_leases":            func(l *policy.Limits) { l.MaxLeases-- },
		"max_gpus":              func(l *policy.Limits) { l.MaxGPUs-- },
		"max_launches_per_hour": func(l *policy.Limits) { l.MaxLaunchesPerHour-- },
		"caps.per_lease":        func(l *policy.Limits) { l.Caps.PerLease-- },
		"caps.burn_per_hour":    func(l *policy.Limits) { l.Caps.BurnPerHour-- },
		"caps.per_day":          func(l *policy.Limits) { l.Caps.PerDay-- },
		"caps.per_week":         func(l *policy.Limits) { l.Caps.PerWeek-- },
		"caps.per_month":        func(l *policy.Limits) { l.Caps.PerMonth-- },
		"caps.lifetime":         func(l *policy.Limits) { l.Caps.Lifetime-- },
	} {
		c := p.Clone()
		tighten(&c.Limits)
		require.Equal(t, []string{rule}, rules(policy.Evaluate(c, r, u, nil)))
	}
	c := p.Clone()
	c.ApproveAbove--
	require.Equal(t, policy.Ask, policy.Evaluate(c, r, u, nil).Verdict)
}

func TestMachineWithoutGPUsIsNotHeldUpByTheirNumber(t *testing.T) {
	p := &policy.Policy{Limits: policy.Limits{MaxGPUs: 1}}
	u := policy.Usage{Account: policy.Totals{GPUs: 8}}
	r := small()
	require.Equal(t, []string{"max_gpus"}, rules(policy.Evaluate(p, r, u, nil)))
	r.GPUs = 0
	require.Equal(t, policy.Allow, policy.Evaluate(p, r, u, nil).Verdict)
}

func TestEverythingAtOnce(t *testing.T) {
	p, err := policy.Parse("/etc/policy.yaml", []byte(`types: {deny: [gpu_8x_*]}
max_price_per_hour: 20
max_ttl: 4h
caps:
  per_day: 50
  per_month: 300
principals:
  ci:
    max_ttl: 2h
    caps: {per_day: 5}
`))
	require.NoError(t, err)
	r := small()
	r.Type, r.GPUs, r.PricePerHour, r.TTL = "gpu_8x_h100", 8, policy.Cents(2392), 5*time.Hour
	u := policy.Usage{
		Account:   policy.Totals{Leases: 2, Day: 40 * policy.Dollar, Month: 40 * policy.Dollar},
		Principal: policy.Totals{Day: policy.Dollar},
	}
	d := policy.Evaluate(p, r, u, []policy.Offer{
		{Type: "gpu_1x_a10", Region: "us-east-1", GPUs: 1, PricePerHour: policy.Cents(129)},
	})
	require.Equal(t, policy.Deny, d.Verdict)
	require.Equal(t, policy.CodePolicyDenied, d.Code())
	require.Equal(t, []string{
		"types.deny", "max_price_per_hour",
		"max_ttl", "max_leases", "caps.per_lease", "caps.per_day",
		"principals.ci.max_ttl", "principals.ci.caps.per_day",
	}, rules(d))
	sources := map[string]string{}
	for _, v := range d.Violations {
		sources[v.Rule] = v.Source
	}
	require.Equal(t, map[string]string{
		"types.deny": "/etc/policy.yaml:1", "max_price_per_hour": "/etc/policy.yaml:2", "max_ttl": "/etc/policy.yaml:3",
		"max_leases": "default", "caps.per_lease": "default", "caps.per_day": "/etc/policy.yaml:5",
		"principals.ci.max_ttl": "/etc/policy.yaml:9", "principals.ci.caps.per_day": "/etc/policy.yaml:10",
	}, sources)
	require.Zero(t, d.LongestTTL)
	require.Nil(t, d.Nearest, "two leases are alive, so nothing passes")
	require.Equal(t, 4*policy.Dollar, d.BudgetLeft, "the principal's day is the tightest")
	require.Len(t, d.Caps, 4)

	var refused *policy.RefusedError
	require.ErrorAs(t, d.Err(), &refused)
	require.Equal(t, d, refused.Decision)
	require.True(t, strings.HasSuffix(d.Explain(), "\nnearest request that passes: none now"), d.Explain())
}

func TestWhatCannotBeJudgedIsDenied(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*policy.Request, *policy.Usage)
		rule   string
	}{
		{"no price", func(r *policy.Request, _ *policy.Usage) { r.PricePerHour = 0 }, "price"},
		{"negative price", func(r *policy.Request, _ *policy.Usage) { r.PricePerHour = -1 }, "price"},
		{"no type", func(r *policy.Request, _ *policy.Usage) { r.Type = "" }, "type"},
		{"no TTL", func(r *policy.Request, _ *policy.Usage) { r.TTL = 0 }, "ttl"},
		{"negative TTL", func(r *policy.Request, _ *policy.Usage) { r.TTL = -time.Hour }, "ttl"},
		{"endless TTL", func(r *policy.Request, _ *policy.Usage) { r.TTL = 366 * 24 * time.Hour }, "ttl"},
		{"negative boot allowance", func(r *policy.Request, _ *policy.Usage) { r.BootAllowance = -1 }, "allowances"},
		{"negative stop allowance", func(r *policy.Request, _ *policy.Usage) { r.StopAllowance = -1 }, "allowances"},
		{"negative GPUs", func(r *policy.Request, _ *policy.Usage) { r.GPUs = -1 }, "gpus"},
		{"negative spending", func(_ *policy.Request, u *policy.Usage) { u.Account.Day = -1 }, "usage"},
		{"negative leases", func(_ *policy.Request, u *policy.Usage) { u.Principal.Leases = -1 }, "usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, u := small(), policy.Usage{}
			c.change(&r, &u)
			d := policy.Evaluate(&policy.Policy{}, r, u, nil)
			require.Equal(t, policy.Deny, d.Verdict)
			require.Contains(t, rules(d), c.rule)
			require.Equal(t, policy.CodePolicyDenied, d.Code())
		})
	}
	require.Equal(t, policy.Deny, policy.Evaluate(nil, small(), policy.Usage{}, nil).Verdict)
	require.Equal(t, policy.CodePolicyDenied, policy.Decision{Verdict: policy.Deny}.Code())

	r := small()
	r.Region = ""
	p := &policy.Policy{Limits: policy.Limits{Regions: policy.Patterns{Deny: []string{"us-west-*"}}}}
	d := policy.Evaluate(p, r, policy.Usage{}, nil)
	require.Equal(t, []string{"regions.deny"}, rules(d), "an unknown region might be a denied one")
	require.Equal(t, "region (none named) is denied by us-west-*", d.Violations[0].Message)
}

func TestImages(t *testing.T) {
	p := &policy.Policy{Limits: policy.Limits{Images: policy.Patterns{Allow: []string{"Lambda-Stack-*", "default"}, Deny: []string{"*-20-*"}}}}
	for image, want := range map[string][]string{
		"": nil, "lambda-stack-22-04": nil, "lambda-stack-20-04": {"images.deny"}, "ubuntu": {"images.allow"},
		"lambda-stack": {"images.allow"},
	} {
		r := small()
		r.Image = image
		require.Equal(t, want, rules(policy.Evaluate(p, r, policy.Usage{}, nil)), image)
	}
}

func TestSaturatedSumsAreOverEveryCap(t *testing.T) {
	p := &policy.Policy{Limits: policy.Limits{Caps: policy.Caps{PerDay: policy.Unlimited}}}
	u := policy.Usage{Account: policy.Totals{Day: policy.Unlimited - 1}}
	require.Equal(t, []string{"caps.per_day"}, rules(policy.Evaluate(p, small(), u, nil)))
}

func TestApproval(t *testing.T) {
	p, err := policy.Default().With("approve_above", "1", "flag --approve-above")
	require.NoError(t, err)
	d := policy.Evaluate(p, small(), policy.Usage{}, nil)
	require.Equal(t, policy.Ask, d.Verdict)
	require.Equal(t, policy.CodeApprovalRequired, d.Code())
	require.Equal(t, "approve_above: $1.00 (flag --approve-above)", d.ApprovalRule)
	require.Equal(t, 8*time.Hour, d.LongestTTL, "an approval can be had")
	require.Error(t, d.Err())
	require.Equal(t, 26*time.Minute, d.Nearest.TTL)
	require.Equal(t, "approval needed: worst case $1.72 is above approve_above: $1.00 (flag --approve-above)\n"+
		"without approval: gpu_1x_a10 in us-east-1 for 26m, worst case $0.989 (the same type for 26m needs no approval)", d.Explain())

	p, err = p.With("principals.ci.approve_above", "0", "env X")
	require.NoError(t, err)
	require.Equal(t, policy.AlwaysAsk, p.Principals["ci"].ApproveAbove)
	d = policy.Evaluate(p, small(), policy.Usage{}, nil)
	require.Equal(t, "principals.ci.approve_above: $0.00 (env X)", d.ApprovalRule, "the tighter of the two")
	require.Nil(t, d.Nearest)

	u := policy.Usage{Account: policy.Totals{Leases: 2}}
	require.Equal(t, policy.Deny, policy.Evaluate(p, small(), u, nil).Verdict, "no approval lifts a rule")
}

func TestTypeAllowed(t *testing.T) {
	p, err := policy.Parse("/p.yaml", []byte("types: {deny: ['gpu_8x_*']}\nregions: {allow: ['us-*']}\nmax_price_per_hour: 3\nprincipals: {ci: {max_price_per_hour: 1}}\n"))
	require.NoError(t, err)
	for _, c := range []struct {
		name, who, typ, region string
		price                  policy.Money
		want                   string
	}{
		{"allowed", "me", "gpu_1x_a10", "us-east-1", policy.Cents(129), ""},
		{"region not judged", "me", "gpu_1x_a10", "", policy.Cents(129), ""},
		{"type", "me", "gpu_8x_a100", "us-east-1", policy.Cents(129), "types.deny: gpu_8x_* (/p.yaml:1)"},
		{"region", "me", "gpu_1x_a10", "asia-1", policy.Cents(129), "regions.allow: us-* (/p.yaml:2)"},
		{"price", "me", "gpu_1x_a10", "us-east-1", policy.Cents(301), "max_price_per_hour: $3.00 (/p.yaml:3)"},
		{"principal", "ci", "gpu_1x_a10", "us-east-1", policy.Cents(129), "principals.ci.max_price_per_hour: $1.00 (/p.yaml:4)"},
		{"no price", "me", "gpu_1x_a10", "us-east-1", 0, "price: above $0.00 (built in)"},
		{"no type", "me", "", "us-east-1", 1, "type: no instance type is named (built in)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, rule := p.TypeAllowed(c.who, c.typ, c.region, c.price)
			require.Equal(t, c.want, rule)
			require.Equal(t, c.want == "", ok)
		})
	}
}

func TestTTLs(t *testing.T) {
	p := policy.Default()
	p.Principals = map[string]policy.Limits{
		"short": {MaxTTL: 20 * time.Minute, IdleTimeout: 5 * time.Minute},
		"long":  {MaxTTL: 100 * time.Hour, DefaultTTL: 6 * time.Hour, IdleTimeout: 9 * time.Hour},
	}
	for _, c := range []struct {
		who             string
		def, most, idle time.Duration
	}{
		{"me", time.Hour, 8 * time.Hour, 30 * time.Minute},
		{"short", 20 * time.Minute, 20 * time.Minute, 5 * time.Minute},
		{"long", 6 * time.Hour, 8 * time.Hour, 30 * time.Minute},
	} {
		require.Equal(t, c.def, p.TTLFor(c.who, 0), c.who)
		require.Equal(t, c.most, p.MaxTTLFor(c.who), c.who)
		require.Equal(t, c.idle, p.IdleTimeoutFor(c.who), c.who)
		require.Equal(t, 99*time.Hour, p.TTLFor(c.who, 99*time.Hour), "what was asked is left for Evaluate to judge")
	}
	bare := &policy.Policy{}
	require.Equal(t, time.Hour, bare.TTLFor("", 0))
	require.Equal(t, 365*24*time.Hour, bare.MaxTTLFor(""))
	require.Zero(t, bare.IdleTimeoutFor(""))
}

func TestErrIsTyped(t *testing.T) {
	r := small()
	r.TTL = 9 * time.Hour
	err := policy.Evaluate(policy.Default(), r, policy.Usage{}, nil).Err()
	var refused *policy.RefusedError
	require.True(t, errors.As(err, &refused))
	require.Equal(t, "denied by max_ttl: a TTL of 9h is longer than the 8h allowed (set in: default)\n"+
		"nearest request that passes: gpu_1x_a10 in us-east-1 for 8h, worst case $10.75 (the same type for 8h instead of 9h)", err.Error())
}
