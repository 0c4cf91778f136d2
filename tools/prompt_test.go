package tools_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/tools"
)

func prompt(t *testing.T, d *desk, name string, arguments map[string]string) (string, error) {
	t.Helper()
	for _, p := range tools.Prompts(d) {
		if p.Name == name {
			return p.Get(t.Context(), arguments)
		}
	}
	require.FailNow(t, "no such prompt", name)
	return "", nil
}

func TestPickAGPUCountsMemoryFromTheCatalogue(t *testing.T) {
	d := &desk{capacity: offers()}
	for _, tc := range []struct {
		parameters, precision, use string
		gib                        string
		has                        []string
		hasNot                     []string
	}{
		{"8", "", "", "18 GiB", []string{"Can be had now, cheapest first:\n- gpu_1x_a10: 1 x 24 GiB, $1.29/h, free in us-east-1, us-west-1, up to 480 min"}, []string{"cpu_4x", "No machine"}},
		{"13B", "int4", "", "8 GiB", []string{"gpu_1x_a10"}, nil},
		{"13", "", "", "30 GiB", []string{"Without capacity now:\n- gpu_1x_h100", "Denied by the policy or the budget:\n- gpu_8x_h100: 8 x 80 GiB, $23.92/h; denied by max_price_per_hour = $10.00 (default)"}, []string{"gpu_1x_a10"}},
		{"8", "", "full_finetune", "144 GiB", []string{"- gpu_8x_h100"}, []string{"gpu_1x"}},
		{"7", "bf16", "lora", "20 GiB", []string{"gpu_1x_a10"}, nil},
		{"405", "bf16", "full_finetune", "7242 GiB", []string{"No machine has that much: the most that one has is 640 GiB."}, []string{"- gpu"}},
	} {
		text, err := prompt(t, d, "pick_a_gpu", map[string]string{"parameters_billion": tc.parameters, "precision": tc.precision, "use": tc.use})
		require.NoError(t, err)
		require.Contains(t, text, "about "+tc.gib+" of GPU memory", "%+v", tc)
		for _, want := range tc.has {
			require.Contains(t, text, want)
		}
		for _, not := range tc.hasNot {
			require.NotContains(t, text, not)
		}
	}
	for wrong, want := range map[string]map[string]string{
		"parameters_billion is a number above 0": {"parameters_billion": "many"},
		"above 0 and up to 10000":                {"parameters_billion": "NaN"},
		`did you mean "bf16"?`:                   {"parameters_billion": "8", "precision": "bf-16x"},
		`did you mean "inference"?`:              {"parameters_billion": "8", "use": "inferenc"},
	} {
		_, err := prompt(t, d, "pick_a_gpu", want)
		require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
		require.ErrorContains(t, err, wrong)
	}
}

func TestPromptsSayWhatIsMeant(t *testing.T) {
	d := &desk{spend: func() (lease.Spending, error) {
		return lease.Spending{Held: 2 * policy.Dollar, Left: policy.Unlimited, Since: noon}, nil
	}}
	text, err := prompt(t, d, "what_have_i_spent", nil)
	require.NoError(t, err)
	require.Contains(t, text, "since 2026-11-23T12:00:00Z; $2.00 reserved by live leases")

	text, err = prompt(t, d, "run_my_tests_on_a_gpu", map[string]string{"command": "make test", "instance_type": "gpu_1x_a10"})
	require.NoError(t, err)
	require.Contains(t, text, `the type "gpu_1x_a10"`)
	require.Contains(t, text, "make test")
	text, err = prompt(t, d, "run_my_tests_on_a_gpu", nil)
	require.NoError(t, err)
	require.Contains(t, text, "the cheapest GPU type that is allowed and free now")
	require.Contains(t, text, "stop_lease")
}
