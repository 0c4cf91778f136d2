package tools_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

type rules struct{ p *policy.Policy }

func (r rules) PolicyFor(context.Context) (*policy.Policy, error) { return r.p, nil }

func resourceOf(t *testing.T, d *desk, name string) tools.Resource {
	t.Helper()
	for _, r := range tools.Resources(d, rules{policy.Default()}) {
		if r.Name == name {
			return r
		}
	}
	require.FailNow(t, "no such resource", name)
	return tools.Resource{}
}

func TestPolicyAndSpendingAreResources(t *testing.T) {
	d := &desk{spend: func() (lease.Spending, error) {
		return lease.Spending{
			Usage: policy.Usage{Principal: policy.Totals{Day: 3 * policy.Dollar, Leases: 1, BurnPerHour: policy.Dollar}}, Held: 2 * policy.Dollar,
			Caps: []policy.CapLeft{{Rule: "caps.per_day", Limit: 50 * policy.Dollar, Used: 3 * policy.Dollar, Left: 47 * policy.Dollar, Source: "default"}},
			Left: 47 * policy.Dollar, At: noon,
		}, nil
	}}
	text, err := resourceOf(t, d, "policy").Read(t.Context())
	require.NoError(t, err)
	require.Regexp(t, `caps\.per_day +\$50\.00 +default`, text)

	text, err = resourceOf(t, d, "spend").Read(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, `{"day_usd":3,"reserved_usd":2,"burn_usd_per_hour":1,"live_leases":1,"budget_left_usd":47,"at":"2026-11-23T12:00:00Z",
		"caps":[{"rule":"caps.per_day","limit_usd":50,"used_usd":3,"left_usd":47,"source":"default"}]}`, text)
}

// A lease and a job's output are what the tools show of them.
func TestLeasesAreReadThroughTheirTools(t *testing.T) {
	d := &desk{row: ready(), jobs: func() ([]remote.Job, error) { return nil, nil }}
	d.page = func(s remote.Stream, offset int64, limit int, _ time.Duration) (remote.Page, error) {
		require.Equal(t, remote.Stderr, s)
		return remote.Page{Job: exited(0), Data: []byte("out"), NextOffset: 3, Size: 3, EOF: true}, nil
	}
	for name, values := range map[string]map[string]string{
		"lease":  {"lease_id": string(leaseID)},
		"output": {"lease_id": string(leaseID), "job_id": jobID, "stream": "stderr"},
	} {
		r := resourceOf(t, d, name)
		arguments, err := r.Arguments(values)
		require.NoError(t, err)
		raw, err := json.Marshal(arguments)
		require.NoError(t, err)
		got, err := use(t, tools.Deps{Leases: d}, r.Tool, string(raw))
		require.NoError(t, err)
		if r.Field != "" {
			require.Equal(t, "out", fields(t, got)[r.Field])
		}
	}
	_, err := resourceOf(t, d, "output").Arguments(map[string]string{"lease_id": "otherothers1", "job_id": jobID, "stream": "stdout"})
	require.Equal(t, lease.CodeJobNotFound, lease.CodeOf(err), "a job is below its own lease only")
}

func TestAVersionChangesWithTheStateAndNotWithTheCost(t *testing.T) {
	d := &desk{row: ready()}
	r := resourceOf(t, d, "lease")
	version := func() string {
		v, err := r.Version(t.Context(), map[string]string{"lease_id": string(leaseID)})
		require.NoError(t, err)
		return v
	}
	first := version()
	d.row.SeenAt = noon
	require.Equal(t, first, version())
	d.row.State = lease.Stopping
	require.NotEqual(t, first, version())
	_, err := r.Version(t.Context(), map[string]string{"lease_id": "nonenonenone"})
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err))
}

func TestLiveLeasesAreListed(t *testing.T) {
	d := &desk{list: func(live bool, _ int) ([]lease.Lease, error) {
		require.True(t, live)
		return []lease.Lease{ready()}, nil
	}}
	list, err := tools.LiveResources(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []tools.Listed{{URI: "lease://abcdefghijkl", Name: "abcdefghijkl", Title: "Lease abcdefghijkl, gpu_1x_a10", MIMEType: "application/json"}}, list)
}

func TestCompletion(t *testing.T) {
	d := &desk{capacity: offers(), jobs: func() ([]remote.Job, error) { return []remote.Job{running()}, nil }}
	d.list = func(bool, int) ([]lease.Lease, error) { return []lease.Lease{ready()}, nil }
	for _, tc := range []struct {
		argument, prefix string
		want             []string
	}{
		{"lease_id", "abc", []string{"abcdefghijkl"}},
		{"lease_id", "x", nil},
		{"job_id", "", []string{jobID}},
		{"instance_type", "gpu_1x", []string{"gpu_1x_a10", "gpu_1x_h100"}},
		{"stream", "std", []string{"stdout", "stderr"}},
		{"precision", "int", []string{"int8", "int4"}},
		{"use", "l", []string{"lora"}},
		{"anything", "", nil},
	} {
		require.Equal(t, tc.want, tools.Complete(t.Context(), d, tc.argument, tc.prefix, map[string]string{"lease_id": string(leaseID)}), tc.argument)
	}
}
