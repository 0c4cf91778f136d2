package tools_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/tools"
)

func TestExtendLease(t *testing.T) {
	var asked lease.Extension
	d := &desk{budget: policy.Dollar, extend: func(x lease.Extension) (lease.Lease, error) {
		asked = x
		l := ready()
		l.TTL += x.More
		l.Deadline = l.Deadline.Add(x.More)
		return l, nil
	}}
	for call, want := range map[string]string{"toolu_1": "call toolu_1", "": ""} {
		r, err := useIn(tools.WithCallID(t.Context(), call), t, tools.Deps{Leases: d}, "extend_lease", `{"lease_id":"abcdefghijkl","minutes":"30"}`)
		require.NoError(t, err)
		require.Equal(t, lease.Extension{More: 30 * time.Minute, Call: want}, asked, "no person has approved it")
		got := fields(t, r)
		require.Equal(t, 90.0, got["ttl_minutes"])
		require.Equal(t, 85.0, got["minutes_left"])
		require.Equal(t, 1.0, got["budget_left_usd"])
	}
	for _, args := range []string{`{"lease_id":"abcdefghijkl"}`, `{"lease_id":"abcdefghijkl","minutes":0}`, `{"minutes":5}`} {
		require.Contains(t, failed(t, d, "extend_lease", args), "error invalid_input: ")
	}
	d.extend = func(lease.Extension) (lease.Lease, error) {
		return ready(), &lease.Error{Code: lease.CodeBudgetExceeded, Message: "no"}
	}
	require.Contains(t, failed(t, d, "extend_lease", `{"lease_id":"abcdefghijkl","minutes":5}`), "\nlease: abcdefghijkl")
}

func spending(leases int) lease.Spending {
	s := lease.Spending{
		At: noon, Since: noon.AddDate(0, 0, -22), Held: 2 * policy.Dollar, Left: 40 * policy.Dollar,
		Caps:       []policy.CapLeft{{Rule: "caps.per_day", Limit: 50 * policy.Dollar, Used: 10 * policy.Dollar, Left: 40 * policy.Dollar, Source: "default"}},
		Principals: []lease.PrincipalSpending{{Name: "default", Totals: policy.Totals{Leases: 1, Month: 12 * policy.Dollar}}},
	}
	for i := range leases {
		l := ready()
		l.ID = lease.ID(fmt.Sprintf("aaaaaaaaaa%c%c", 'a'+i/26, 'a'+i%26))
		if i > 0 {
			l.State, l.Cost = lease.Ended, policy.Dollar
		}
		s.Leases = append(s.Leases, l)
	}
	for i := range 25 {
		s.Strangers = append(s.Strangers, lease.Stranger{Instance: fmt.Sprint("i", i), Type: "gpu_1x_a10", Price: policy.Dollar})
	}
	return s
}

// What was spent is known without a policy; what may be spent is not.
func TestSpendReportWithABrokenPolicy(t *testing.T) {
	broken := spending(1)
	broken.Caps, broken.Left, broken.Trouble = nil, 0, "the policy file cannot be used: line 3"
	d := &desk{notices: []string{"frozen by ann"}, spend: func() (lease.Spending, error) { return broken, nil }}
	got, text := answer(t, d, "spend_report", `{}`)
	require.Equal(t, []any{}, got["caps"])
	require.NotContains(t, got, "budget_left_usd")
	require.Equal(t, 2.0, got["reserved_usd"])
	require.Len(t, got["leases"], 1)
	require.Equal(t, broken.Trouble, got["warnings"].([]any)[0])
	require.Contains(t, got["warnings"], "frozen by ann")
	require.Contains(t, text, broken.Trouble)

	said, err := resourceOf(t, d, "spend").Read(t.Context())
	require.NoError(t, err)
	require.Contains(t, said, `"trouble":"the policy file cannot be used: line 3"`)
	require.NotContains(t, said, "budget_left_usd")
}

func TestSpendReport(t *testing.T) {
	d := &desk{notices: []string{"frozen by ann"}, spend: func() (lease.Spending, error) { return spending(30), nil }}
	got, text := answer(t, d, "spend_report", `{}`)
	require.Equal(t, map[string]any{"rule": "caps.per_day", "limit_usd": 50.0, "used_usd": 10.0, "left_usd": 40.0, "source": "default"}, got["caps"].([]any)[0])
	require.Equal(t, map[string]any{"principal": "default", "live_leases": 1.0, "month_usd": 12.0}, got["principals"].([]any)[0])
	require.Len(t, got["leases"], 20)
	require.Equal(t, map[string]any{"lease_id": "aaaaaaaaaaaa", "principal": "", "state": "ready", "cost_usd": 0.129, "reserved_usd": 1.0}, got["leases"].([]any)[0])
	require.Equal(t, 10.0, got["leases_omitted"])
	require.Len(t, got["untracked"], 20)
	require.Equal(t, []any{"frozen by ann", "5 more instances without a lease are not listed"}, got["warnings"])
	require.Equal(t, 40.0, got["budget_left_usd"])
	require.Equal(t, "stop_lease for each lease that is not needed", got["next"])
	require.Contains(t, text, "\ncaps.per_day: $10.00 used of $50.00, $40.00 left (default)\n")
	require.Contains(t, text, "\n10 leases more\n")

	got, _ = answer(t, d, "spend_report", `{"limit":2}`)
	require.Len(t, got["leases"], 2)
	d.spend = func() (lease.Spending, error) { return lease.Spending{Left: policy.Unlimited, At: noon}, nil }
	got, _ = answer(t, d, "spend_report", ``)
	require.Empty(t, got["leases"])
	require.NotContains(t, got, "budget_left_usd")
	require.Equal(t, "list_capacity, then launch_lease for a machine", got["next"])
}

func TestAnswersAboutNoLeaseCarryNotices(t *testing.T) {
	d := &desk{capacity: offers(), notices: []string{"frozen by ann"}, warnings: []string{"frozen by ann", "careful"}}
	d.list = func(bool, int) ([]lease.Lease, error) { return []lease.Lease{ready()}, nil }
	got, _ := answer(t, d, "list_capacity", `{}`)
	require.Equal(t, []any{"frozen by ann"}, got["warnings"])
	got, _ = answer(t, d, "list_leases", `{}`)
	require.Equal(t, []any{"frozen by ann", "abcdefghijkl: careful"}, got["warnings"], "each text once")
	require.Equal(t, []string{"frozen by ann"}, d.notices)
	_, err := useIn(context.Background(), t, tools.Deps{Leases: d}, "list_leases", `{}`)
	require.NoError(t, err)
}
