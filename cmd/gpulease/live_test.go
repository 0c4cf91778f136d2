package main

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// A person at a host that asks for progress sees a job's lines before its end.
func TestALongCommandIsSeenWhileItRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	var mu sync.Mutex
	var notes []string
	h := w.hostWith(&mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			mu.Lock()
			defer mu.Unlock()
			notes = append(notes, r.Params.Message)
		},
	}, "")
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")

	p := callParams("run_command", map[string]any{
		"lease_id": id, "command": "echo the first line; sleep 8", "env": map[string]any{"A_TOKEN": "the first"}, "wait_seconds": 40,
	})
	p.SetProgressToken("p")
	res, err := h.session.CallTool(t.Context(), p)
	require.NoError(t, err)
	require.False(t, res.IsError)
	mu.Lock()
	defer mu.Unlock()
	said := strings.Join(notes, "\n")
	require.Contains(t, said, " line", "%q", notes)
	require.NotContains(t, said, "the first", "a value of a variable that looks secret")
	w.stop(h, id)
}
