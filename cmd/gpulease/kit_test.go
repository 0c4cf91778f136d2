package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger/postgrestest"
	"github.com/gpulease/gpulease/policy"
)

// asProgram makes the test binary behave as gpulease, so that tests can start
// real processes of it and kill them.
const asProgram = "GPULEASE_TEST_AS_PROGRAM"

// paceVariable is the time between two requests to the cloud, instead of Lambda's.
const paceVariable = "GPULEASE_TEST_PACE"

func init() {
	if every, err := time.ParseDuration(os.Getenv(paceVariable)); err == nil {
		hooks.pace = func(c lambda.PacerConfig) lambda.PacerConfig {
			c.Interval, c.LaunchInterval = every, every
			return c
		}
	}
}

// children are what else the test binary can be as a process, by its first argument.
var children = map[string]func(args []string) int{}

func TestMain(m *testing.M) {
	// The demo hides its environment from its server, and that from its keeper.
	if len(os.Args) > 1 && os.Getenv(asProgram) != "" && children[os.Args[1]] != nil {
		os.Exit(children[os.Args[1]](os.Args[2:]))
	}
	child := len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "keeper")
	if os.Getenv(asProgram) != "" || child {
		programLook, lostEvery = 200*time.Millisecond, time.Second
		if v, err := os.ReadFile(os.Args[0] + ".version"); err == nil {
			version = string(v)
		}
		os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	// These tests wait far more than they work: as many as there are cores would
	// leave the cores idle.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := postgrestest.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "end the PostgreSQL server:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// world is a simulated cloud and a state directory, in real time.
type world struct {
	t   *testing.T
	sim *lambdatest.Server
	dir string
	exe string // the program; the test binary is one
	env []string
}

func newWorld(t *testing.T, cfg lambdatest.Config) *world {
	t.Helper()
	if cfg.BootTime == 0 {
		cfg.BootTime = time.Second
	}
	if cfg.Linger == 0 {
		// On a busy computer an instance must not be gone from the listing before anybody has seen it terminated.
		cfg.Linger = time.Minute
	}
	cfg.SSHHosts = true
	dir := t.TempDir()
	cfg.Dir = filepath.Join(dir, "cloud")
	sim := lambdatest.Start(t, cfg)
	w := &world{t: t, sim: sim, dir: dir, exe: os.Args[0]}
	w.env = []string{
		asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir(),
		"GPULEASE_API_URL=" + sim.URL(), "GPULEASE_SSH_PORT=" + strconv.Itoa(sim.SSHPort()), "LAMBDA_API_KEY=" + sim.APIKey(),
		"GPULEASE_STATE_DIR=" + w.state(),
		"GORACE=atexit_sleep_ms=0", // with the race detector each process would end a second later
		paceVariable + "=100ms",    // most tests would wait for their turn at the cloud most of the time
	}
	// Whatever a test leaves alive ends here, and the keeper with it.
	t.Cleanup(func() {
		out, err := w.program("stop", "--all").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Eventually(t, func() bool { return !w.keeperRuns() }, keeperAgain+15*time.Second, 50*time.Millisecond, "the keeper ends when nothing lives")
	})
	return w
}

// keepPace lets the program ask the cloud no faster than Lambda allows, as it does outside of tests.
func (w *world) keepPace() {
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, paceVariable+"=") })
}

func (w *world) state() string { return filepath.Join(w.dir, "state") }

// loseState deletes the state directory, also while processes write into it.
func (w *world) loseState() {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return os.RemoveAll(w.state()) == nil }, 10*time.Second, time.Millisecond)
}

func (w *world) keeperRuns() bool {
	s := &settings{stateDir: w.state()}
	if _, err := os.Stat(s.stateDir); err != nil {
		return false
	}
	running, err := s.keeperRuns()
	require.NoError(w.t, err)
	return running
}

// program is a gpulease process that is not started yet.
func (w *world) program(args ...string) *exec.Cmd {
	cmd := exec.Command(w.exe, args...)
	cmd.Env = w.env
	return cmd
}

// host is an agent host: an MCP client with the server that it has started.
type host struct {
	t       *testing.T
	session *mcp.ClientSession
	other   callTool // by another client than the session's
	cmd     *exec.Cmd
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) host(args ...string) *host {
	w.t.Helper()
	return w.hostWith(nil, "", args...)
}

// hostWith is a host with what its client can, of a revision ("": the newest).
func (w *world) hostWith(can *mcp.ClientOptions, version string, args ...string) *host {
	w.t.Helper()
	h := &host{t: w.t, cmd: w.program(append([]string{"serve"}, args...)...), log: &lockedBuffer{}}
	h.cmd.Stderr = h.log
	c := mcp.NewClient(&mcp.Implementation{Name: "host", Version: "1"}, can)
	s, err := c.Connect(context.Background(), &mcp.CommandTransport{Command: h.cmd}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	require.NoError(w.t, err, "%s", h.log)
	h.session = s
	w.t.Cleanup(func() {
		_ = s.Close() // some tests have killed it
		if w.t.Failed() {
			w.t.Logf("log of the server %d:\n%s", h.cmd.Process.Pid, h.log)
		}
	})
	return h
}

// said is the structured content of a tool's answer, as far as tests read it.
type said struct {
	Lease    string                `json:"lease_id"`
	State    string                `json:"state"`
	Reason   string                `json:"reason"`
	Detail   string                `json:"detail"`
	Decision string                `json:"decision"`
	Guard    string                `json:"guard"`
	Cost     policy.Money          `json:"cost_usd"`
	Warnings []string              `json:"warnings"`
	Next     struct{ Text string } `json:"next"`
	Job      string                `json:"job_id"`
	Exit     *int                  `json:"exit_code"`
	Stdout   string                `json:"stdout"`
	Stderr   string                `json:"stderr"`
	Leases   []said                `json:"leases"`
	Raw      json.RawMessage       `json:"-"`
}

// call calls a tool. text is what a refusal says, "" for a success.
func (h *host) call(tool string, args map[string]any) (answer said, text string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	by := h.other
	if by == nil {
		by = h.official
	}
	raw, refusal := by(ctx, tool, args)
	if refusal != "" {
		return said{}, refusal
	}
	require.NoError(h.t, json.Unmarshal(raw, &answer))
	answer.Raw = raw
	return answer, ""
}

// callTool is a client's way to a tool's structured content, or to the text that refuses it.
type callTool func(ctx context.Context, tool string, args map[string]any) (structured json.RawMessage, refusal string)

// official is that of the official Go client.
func (h *host) official(ctx context.Context, tool string, args map[string]any) (structured json.RawMessage, refusal string) {
	h.t.Helper()
	res, err := h.session.CallTool(ctx, callParams(tool, args))
	require.NoError(h.t, err, "%s\n%s", tool, h.log)
	if res.IsError {
		require.Len(h.t, res.Content, 1)
		require.Nil(h.t, res.StructuredContent)
		return nil, res.Content[0].(*mcp.TextContent).Text
	}
	structured, err = json.Marshal(res.StructuredContent)
	require.NoError(h.t, err)
	return structured, ""
}

func (h *host) ok(tool string, args map[string]any) said {
	h.t.Helper()
	a, refusal := h.call(tool, args)
	require.Empty(h.t, refusal)
	return a
}

func (h *host) refused(code lease.Code, tool string, args map[string]any) string {
	h.t.Helper()
	_, text := h.call(tool, args)
	require.True(h.t, strings.HasPrefix(text, "error "+string(code)+": "), "%s %v: %q", tool, args, text)
	return text
}

func (h *host) until(id, state string) said {
	h.t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		a := h.ok("get_lease", map[string]any{"lease_id": id, "wait_seconds": 2})
		if a.State == state {
			return a
		}
		require.True(h.t, time.Now().Before(limit), "the lease is %s (%s), not %s\n%s", a.State, a.Detail, state, h.log)
	}
}

// stop ends a lease and checks that nothing of it is left.
func (w *world) stop(h *host, id string) said {
	w.t.Helper()
	a := h.ok("stop_lease", map[string]any{"lease_id": id})
	if a.State != "ended" {
		a = h.until(id, "ended")
	}
	require.Empty(w.t, w.sim.Running())
	require.GreaterOrEqual(w.t, a.Cost, policy.Money(w.sim.Bill().Total))
	return a
}

// kill is kill -9.
func (h *host) kill() {
	h.t.Helper()
	require.NoError(h.t, h.cmd.Process.Kill())
	_ = h.session.Wait()
}

func callParams(tool string, args map[string]any) *mcp.CallToolParams {
	return &mcp.CallToolParams{Name: tool, Arguments: args}
}
