package server_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience is how long the tests wait for what should come at once.
const patience = 20 * time.Second

// message is one JSON-RPC message from the server.
type message struct {
	ID     messageID       `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	place int // in the order of arrival
}

// messageID is a number, or the text of a string.
type messageID string

func (id *messageID) UnmarshalJSON(raw []byte) error {
	*id = messageID(strings.Trim(string(raw), `"`))
	return nil
}

// toolResult is the result of tools/call as bytes on the wire.
type toolResult struct {
	Content []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	} `json:"content"`
	Structured json.RawMessage `json:"structuredContent"`
	IsError    bool            `json:"isError"`
}

// wire is a client that knows nothing but lines.
type wire struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *os.File
	closed chan struct{} // the server's stdout has ended

	mu       sync.Mutex
	news     *sync.Cond
	messages []message
}

// start runs this test binary in a role. Its stdout must carry nothing but
// JSON-RPC; the test fails otherwise.
func start(t *testing.T, role string) *wire {
	t.Helper()
	w := &wire{t: t, cmd: exec.Command(os.Args[0]), closed: make(chan struct{})}
	w.news = sync.NewCond(&w.mu)
	w.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	w.cmd.Stderr = os.Stderr
	in, err := w.cmd.StdinPipe()
	require.NoError(t, err)
	w.in = in
	out, child, err := os.Pipe()
	require.NoError(t, err)
	w.out, w.cmd.Stdout = out, child
	require.NoError(t, w.cmd.Start())
	require.NoError(t, child.Close())
	go w.read()
	t.Cleanup(func() {
		_ = in.Close()
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		_ = out.Close()
		<-w.closed
	})
	return w
}

func (w *wire) read() {
	defer close(w.closed)
	lines := bufio.NewScanner(w.out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m message
		if !assert.NoError(w.t, json.Unmarshal(lines.Bytes(), &m), "not a message: %s", lines.Text()) {
			continue
		}
		w.mu.Lock()
		m.place = len(w.messages)
		w.messages = append(w.messages, m)
		w.news.Broadcast()
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.news.Broadcast()
	w.mu.Unlock()
}

func (w *wire) send(line string) {
	w.t.Helper()
	_, err := io.WriteString(w.in, line+"\n")
	require.NoError(w.t, err)
}

func (w *wire) request(id int, method string, params any) {
	w.t.Helper()
	w.send(request(w.t, id, method, params))
}

func request(t *testing.T, id int, method string, params any) string {
	t.Helper()
	line, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	require.NoError(t, err)
	return string(line)
}

// call is the parameters of tools/call.
func call(tool, args string, meta map[string]any) map[string]any {
	return map[string]any{"name": tool, "arguments": json.RawMessage(args), "_meta": modern(meta)}
}

// await gives the first message that want accepts.
func (w *wire) await(what string, want func(message) bool) message {
	w.t.Helper()
	late := time.AfterFunc(patience, w.news.Broadcast)
	defer late.Stop()
	limit := time.Now().Add(patience)
	w.mu.Lock()
	defer w.mu.Unlock()
	for seen := 0; ; {
		for ; seen < len(w.messages); seen++ {
			if want(w.messages[seen]) {
				return w.messages[seen]
			}
		}
		select {
		case <-w.closed:
			require.FailNow(w.t, "the server's output ended", "waiting for %s", what)
		default:
		}
		if time.Now().After(limit) {
			require.FailNow(w.t, "nothing came", "waiting for %s", what)
		}
		w.news.Wait()
	}
}

// answer gives the response to a request.
func (w *wire) answer(id int) message {
	w.t.Helper()
	number := messageID(strconv.Itoa(id))
	return w.await("the answer to "+string(number), func(m message) bool { return m.ID == number && m.Method == "" })
}

func (w *wire) toolAnswer(id int) toolResult {
	w.t.Helper()
	m := w.answer(id)
	require.Nil(w.t, m.Error, "JSON-RPC error %+v", m.Error)
	var r toolResult
	require.NoError(w.t, json.Unmarshal(m.Result, &r))
	return r
}

// exit waits for the process and gives its exit code and how long it took.
func (w *wire) exit() (int, time.Duration) {
	w.t.Helper()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- w.cmd.Wait() }()
	select {
	case <-done:
		return w.cmd.ProcessState.ExitCode(), time.Since(began)
	case <-time.After(patience):
		require.FailNow(w.t, "the server did not end")
		return 0, 0
	}
}
