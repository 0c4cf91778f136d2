package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// The client of the library that the server is built on takes the loop, in both eras and over every
// transport that there is.
func TestTheWholeLoopWithTheLibrarysClient(t *testing.T) {
	t.Parallel()
	const newest, withSessions = mcp.ProtocolVersion20260728, "2025-11-25"
	for _, revision := range []string{newest, withSessions} {
		t.Run(revision+" over stdio", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			h := &host{t: t, log: &lockedBuffer{}}
			c, err := client.NewStdioMCPClientWithOptions(w.exe, nil, nil, transport.WithCommandStderrWriter(h.log),
				transport.WithCommandFunc(func(context.Context, string, []string, []string) (*exec.Cmd, error) {
					h.cmd = w.program("serve", "--root", w.dir)
					return h.cmd, nil
				}))
			require.NoError(t, err)
			h.library(c, revision)
			h.librarysLoop(w, w.dir)
		})
	}
	for _, tt := range []struct{ revision, path string }{{newest, "/mcp"}, {withSessions, "/mcp"}, {withSessions, "/sse"}} {
		t.Run(tt.revision+" over HTTP at "+tt.path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			token, root := w.token("ann"), filepath.Join(w.dir, "files")
			require.NoError(t, os.Mkdir(root, 0o700))
			s := w.web("--root", root)
			headers := map[string]string{"Authorization": "Bearer " + token}
			c, err := client.NewStreamableHttpClient(s.base+tt.path, transport.WithHTTPHeaders(headers))
			if tt.path == "/sse" {
				c, err = client.NewSSEMCPClient(s.base+tt.path, transport.WithHeaders(headers))
			}
			require.NoError(t, err)
			h := &host{t: t, cmd: s.cmd.cmd, log: s.cmd.log}
			h.library(c, tt.revision)
			h.librarysLoop(w, filepath.Join(root, "ann"))
		})
	}
}

// library makes the library's client the one that calls.
func (h *host) library(c *client.Client, revision string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	require.NoError(h.t, c.Start(context.WithoutCancel(ctx)))
	h.t.Cleanup(func() { _ = c.Close() })
	var hello mcp.InitializeRequest
	hello.Params.ClientInfo = mcp.Implementation{Name: "library", Version: "1"}
	hello.Params.ProtocolVersion = revision
	got, err := c.Initialize(ctx, hello)
	require.NoError(h.t, err, "%s", h.log)
	require.Equal(h.t, revision, got.ProtocolVersion)
	require.Equal(h.t, "gpulease", got.ServerInfo.Name)
	list, err := c.ListTools(ctx, mcp.ListToolsRequest{})
	require.NoError(h.t, err)
	require.NotEmpty(h.t, list.Tools)
	h.other = func(ctx context.Context, tool string, args map[string]any) (json.RawMessage, string) {
		h.t.Helper()
		res, err := c.CallTool(ctx, mcp.CallToolRequest{Params: mcp.CallToolParams{Name: tool, Arguments: args}})
		require.NoError(h.t, err, "%s\n%s", tool, h.log)
		require.Len(h.t, res.Content, 1)
		text := res.Content[0].(mcp.TextContent).Text
		require.NotEmpty(h.t, text)
		if res.IsError {
			require.Empty(h.t, res.RawStructuredContent)
			return nil, text
		}
		return res.RawStructuredContent, ""
	}
}

// librarysLoop is what an agent does. files is where it may send from, and below which its files come home.
func (h *host) librarysLoop(w *world, files string) {
	h.t.Helper()
	require.Contains(h.t, string(h.ok("list_capacity", nil).Raw), `"`+testType+`"`)
	require.DirExists(h.t, files, "a principal's directory is there with its first call")
	h.refused(lease.CodeInvalidInput, "launch_lease", map[string]any{"type": testType, "ttl_minute": 30})
	launch := map[string]any{"type": testType, "ttl_minutes": 30, "idempotency_key": "once"}
	id := h.ok("launch_lease", launch).Lease
	require.Equal(h.t, id, h.ok("launch_lease", launch).Lease)
	h.until(id, "ready")
	require.Equal(h.t, 1, w.sim.LaunchCount())

	require.NoError(h.t, os.MkdirAll(filepath.Join(files, "project"), 0o700))
	require.NoError(h.t, os.WriteFile(filepath.Join(files, "project", "input"), []byte("7\n"), 0o600))
	type transfer struct {
		Complete bool   `json:"complete"`
		Sent     int    `json:"files_sent"`
		Files    int    `json:"files"`
		Dir      string `json:"local_dir"`
	}
	move := func(tool string, args map[string]any) (m transfer) {
		args["lease_id"] = id
		require.NoError(h.t, json.Unmarshal(h.ok(tool, args).Raw, &m))
		require.True(h.t, m.Complete)
		return m
	}
	require.Equal(h.t, 1, move("sync_files", map[string]any{"local_dir": filepath.Join(files, "project")}).Sent)
	a := h.ok("run_command", map[string]any{
		"lease_id": id, "cwd": "project", "command": "mkdir out; echo $(( $(cat input) * 6 )) | tee out/answer; echo err >&2; exit 3", "wait_seconds": 20,
	})
	require.Equal(h.t, []any{3, "42\n", "err\n"}, []any{*a.Exit, a.Stdout, a.Stderr})
	got := move("fetch_files", map[string]any{"paths": []string{"project/out"}})
	require.Equal(h.t, 1, got.Files)
	answer, err := os.ReadFile(filepath.Join(got.Dir, "project", "out", "answer"))
	require.NoError(h.t, err)
	require.Equal(h.t, "42\n", string(answer))
	require.Contains(h.t, got.Dir, files)

	a = w.stop(h, id)
	var receipt struct {
		Confirmed bool `json:"confirmed"`
	}
	require.NoError(h.t, json.Unmarshal(h.ok("stop_lease", map[string]any{"lease_id": id}).Raw, &receipt))
	require.True(h.t, receipt.Confirmed)
	require.Equal(h.t, "stopped", a.Reason)
	require.Positive(h.t, a.Cost)
	require.Contains(h.t, string(h.ok("spend_report", nil).Raw), id)
}
