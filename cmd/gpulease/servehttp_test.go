package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// web is a server over HTTP, as a process.
type web struct {
	*world
	cmd  *host // of which only the process and its log are used
	base string
}

func (w *world) web(args ...string) *web {
	w.t.Helper()
	h := &host{t: w.t, log: &lockedBuffer{}}
	h.cmd = w.program(append([]string{"serve", "--transport", "http", "--listen", "127.0.0.1:0"}, args...)...)
	h.cmd.Stderr = h.log
	out, err := h.cmd.StdoutPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, h.cmd.Start())
	w.t.Cleanup(func() {
		if h.cmd.ProcessState == nil {
			_ = h.cmd.Process.Kill()
			_ = h.cmd.Wait()
		}
		if w.t.Failed() {
			w.t.Logf("log of the server %d:\n%s", h.cmd.Process.Pid, h.log)
		}
	})
	var ready struct{ URL string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(w.t, err, "%s", h.log)
	require.NoError(w.t, json.Unmarshal(line, &ready))
	return &web{world: w, cmd: h, base: strings.TrimSuffix(ready.URL, "/mcp")}
}

// token makes a principal's token.
func (w *world) token(name string) string {
	w.t.Helper()
	out, err := w.program("token", "create", name).Output()
	require.NoError(w.t, err)
	return strings.TrimSpace(string(out))
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// host is the official Go client, at /mcp or /sse.
func (w *web) host(token, path string) *host {
	w.t.Helper()
	client := &http.Client{Transport: bearer(token)}
	var transport mcp.Transport = &mcp.StreamableClientTransport{Endpoint: w.base + path, HTTPClient: client}
	if path == "/sse" {
		transport = &mcp.SSEClientTransport{Endpoint: w.base + path, HTTPClient: client}
	}
	c := mcp.NewClient(&mcp.Implementation{Name: "host", Version: "1"}, nil)
	s, err := c.Connect(context.Background(), transport, nil)
	require.NoError(w.t, err, "%s", w.cmd.log)
	w.t.Cleanup(func() { _ = s.Close() })
	return &host{t: w.t, session: s, cmd: w.cmd.cmd, log: w.cmd.log}
}

func (w *web) metrics(token string) string {
	w.t.Helper()
	r, err := (&http.Client{Transport: bearer(token)}).Get(w.base + "/metrics")
	require.NoError(w.t, err)
	defer r.Body.Close()
	require.Equal(w.t, 200, r.StatusCode)
	text, err := io.ReadAll(r.Body)
	require.NoError(w.t, err)
	return string(text)
}

func TestTheWholeLoopOverHTTP(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/mcp", "/sse"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lambdatest.Config{})
			token := w.token("ann")
			s := w.web()
			h := s.host(token, path)
			id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
			require.Contains(t, h.until(id, "ready").Guard, "keeper", "one was started before the launch")
			a := h.ok("run_command", map[string]any{"lease_id": id, "command": "echo out; exit 3", "wait_seconds": 20})
			require.Equal(t, 3, *a.Exit)
			require.Equal(t, "out\n", a.Stdout)
			// Without roots no tool is there for files, and the model is told how a small one travels.
			require.Contains(t, h.session.InitializeResult().Instructions, "stdin of run_command")
			a = h.ok("run_command", map[string]any{"lease_id": id, "command": "mkdir -p src && cat >src/a.py && cat src/a.py", "stdin": "print('ä')\n", "wait_seconds": 20})
			require.Equal(t, "print('ä')\n", a.Stdout)
			job := h.ok("run_command", map[string]any{"lease_id": id, "command": "sleep 2; echo finished", "wait_seconds": 0}).Job

			// The server ends in order, its leases and jobs go on.
			require.NoError(t, s.cmd.cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, s.cmd.cmd.Wait(), "%s", s.cmd.log)
			h = w.web().host(token, path)
			page := h.ok("read_output", map[string]any{"job_id": job, "wait_seconds": 20})
			require.Contains(t, string(page.Raw), `"data":"finished\n"`)
			w.stop(h, id)
		})
	}
}

func TestAServerThatIsKilledLeavesAKeeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	token := w.token("ann")
	s := w.web()
	id := s.host(token, "/mcp").ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	require.NoError(t, s.cmd.cmd.Process.Kill())
	_ = s.cmd.cmd.Wait()
	require.True(t, w.keeperRuns())
	s = w.web()
	h := s.host(token, "/mcp")
	h.until(id, "ready")
	require.Contains(t, s.metrics(token), "gpulease_leases{state=\"ready\"} 1\n")
	w.stop(h, id)
}

// What belongs to one principal does not exist for another, by whatever tool it is
// asked for.
func TestPrincipalsCannotReachEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	annToken, bobToken := w.token("ann"), w.token("bob")
	root := t.TempDir()
	s := w.web("--root", root, "--policy-set", "principals.lead.leases_of=*")
	ann, bob := s.host(annToken, "/mcp"), s.host(bobToken, "/mcp")
	id := ann.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30, "purpose": "secret purpose"}).Lease
	ann.until(id, "ready")
	require.NoError(t, os.WriteFile(filepath.Join(root, "ann", "file"), []byte("ann's"), 0o600))
	ann.ok("sync_files", map[string]any{"lease_id": id, "local_dir": "."})
	job := ann.ok("run_command", map[string]any{"lease_id": id, "command": "echo secret output", "wait_seconds": 20}).Job

	bob.triesEveryTool(id, job)
	for _, tool := range []string{"list_leases", "spend_report", "list_capacity"} {
		raw := string(bob.ok(tool, map[string]any{}).Raw)
		require.NotContains(t, raw, id)
		require.NotContains(t, raw, "ann")
	}
	require.Empty(t, bob.ok("list_leases", map[string]any{"include_ended": true}).Leases)

	// Nor as a resource.
	for _, uri := range []string{"lease://" + id, "lease://" + id + "/jobs/" + job + "/stdout"} {
		own, err := ann.session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		require.NoError(t, err)
		require.Contains(t, own.Contents[0].Text, "secret")
		_, err = bob.session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		require.ErrorContains(t, err, "error lease_not_found: ")
	}
	seen, err := bob.session.ListResources(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, seen.Resources, 2, "the policy and the spending")
	seen, err = ann.session.ListResources(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, seen.Resources, 3)
	spent, err := bob.session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "spend://today"})
	require.NoError(t, err)
	require.Contains(t, spent.Contents[0].Text, `"live_leases":0`)

	// Nor its files.
	mine := bob.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 30}).Lease
	bob.until(mine, "ready")
	for _, source := range []string{"../ann", filepath.Join(root, "ann"), root} {
		bob.refused(lease.CodePathDenied, "sync_files", map[string]any{"lease_id": mine, "local_dir": source})
	}
	require.Equal(t, "ready", ann.ok("get_lease", map[string]any{"lease_id": id}).State)
	require.Len(t, ann.ok("list_leases", nil).Leases, 1)
	out, err := w.program("leases").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), id, "a person sees all")
	require.Contains(t, string(out), mine)

	// A token that is revoked lets nobody in; another principal's does.
	require.NoError(t, w.program("token", "revoke", "bob").Run())
	_, err = bob.session.CallTool(t.Context(), callParams("list_leases", nil))
	require.ErrorContains(t, err, "Unauthorized")

	// Whom the policy lets, uses them as its own; what comes home lands in its own directory.
	lead := s.host(w.token("lead"), "/mcp")
	require.Contains(t, string(lead.ok("list_leases", map[string]any{}).Raw), id)
	require.Contains(t, string(lead.ok("read_output", map[string]any{"job_id": job}).Raw), "secret output")
	lead.ok("fetch_files", map[string]any{"lease_id": id, "paths": []string{"ann/file"}, "local_dir": "home"})
	require.FileExists(t, filepath.Join(root, "lead", "home", "ann", "file"))
	require.NoDirExists(t, filepath.Join(root, "ann", "home"))
	require.Equal(t, "stopping", lead.ok("stop_lease", map[string]any{"lease_id": id, "wait_seconds": 0}).State)
	require.NotEqual(t, "ready", ann.ok("get_lease", map[string]any{"lease_id": id}).State)
	require.NotContains(t, s.cmd.log.String(), annToken)
}

// triesEveryTool calls each tool that takes a lease or a job with another principal's, and
// with what does not exist.
func (h *host) triesEveryTool(id, job string) {
	h.t.Helper()
	list, err := h.session.ListTools(h.t.Context(), nil)
	require.NoError(h.t, err)
	tried := 0
	for _, tool := range list.Tools {
		args, handle := argumentsFor(h.t, tool)
		if handle == "" {
			continue
		}
		tried++
		said := map[string]string{}
		for lease, jobID := range map[string]string{id: job, "aaaaaaaaaaaa": "aaaaaaaaaaaa-aaaaaaaa"} {
			args[handle] = map[string]any{"lease_id": lease, "job_id": jobID}[handle]
			_, text := h.call(tool.Name, args)
			said[lease] = strings.ReplaceAll(strings.ReplaceAll(text, jobID, "JOB"), lease, "LEASE")
		}
		require.True(h.t, strings.HasPrefix(said[id], "error lease_not_found: "), "%s: %q", tool.Name, said[id])
		require.Equal(h.t, said["aaaaaaaaaaaa"], said[id], "%s tells nothing", tool.Name)
	}
	require.GreaterOrEqual(h.t, tried, 7)
}

// argumentsFor fills in what a tool requires, beside the handle that it takes.
func argumentsFor(t *testing.T, tool *mcp.Tool) (args map[string]any, handle string) {
	t.Helper()
	raw, err := json.Marshal(tool.InputSchema)
	require.NoError(t, err)
	var schema struct {
		Required   []string
		Properties map[string]struct {
			Type  string
			Items struct{ Type string }
		}
	}
	require.NoError(t, json.Unmarshal(raw, &schema))
	args = map[string]any{}
	for name, p := range schema.Properties {
		required := strings.Contains(fmt.Sprint(schema.Required), name)
		switch {
		case name == "lease_id" || name == "job_id":
			handle = name
		case p.Type == "array":
			args[name] = []string{"out"}
		case required && p.Type == "string":
			args[name] = "."
		case required:
			args[name] = 22
		}
	}
	return args, handle
}

func TestHTTPRefusesWhatWouldLetOthersIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	for _, tt := range []struct{ args, want string }{
		{"--transport http --listen 0.0.0.0:0", "no principal has a token: run gpulease token create NAME first"},
		{"--transport https", `--transport is stdio or http, not "https"`},
		{"--listen 127.0.0.1:0", "--listen is for --transport http"},
		{"--transport http --max-sessions 0", "--sessions and --max-sessions have to be above 0"},
		{"--max-sessions 5", "--max-sessions is for --transport http"},
		{"--transport http --tls-cert x", "--tls-cert and --tls-key go together"},
		{"--transport http --tls-cert /dev/null --tls-key /dev/null", "failed to find any PEM data"},
		{"--transport http --oauth-issuer http://login.example --oauth-resource https://gpu.example", "has to be https"},
		{"--transport http --oauth-scope gpu", "go together"},
		{"--transport http --allow-origin example.com", "want a scheme and a host"},
		{"--toolsets leases", `did you mean "lease"?`},
		{"--transport http --tools sync_files", `there is no tool "sync_files"`},
	} {
		out, err := w.program(append([]string{"serve"}, strings.Fields(tt.args)...)...).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), tt.want, tt.args)
	}

	// Without tokens there is one principal, as over stdio; from the first token on it is needed.
	s := w.web("--read-only")
	list, err := s.host("", "/mcp").session.ListTools(t.Context(), nil)
	require.NoError(t, err)
	for _, tool := range list.Tools {
		require.True(t, tool.Annotations.ReadOnlyHint, tool.Name)
	}
	token := w.token("ann")
	r, err := http.Post(s.base+"/mcp", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, 401, r.StatusCode)
	require.Empty(t, s.host(token, "/mcp").ok("list_leases", nil).Leases)
}

func TestPrincipalsOfAnIssuer(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	login := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: oidc.ES256}}}
	on := httptest.NewServer(login)
	t.Cleanup(on.Close)
	login.SetIssuer(on.URL)
	const resource = "https://gpu.example/mcp"
	sign := func(audience string) string {
		return oidctest.SignIDToken(key, "k", oidc.ES256, fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"ann","exp":%d}`, on.URL, audience, time.Now().Add(time.Hour).Unix()))
	}

	w := newWorld(t, lambdatest.Config{})
	file := filepath.Join(w.dir, "policy.yaml")
	require.NoError(t, os.WriteFile(file, []byte("principals: {oauth.ann: {max_ttl: 10m}}\n"), 0o600))
	w.env = append(w.env, "GPULEASE_POLICY="+file)
	own := w.token("ann")
	s := w.web("--oauth-issuer", on.URL, "--oauth-resource", resource)
	theirs := s.host(sign(resource), "/mcp")
	require.Contains(t, theirs.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 11}), "max_ttl")
	require.Equal(t, "allow", s.host(own, "/mcp").ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 11, "dry_run": true}).Decision,
		"a principal with a token of ours is another one")

	for _, token := range []string{sign("https://other.example/mcp"), ""} {
		r, err := http.NewRequest("POST", s.base+"/mcp", strings.NewReader("{}"))
		require.NoError(t, err)
		answer, err := (&http.Client{Transport: bearer(token)}).Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, 401, answer.StatusCode)
		require.Contains(t, answer.Header.Get("WWW-Authenticate"), `resource_metadata="https://gpu.example/.well-known/oauth-protected-resource/mcp"`)
	}
	r, err := http.Get(s.base + "/.well-known/oauth-protected-resource/mcp")
	require.NoError(t, err)
	defer r.Body.Close()
	var metadata map[string]any
	require.NoError(t, json.NewDecoder(r.Body).Decode(&metadata))
	require.Equal(t, resource, metadata["resource"])
	require.Equal(t, []any{on.URL}, metadata["authorization_servers"])
}
