package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// While the policy file is broken nothing is launched; what is there is shown all the same.
func TestWhatIsReadNeedsNoPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("caps: {per_day: 40}\n")
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	h.until(id, "ready")
	w.under("caps: {per_day: -40}\n")

	const trouble = "the policy file cannot be used, so no cap is known and nothing can be launched: "
	a := h.ok("spend_report", nil)
	require.Contains(t, a.Warnings[0], trouble)
	require.Contains(t, string(a.Raw), `"lease_id":"`+id+`"`)
	require.NotContains(t, string(a.Raw), "budget_left_usd")
	require.Contains(t, string(h.ok("list_leases", nil).Raw), id)
	require.Equal(t, "ready", h.ok("get_lease", map[string]any{"lease_id": id}).State)
	h.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": testType})

	for _, args := range [][]string{{"spend"}, {"spend", "--json"}} {
		out := w.says(0, args...)
		require.Contains(t, out, trouble)
		require.Contains(t, out, id)
	}
	for _, args := range [][]string{{"leases"}, {"leases", "--all"}, {"leases", "--json"}} {
		require.Contains(t, w.says(0, args...), id, "%v", args)
	}
	require.Contains(t, w.says(0, "audit", "show", id), "launched as ")
	w.stop(h, id)
}
