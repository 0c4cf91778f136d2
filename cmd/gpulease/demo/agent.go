package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// agent is the MCP client, with the server that it has started.
type agent struct {
	cmd    *exec.Cmd
	client *client.Client
	exited chan error
	log    *os.File
}

// serverEnv is what the server gets of our environment: nothing that could
// point it at a real account.
func serverEnv(work string, cloud *lambdatest.Server) []string {
	keep := map[string]bool{"PATH": true, "HOME": true, "LANG": true, "TMPDIR": true, "USER": true, "SystemRoot": true, "USERPROFILE": true, "GOCOVERDIR": true}
	var env []string
	for _, kv := range os.Environ() {
		if name, _, ok := strings.Cut(kv, "="); ok && keep[name] {
			env = append(env, kv)
		}
	}
	return append(env,
		"GPULEASE_API_URL="+cloud.URL(),
		"GPULEASE_SSH_PORT="+strconv.Itoa(cloud.SSHPort()),
		"LAMBDA_API_KEY="+cloud.APIKey(),
		"GPULEASE_STATE_DIR="+filepath.Join(work, "state"),
		"GPULEASE_POLICY="+filepath.Join(work, "policy.yaml"),
		"GPULEASE_PRINCIPAL=demo",
	)
}

func newAgent(ctx context.Context, o Options, work string, cloud *lambdatest.Server) (*agent, error) {
	log, err := os.Create(filepath.Join(work, "server.log"))
	if err != nil {
		return nil, err
	}
	a := &agent{exited: make(chan error, 1), log: log}
	a.cmd = exec.Command(o.Binary, "serve")
	a.cmd.Dir = o.Project // the server lets an agent read below this directory only
	a.cmd.Env = serverEnv(work, cloud)
	a.cmd.Stderr = log
	stdin, err := a.cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := a.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// The pipe is read to its end before Wait, which closes it.
	drained := make(chan struct{})
	go func() { <-drained; a.exited <- a.cmd.Wait() }()
	a.client = client.NewClient(transport.NewIO(&notifyEOF{Reader: stdout, eof: drained}, stdin, io.NopCloser(strings.NewReader(""))))
	if err := a.connect(ctx, o.Version); err != nil {
		return nil, errors.Join(fmt.Errorf("connect over stdio: %w", err), a.close(), a.complaint())
	}
	return a, nil
}

// notifyEOF closes eof when the reader has come to its end.
type notifyEOF struct {
	io.Reader
	eof  chan struct{}
	done bool
}

func (n *notifyEOF) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && !n.done {
		n.done = true
		close(n.eof)
	}
	return k, err
}

func (a *agent) connect(ctx context.Context, version string) error {
	if err := a.client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var req mcp.InitializeRequest
	req.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	req.Params.ClientInfo = mcp.Implementation{Name: "gpulease-demo", Version: version}
	_, err := a.client.Initialize(ctx, req)
	return err
}

// answer is what a tool said.
type answer struct {
	Text       string          `json:"text,omitempty"`
	Structured json.RawMessage `json:"structured,omitempty"`
	IsError    bool            `json:"is_error,omitempty"`
}

// call calls a tool. An error is a broken connection; what the tool refuses is
// an answer.
func (a *agent) call(ctx context.Context, tool string, args map[string]any) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var req mcp.CallToolRequest
	req.Params.Name, req.Params.Arguments = tool, args
	res, err := a.client.CallTool(ctx, req)
	if err != nil {
		return answer{}, errors.Join(fmt.Errorf("call %s: %w", tool, err), a.complaint())
	}
	out := answer{IsError: res.IsError}
	for _, c := range res.Content {
		if t, ok := c.(mcp.TextContent); ok {
			out.Text += t.Text
		}
	}
	if res.StructuredContent != nil {
		if out.Structured, err = json.Marshal(res.StructuredContent); err != nil {
			return out, fmt.Errorf("call %s: read the structured content: %w", tool, err)
		}
	}
	return out, nil
}

// complaint is the end of the server's log, for a step that failed.
func (a *agent) complaint() error {
	b, err := os.ReadFile(a.log.Name())
	if err != nil || len(b) == 0 {
		return nil
	}
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return fmt.Errorf("the server's log ends with:\n%s", b)
}

// exitWait is how long the server may take to end after its client has gone.
const exitWait = 15 * time.Second

// close ends the server as a host does, by closing its standard input, and
// fails if it does not end well by itself.
func (a *agent) close() error {
	if a == nil {
		return nil
	}
	defer a.log.Close()
	closeErr := a.client.Close()
	select {
	case err := <-a.exited:
		if err != nil {
			return fmt.Errorf("the server ended badly: %w", errors.Join(err, a.complaint()))
		}
		return closeErr
	case <-time.After(exitWait):
		killErr := a.cmd.Process.Kill()
		<-a.exited
		return errors.Join(fmt.Errorf("the server did not end within %s of its client's end", exitWait), killErr)
	}
}
