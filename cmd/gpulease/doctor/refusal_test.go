package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func TestRefusalSaysNothingOfOffersThatWereNotLookedAt(t *testing.T) {
	t.Parallel()
	p, err := policy.Parse("policy.yaml", []byte("max_leases: 1\nmax_price_per_hour: 1\n"))
	require.NoError(t, err)
	r := policy.Request{Type: "gpu_1x_a10", Region: "us-east-1", Image: ImageFamily, GPUs: 1, PricePerHour: 2 * policy.Dollar, TTL: time.Hour}
	d := policy.Evaluate(p, r, policy.Usage{}, nil)
	require.Equal(t, policy.Deny, d.Verdict)
	require.Contains(t, d.Explain(), "nearest request that passes: none now")
	require.Equal(t, "denied by max_price_per_hour: gpu_1x_a10 costs $2.00/h, above the $1.00/h allowed (set in: policy.yaml:2)", refusal(d))
}
