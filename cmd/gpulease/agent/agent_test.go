package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
)

// asServer makes the test binary a server that answers initialize, and a call
// only after its client has gone.
const asServer = "GPULEASE_TEST_AS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		lateServer()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func lateServer() {
	in := bufio.NewScanner(os.Stdin)
	var last json.RawMessage
	for in.Scan() {
		var req struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
		}
		if json.Unmarshal(in.Bytes(), &req) != nil || req.ID == nil {
			continue
		}
		switch req.Method {
		case "tools/call":
			last = req.ID
		case "initialize":
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-03-26","capabilities":{},"serverInfo":{"name":"late","version":"1"}}}`+"\n", req.ID)
		default:
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}`+"\n", req.ID)
		}
	}
	fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}`+"\n", last)
	fmt.Println(strings.Repeat("x", 1<<20)) // more than a pipe holds
}

// A call is given up, and the server answers it only when it is told to end.
func TestCloseEndsAServerThatAnswersLate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := agent.Start(t.Context(), agent.Options{
		Binary: os.Args[0], Dir: dir, Env: append(os.Environ(), asServer+"=1"), Log: filepath.Join(dir, "log"), Name: "test", Version: "1",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = a.Call(ctx, "anything", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the server was not waited for")
	}
}

func TestCodeOfAnAnswer(t *testing.T) {
	t.Parallel()
	require.Equal(t, "no_capacity", agent.Answer{IsError: true, Text: "error no_capacity: none is free\nnext: wait"}.Code())
	require.Empty(t, agent.Answer{Text: "error no_capacity: in the text of a success"}.Code())
	require.Empty(t, agent.Answer{IsError: true, Text: "error of another kind: x"}.Code())
}
