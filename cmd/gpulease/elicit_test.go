package main

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// answering is a person behind a client, and says the same to whatever it is asked.
type answering struct {
	result *mcp.ElicitResult
	asked  atomic.Int32
	text   atomic.Value
}

// hostOf is a host whose user can be asked.
func (w *world) hostOf(p *answering, version string, args ...string) *host {
	w.t.Helper()
	return w.hostWith(&mcp.ClientOptions{
		ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			p.asked.Add(1)
			p.text.Store(r.Params.Message)
			return p.result, nil
		},
	}, version, args...)
}

var (
	saysYes = &mcp.ElicitResult{Action: "accept", Content: map[string]any{"approve": true}}
	saysNo  = &mcp.ElicitResult{Action: "decline"}
)

// The operator has switched it on: the real client of either era asks its user, and what
// came of it is in the ledger.
func TestAPersonApprovesInTheClient(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, lambdatest.Config{})
			w.under("approve_above: 0\n")
			p := &answering{result: saysYes}
			h := w.hostOf(p, version, "--approve-by-elicitation")
			a := h.ok("launch_lease", map[string]any{"type": testType, "region": "us-east-1", "ttl_minutes": 30, "purpose": "the loop"})
			require.EqualValues(t, 1, p.asked.Load())
			require.Contains(t, p.text.Load(), "machine: "+testType+" in us-east-1, $1.29/h\ntime: 30 min once it is ready; worst case: $1.2255\nasked for by: default; purpose: \"the loop\"")
			require.NotContains(t, string(a.Raw), "has not approved")
			h.until(a.Lease, "ready")
			require.Equal(t, 1, w.sim.LaunchCount())
			require.Contains(t, w.says(0, "audit", "show", a.Lease), "approved by elicitation (client host 1, principal default)")
			w.stop(h, a.Lease)
		})
	}
}

// A decline, and a client that is not to be asked, leave the request to a person's command.
func TestADeclineLeavesItToAPersonsCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	w.under("approve_above: 0\n")
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		p := &answering{result: saysNo}
		a := w.hostOf(p, version, "--approve-by-elicitation").ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30})
		require.EqualValues(t, 1, p.asked.Load())
		require.Equal(t, "awaiting_approval", a.State)
		require.Contains(t, a.Next.Text, "gpulease approve "+a.Lease)
		require.Contains(t, string(a.Raw), "has not approved it here: declined")

		p = &answering{result: saysYes}
		a = w.hostOf(p, version).ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30})
		require.Equal(t, "awaiting_approval", a.State, "off where nobody has switched it on")
		require.NotContains(t, string(a.Raw), "has not approved")
		require.Zero(t, p.asked.Load())
	}
	require.Zero(t, w.sim.LaunchCount())
	w.env = append(w.env, askVariable+"=perhaps")
	require.Contains(t, w.says(exitUsage, "serve"), askVariable+` is true or false, not "perhaps"`)
	w.env = append(w.env, askVariable+"=true")
	p := &answering{result: saysNo}
	require.Contains(t, string(w.hostOf(p, "2025-11-25").ok("launch_lease", map[string]any{"type": testType}).Raw), "has not approved")
	p = &answering{result: saysYes}
	w.hostOf(p, "2025-11-25", "--approve-by-elicitation=false").ok("launch_lease", map[string]any{"type": testType})
	require.Zero(t, p.asked.Load(), "a flag goes before its variable")
}
