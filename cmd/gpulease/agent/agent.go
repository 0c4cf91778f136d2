// Package agent is an agent host in small: it starts "gpulease serve" as a child,
// speaks MCP to it over its standard input and output, and ends it as hosts do.
// The demo and the live check drive gpulease with it, so that both go the way
// that an agent goes.
//
// It decides nothing: which tools are called, and what is made of their answers,
// is its callers' business.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
)

// Options say which server is started, and how.
type Options struct {
	Binary  string   // the gpulease binary
	Dir     string   // where it is started: an agent may read below it only
	Env     []string // all of its environment
	Log     string   // file that its standard error is appended to
	Name    string   // the host's name, as the server is told
	Version string

	// Detach puts the server beyond the reach of our terminal's signals, so that
	// it still answers while its host ends in order; nil leaves it with us.
	Detach func(*exec.Cmd)
}

// Agent is the MCP client with the server that it has started.
type Agent struct {
	cmd    *exec.Cmd
	client *client.Client
	output *io.PipeReader // what the client reads
	exited chan error
	log    *os.File
}

// Start starts a server and connects to it. The agent has to be closed.
func Start(ctx context.Context, o Options) (*Agent, error) {
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	a := &Agent{exited: make(chan error, 1), log: log}
	a.cmd = exec.Command(o.Binary, "serve")
	a.cmd.Dir, a.cmd.Env, a.cmd.Stderr = o.Dir, o.Env, log
	if o.Detach != nil {
		o.Detach(a.cmd)
	}
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
	toClient, fromServer := io.Pipe()
	a.output = toClient
	go func() {
		_, err := io.Copy(fromServer, stdout) // to its end, before Wait, which closes it
		_ = fromServer.CloseWithError(err)    // never fails; nil is the end of the file
		a.exited <- a.cmd.Wait()
	}()
	a.client = client.NewClient(transport.NewIO(toClient, stdin, io.NopCloser(strings.NewReader(""))))
	if err := a.connect(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("connect over stdio: %w", err), a.Close(), a.complaint())
	}
	return a, nil
}

func (a *Agent) connect(ctx context.Context, o Options) error {
	if err := a.client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var req mcp.InitializeRequest
	req.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	req.Params.ClientInfo = mcp.Implementation{Name: o.Name, Version: o.Version}
	_, err := a.client.Initialize(ctx, req)
	return err
}

// Answer is what a tool said.
type Answer struct {
	Text       string          `json:"text,omitempty"`
	Structured json.RawMessage `json:"structured,omitempty"`
	IsError    bool            `json:"is_error,omitempty"`
}

// Code is the code of a refusal, "" where the text has none.
func (a Answer) Code() string {
	rest, ok := strings.CutPrefix(a.Text, "error ")
	code, _, found := strings.Cut(rest, ":")
	if !a.IsError || !ok || !found || strings.ContainsAny(code, " \n") {
		return ""
	}
	return code
}

// Call calls a tool. An error is a broken connection; what the tool refuses is an
// answer.
func (a *Agent) Call(ctx context.Context, tool string, args map[string]any) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var req mcp.CallToolRequest
	req.Params.Name, req.Params.Arguments = tool, args
	res, err := a.client.CallTool(ctx, req)
	if err != nil {
		return Answer{}, errors.Join(fmt.Errorf("call %s: %w", tool, err), a.complaint())
	}
	out := Answer{IsError: res.IsError}
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

// Tools are the names of the server's tools, sorted.
func (a *Agent) Tools(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	res, err := a.client.ListTools(ctx, mcp.ListToolsRequest{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("list tools: %w", err), a.complaint())
	}
	names := make([]string, 0, len(res.Tools))
	for _, t := range res.Tools {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names, nil
}

// PID is the server's process.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// complaint is the end of the server's log, for a step that failed.
func (a *Agent) complaint() error {
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

// Close ends the server as a host does, by closing its standard input, and fails
// if it does not end well by itself. A nil agent is closed already.
func (a *Agent) Close() error {
	if a == nil {
		return nil
	}
	defer a.log.Close()
	closeErr := a.client.Close()
	// The client may have stopped reading while an answer is still to come: the
	// server must not be held up by it.
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, a.output) }()
	defer func() { <-drained }()
	wait := time.NewTimer(exitWait)
	defer wait.Stop()
	select {
	case err := <-a.exited:
		if err != nil {
			return fmt.Errorf("the server ended badly: %w", errors.Join(err, a.complaint()))
		}
		return closeErr
	case <-wait.C:
		killErr := a.cmd.Process.Kill()
		<-a.exited
		return errors.Join(fmt.Errorf("the server did not end within %s of its client's end", exitWait), killErr)
	}
}
