package policy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func offer(typ, region string, cents int64) policy.Offer {
	return policy.Offer{Type: typ, Region: region, GPUs: 1, PricePerHour: policy.Cents(cents)}
}

func TestNearest(t *testing.T) {
	big := small()
	big.Type, big.PricePerHour, big.TTL = "gpu_1x_h100", policy.Cents(300), 4*time.Hour
	big.BootAllowance, big.StopAllowance = 0, 0
	h100West, a10East, a10West, a6000 := offer("gpu_1x_h100", "us-west-1", 300), offer("gpu_1x_a10", "us-east-1", 129),
		offer("gpu_1x_a10", "us-west-1", 129), offer("gpu_1x_a6000", "us-west-1", 80)
	cpu, two := offer("cpu_4x_general", "us-west-1", 20), offer("gpu_2x_a10", "us-west-1", 250)
	cpu.GPUs, two.GPUs = 0, 2
	all := []policy.Offer{h100West, a10West, a6000, a10East}

	for _, c := range []struct {
		name   string
		file   string
		used   policy.Money
		offers []policy.Offer
		want   string
	}{
		{"shorter on the same type before anything else", "caps: {per_day: 7}", 0, all,
			"gpu_1x_h100 in us-east-1 for 2h20m, worst case $7.00 (the same type for 2h20m instead of 4h)"},
		{"what was spent shortens it", "caps: {per_day: 7}", 2 * policy.Dollar, all,
			"gpu_1x_h100 in us-east-1 for 1h40m, worst case $5.00 (the same type for 1h40m instead of 4h)"},
		{"the same type in another region", "regions: {deny: [us-east-1]}", 0, all,
			"gpu_1x_h100 in us-west-1 for 4h, worst case $12.00 (the same type in us-west-1 at $3.00/h for 4h)"},
		{"the nearest price below", "types: {deny: ['*_h100']}", 0, all,
			"gpu_1x_a10 in us-east-1 for 4h, worst case $5.16 (another type, gpu_1x_a10 in us-east-1, at $1.29/h for 4h)"},
		{"never a type without GPUs", "types: {deny: ['*_h100']}", 0, []policy.Offer{cpu}, "none"},
		{"as many GPUs before a nearer price", "types: {deny: ['*_h100']}", 0, []policy.Offer{cpu, two, a6000},
			"gpu_1x_a6000 in us-west-1 for 4h, worst case $3.20 (another type, gpu_1x_a6000 in us-west-1, at $0.80/h for 4h)"},
		{"other GPUs are named", "types: {deny: ['*_h100']}", 0, []policy.Offer{cpu, two},
			"gpu_2x_a10 in us-west-1 for 4h, worst case $10.00 (another type with 2 instead of 1 GPUs, gpu_2x_a10 in us-west-1, at $2.50/h for 4h)"},
		{"the same region among equal prices", "types: {deny: ['*_h100', '*a6000']}", 0, all,
			"gpu_1x_a10 in us-east-1 for 4h, worst case $5.16 (another type, gpu_1x_a10 in us-east-1, at $1.29/h for 4h)"},
		{"the asked TTL before a cheaper type", "types: {deny: ['*_h100']}\ncaps: {per_lease: 4}", 0, all,
			"gpu_1x_a6000 in us-west-1 for 4h, worst case $3.20 (another type, gpu_1x_a6000 in us-west-1, at $0.80/h for 4h)"},
		{"another type for less time", "types: {deny: ['*_h100']}\ncaps: {per_lease: 2}", 0, all,
			"gpu_1x_a10 in us-east-1 for 1h33m, worst case $1.9995 (another type, gpu_1x_a10 in us-east-1, at $1.29/h, and for 1h33m instead of 4h)"},
		{"without approval where that is possible", "caps: {per_day: 7}\napprove_above: 5", 0, all,
			"gpu_1x_h100 in us-east-1 for 1h40m, worst case $5.00 (the same type for 1h40m instead of 4h)"},
		{"with approval", "caps: {per_day: 7}\napprove_above: 0", 0, all,
			"gpu_1x_h100 in us-east-1 for 2h20m, worst case $7.00 (the same type for 2h20m instead of 4h; would need approval by approve_above: $0.00 (/p.yaml:2))"},
		{"none when nothing is offered", "types: {deny: ['*_h100']}", 0, nil, "none"},
		{"none when nothing is left", "caps: {per_day: 7}", 7 * policy.Dollar, all, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.Parse("/p.yaml", []byte(c.file))
			require.NoError(t, err)
			d := policy.Evaluate(p, big, policy.Usage{Account: policy.Totals{Day: c.used}}, c.offers)
			require.Equal(t, policy.Deny, d.Verdict)
			require.Equal(t, c.want, d.Nearest.String())
			said := "nearest request that passes: "
			if c.name == "with approval" {
				said = "nearest request that passes with approval: "
			}
			require.Contains(t, d.Explain(), said+c.want)
		})
	}
}

func TestNearestTakesTheOffersOwnBootAllowance(t *testing.T) {
	r := small()
	r.Type, r.BootAllowance, r.StopAllowance = "gpu_1x_h100", 0, 0
	p := policy.Default()
	p.Types.Deny = []string{"gpu_1x_h100"}
	p.Caps.PerLease = policy.Dollar
	slow := offer("gpu_8x_v100", "us-east-1", 100)
	slow.BootAllowance = 30 * time.Minute
	d := policy.Evaluate(p, r, policy.Usage{}, []policy.Offer{slow})
	require.Equal(t, 30*time.Minute, d.Nearest.TTL)
	require.Equal(t, policy.Dollar, d.Nearest.WorstCase)
}

func TestNearestOfNoTTLIsTheDefault(t *testing.T) {
	r := small()
	r.TTL = 0
	d := policy.Evaluate(policy.Default(), r, policy.Usage{}, nil)
	require.Equal(t, policy.Deny, d.Verdict)
	require.Equal(t, time.Hour, d.Nearest.TTL)
}
