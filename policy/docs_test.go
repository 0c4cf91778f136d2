package policy_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

// TestThePageIsTrue holds docs/policy.md to what the package does.
func TestThePageIsTrue(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	require.NoError(t, err)
	page := strings.ReplaceAll(string(text), "\r\n", "\n")
	const path = "/home/me/.config/gpulease/policy.yaml"

	_, rest, ok := strings.Cut(page, "```yaml\n")
	require.True(t, ok)
	file, _, _ := strings.Cut(rest, "```")
	p, err := policy.Parse(path, []byte(file))
	require.NoError(t, err)

	var shown strings.Builder
	require.NoError(t, policy.Default().Show(&shown))
	_, table, _ := strings.Cut(shown.String(), "\n\n")
	for line := range strings.Lines(table) {
		rule, value := strings.Fields(line)[0], strings.Fields(line)[1]
		value = strings.TrimSuffix(strings.TrimPrefix(value, "$"), ".00")
		row := ""
		for l := range strings.Lines(page) {
			if strings.HasPrefix(l, "| `") && strings.Contains(strings.SplitN(l, "|", 3)[1], "`"+rule+"`") {
				row = l
			}
		}
		require.NotEmpty(t, row, "%s is not on the page", rule)
		if !strings.Contains(rule, ".allow") && !strings.Contains(rule, ".deny") {
			require.Equal(t, "`"+value+"`", strings.TrimSpace(strings.Split(row, "|")[2]), rule)
		}
	}

	for _, bad := range []string{
		"caps:\n  per_day: 50\n  per_mnth: 300\n",
		"\n\n\n\n\n\nmax_ttl: 8\n",
		"\n\n\n\n\n\n\ncaps:\n  per_day: -5\n",
	} {
		_, err := policy.Parse(path, []byte(bad))
		require.Error(t, err)
		require.Contains(t, page, "\n"+err.Error()+"\n")
	}

	ask := policy.Request{Type: "gpu_8x_h100_sxm5", Region: "us-west-3", GPUs: 8, PricePerHour: policy.Cents(3192), TTL: 4 * time.Hour,
		BootAllowance: 25 * time.Minute, StopAllowance: 5 * time.Minute}
	h100 := policy.Offer{Type: "gpu_1x_h100_pcie", Region: "us-west-3", GPUs: 1, PricePerHour: policy.Cents(329), BootAllowance: 10 * time.Minute}
	used := policy.Usage{Account: policy.Totals{Leases: 1, GPUs: 1, Day: policy.Cents(2650)}}
	refused := policy.Evaluate(p, ask, used, []policy.Offer{h100}).Explain()
	require.Contains(t, page, "\n"+refused+"\n", refused)

	ask.Type, ask.GPUs, ask.PricePerHour, ask.BootAllowance = h100.Type, h100.GPUs, h100.PricePerHour, h100.BootAllowance
	waits := policy.Evaluate(p, ask, policy.Usage{}, nil).Explain()
	require.Contains(t, page, "\n"+waits+"\n", waits)
}
