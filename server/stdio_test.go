package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gosdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// A client that we did not write, in both eras.
func TestOfficialClientOverStdio(t *testing.T) {
	for _, version := range []string{"2026-07-28", "2025-11-25", "2025-06-18"} {
		t.Run(version, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var mu sync.Mutex
			var notes []string
			c := gosdk.NewClient(&gosdk.Implementation{Name: "official", Version: "1"}, &gosdk.ClientOptions{
				ProgressNotificationHandler: func(_ context.Context, r *gosdk.ProgressNotificationClientRequest) {
					mu.Lock()
					defer mu.Unlock()
					notes = append(notes, r.Params.Message)
				},
			})
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), roleVariable+"=server")
			session, err := c.Connect(ctx, &gosdk.CommandTransport{Command: cmd}, &gosdk.ClientSessionOptions{ProtocolVersion: version})
			require.NoError(t, err)
			require.Equal(t, version, session.InitializeResult().ProtocolVersion)
			require.Equal(t, "Echo first.", session.InitializeResult().Instructions)

			list, err := session.ListTools(ctx, nil)
			require.NoError(t, err)
			require.Len(t, list.Tools, len(kit()))
			require.True(t, list.Tools[1].Annotations.ReadOnlyHint)

			result, err := session.CallTool(ctx, &gosdk.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "hi"}})
			require.NoError(t, err)
			require.Equal(t, map[string]any{"text": "hi"}, result.StructuredContent)

			result, err = session.CallTool(ctx, &gosdk.CallToolParams{Name: "fail_known"})
			require.NoError(t, err)
			require.True(t, result.IsError)
			require.Nil(t, result.StructuredContent)

			params := &gosdk.CallToolParams{Name: "note_and_answer", Arguments: map[string]any{"text": "hi"}}
			params.SetProgressToken("p1")
			_, err = session.CallTool(ctx, params)
			require.NoError(t, err)
			mu.Lock()
			require.Equal(t, []string{"nearly there: hi"}, notes)
			mu.Unlock()

			require.NoError(t, session.Close(), "the server ends with exit code 0 when its stdin closes")
		})
	}
}

// The library alone answers tools/list with nothing at all if a tool has both
// kinds of schema, and sends 196 of 200 notes after the result.
func TestProgressNeverArrivesAfterTheResult(t *testing.T) {
	w := start(t, "server")
	const calls = 200
	for id := 1; id <= calls; id++ {
		w.request(id, "tools/call", call("note_and_answer", `{"text":"x"}`, map[string]any{"progressToken": id}))
	}
	for id := 1; id <= calls; id++ {
		answer := w.answer(id)
		note := w.await(fmt.Sprintf("the note of %d", id), func(m message) bool {
			var p struct {
				Token json.Number `json:"progressToken"`
			}
			return m.Method == "notifications/progress" && json.Unmarshal(m.Params, &p) == nil && p.Token.String() == fmt.Sprint(id)
		})
		require.Less(t, note.place, answer.place, "call %d", id)
	}
}

func TestNoProgressWithoutAToken(t *testing.T) {
	w := start(t, "server")
	w.request(1, "tools/call", call("note_and_answer", `{"text":"x"}`, nil))
	require.Zero(t, w.answer(1).place, "the answer is the first message")
}

func TestWaitingCallsDoNotBlockOthers(t *testing.T) {
	w := start(t, "server")
	for id := 1; id <= 50; id++ {
		w.request(id, "tools/call", call("wait_here", `{"wait_seconds":45}`, nil))
	}
	w.request(100, "tools/call", call("echo", `{"text":"me first"}`, nil))
	require.JSONEq(t, `{"text":"me first"}`, string(w.toolAnswer(100).Structured))

	// And a cancel reaches a call that waits.
	w.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`)
	require.Contains(t, w.toolAnswer(7).Content[0].Text, "the call was cancelled")
}

// The library forgets a cancel that comes before a worker has taken up the call.
func TestACancelReachesACallThatHasNotBegun(t *testing.T) {
	w := start(t, "server")
	const workers = 100
	for id := 1; id <= workers+1; id++ {
		w.request(id, "tools/call", call("wait_here", `{"wait_seconds":45}`, nil))
	}
	cancel := func(id int) {
		w.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, id))
	}
	cancel(workers + 1)
	time.Sleep(200 * time.Millisecond) // all of it is read by then, and the last call waits for a worker
	cancel(1)
	require.Contains(t, w.toolAnswer(1).Content[0].Text, "the call was cancelled")
	require.Contains(t, w.toolAnswer(workers + 1).Content[0].Text, "the call was cancelled")
}

func TestToolsListBeforeAnyHandshake(t *testing.T) {
	w := start(t, "server")
	w.request(1, "tools/list", map[string]any{})
	var l struct {
		Tools []struct {
			Name  string `json:"name"`
			Input struct {
				Type string `json:"type"`
			} `json:"inputSchema"`
		} `json:"tools"`
	}
	require.NoError(t, json.Unmarshal(w.answer(1).Result, &l))
	require.Len(t, l.Tools, len(kit()))
	for _, tool := range l.Tools {
		require.Equal(t, "object", tool.Input.Type, "tool %s", tool.Name)
	}
}

func TestRubbishIsAnsweredAndSurvived(t *testing.T) {
	w := start(t, "server")
	w.send("")
	w.send("  ")
	w.send("{not json")
	m := w.await("a parse error", func(m message) bool { return m.Error != nil })
	require.Equal(t, -32700, m.Error.Code)
	require.Zero(t, m.place, "empty lines are no messages")
	w.request(1, "tools/call", call("break_down", `{}`, nil))
	require.True(t, w.toolAnswer(1).IsError)
	w.request(2, "tools/call", call("echo", `{"text":"still here"}`, nil))
	require.False(t, w.toolAnswer(2).IsError)
}

// How scripts use a server: write, close, read. The library alone cancels what
// is under way, loses some answers, and every request without a newline.
func TestAnswersOutliveTheInput(t *testing.T) {
	for i := range 10 {
		w := start(t, "server")
		w.send(request(t, 1, "tools/call", call("wait_here", `{"milliseconds":100}`, nil)))
		w.send(request(t, 2, "tools/list", map[string]any{}))
		_, err := w.in.Write([]byte(request(t, 3, "tools/call", call("note_and_answer", `{"text":"no newline"}`, map[string]any{"progressToken": 1}))))
		require.NoError(t, err)
		require.NoError(t, w.in.Close())
		code, took := w.exit()
		require.Zero(t, code)
		require.Less(t, took, 5*time.Second)
		<-w.closed
		require.False(t, w.toolAnswer(1).IsError, "run %d: the wait was cut short", i)
		require.Nil(t, w.answer(2).Error, "run %d", i)
		require.False(t, w.toolAnswer(3).IsError, "run %d", i)
	}
}

func TestEndsAreCleanAndBounded(t *testing.T) {
	closeInput := func(t *testing.T, w *wire) { require.NoError(t, w.in.Close()) }
	terminate := func(t *testing.T, w *wire) { require.NoError(t, w.cmd.Process.Signal(syscall.SIGTERM)) }
	for name, tc := range map[string]struct {
		tool, args string
		end        func(*testing.T, *wire)
		limit      time.Duration
	}{
		"closed input, idle":                  {"echo", `{"text":"x"}`, closeInput, time.Second},
		"SIGTERM, idle":                       {"echo", `{"text":"x"}`, terminate, time.Second},
		"closed input during a wait":          {"wait_here", `{"wait_seconds":45}`, closeInput, 2 * time.Second},
		"SIGTERM during a wait":               {"wait_here", `{"wait_seconds":45}`, terminate, time.Second},
		"closed input with a stuck handler":   {"ignore_end", `{}`, closeInput, 4 * time.Second},
		"SIGTERM with a stuck handler":        {"ignore_end", `{}`, terminate, 3 * time.Second},
		"the client reads no more, then asks": {"echo", `{"text":"x"}`, readNoMore, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, "server")
			w.request(1, "tools/call", call(tc.tool, tc.args, nil))
			w.request(2, "tools/list", map[string]any{})
			w.answer(2) // so the server serves, and the call before it is under way
			tc.end(t, w)
			code, took := w.exit()
			require.Zero(t, code)
			require.Less(t, took, tc.limit+2*time.Second, "with 2 s for a busy machine")
		})
	}
}

// readNoMore closes the pipe that the server writes to. Its next write would
// kill it with SIGPIPE, in the middle of whatever else it does.
func readNoMore(t *testing.T, w *wire) {
	w.answer(1)
	require.NoError(t, w.out.Close())
	w.request(3, "tools/list", map[string]any{})
}

// A client that closes its end while the server is stuck in a write to it.
func TestEndsWhileAWriteIsStuck(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=server")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, child, err := os.Pipe() // nobody reads from out
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = child, os.Stderr
	require.NoError(t, cmd.Start())
	require.NoError(t, child.Close())
	text := strings.Repeat("x", 90_000) // more than a pipe holds
	for id := range 5 {
		_, err := io.WriteString(in, request(t, id+1, "tools/call", call("echo", `{"text":"`+text+`"}`, nil))+"\n")
		require.NoError(t, err)
	}
	require.NoError(t, in.Close())
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	require.NoError(t, cmd.Wait(), "the server ends by itself, with exit code 0")
}

// A host that is killed may leave the server's stdin open in another process.
func TestEndsWhenTheParentIsGone(t *testing.T) {
	w := start(t, "parent")
	w.request(1, "tools/call", call("echo", `{"text":"x"}`, nil))
	w.toolAnswer(1)
	require.NoError(t, w.cmd.Process.Kill())
	select {
	case <-w.closed: // the server held the only other end of its stdout
	case <-time.After(patience):
		require.FailNow(t, "the server outlived its parent")
	}
}
