package metrics_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/metrics"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

type ledger struct{ err error }

var now = time.Unix(1_800_000_000, 0)

func (l ledger) Spend(context.Context, string) (lease.Spending, error) {
	return lease.Spending{
		At: now, Held: 1_500_000,
		Usage: policy.Usage{Account: policy.Totals{BurnPerHour: 1_290_000, Day: 2_000_000}},
		Caps:  []policy.CapLeft{{Rule: "caps.per_day", Limit: 50_000_000, Used: 2_000_000}, {Rule: "principals.ann.caps.per_day", Limit: 1}},
		Leases: []lease.Lease{
			{ID: "aaaaaaaaaaaa", Principal: "ann", State: lease.Ready}, {State: lease.Stopping, StopAt: now.Add(-time.Minute)}, {State: lease.Ended},
		},
	}, l.err
}

func (l ledger) Guards(context.Context) ([]lease.Guard, error) {
	return []lease.Guard{{Name: "keeper 1", Seen: now.Add(-90 * time.Second)}, {Name: "keeper 2", Seen: now.Add(-3 * time.Second)}, {Name: "leader x", Seen: now}}, nil
}

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	r := httptest.NewRecorder()
	m.Handler().ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, r.Code)
	return r.Body.String()
}

func TestWhatPrometheusIsTold(t *testing.T) {
	m := metrics.New("v1", ledger{}, func() int { return 7 })
	m.Call("stop_lease", time.Second, nil)
	m.Call("launch_lease", time.Second, &lease.Error{Code: lease.CodeNoCapacity})
	text := scrape(t, m)
	for _, line := range []string{
		"gpulease_ledger_up 1", `gpulease_leases{state="ready"} 1`, `gpulease_leases{state="stopping"} 1`, `gpulease_leases{state="booting"} 0`,
		"gpulease_stop_unconfirmed_seconds 60", "gpulease_burn_usd_per_hour 1.29", "gpulease_reserved_usd 1.5", `gpulease_used_usd{period="day"} 2`,
		`gpulease_cap_usd{rule="caps.per_day"} 50`, `gpulease_guard_age_seconds{kind="keeper"} 3`, "gpulease_sessions 7", "gpulease_frozen 0",
		`gpulease_tool_calls_total{code="ok",tool="stop_lease"} 1`, `gpulease_tool_calls_total{code="no_capacity",tool="launch_lease"} 1`,
	} {
		require.Contains(t, text, line+"\n")
	}
	for _, private := range []string{"ann", "aaaaaaaaaaaa", "leader"} {
		require.NotContains(t, text, private)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)

	text = scrape(t, metrics.New("v1", ledger{errors.New("the disk is gone")}, func() int { return 0 }))
	require.Contains(t, text, "gpulease_ledger_up 0\n")
	require.NotContains(t, text, "gpulease_leases", "what is not known is absent, not 0")
}
