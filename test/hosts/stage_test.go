//go:build unix

package hosts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/ledger"
)

// installed is where `make hosts` has put the hosts.
const installed = "GPULEASE_HOSTS"

// stage is a simulated cloud, and a person's home directory with a project in it.
type stage struct {
	t       *testing.T
	npm     string // with node_modules
	program string
	home    string
	project string
	env     []string // of everything that this person starts
	key     string
	api     string
	sim     string // its own address
}

func newStage(t *testing.T) *stage {
	t.Helper()
	npm := os.Getenv(installed)
	if npm == "" {
		t.Skip("make hosts installs the hosts and runs this")
	}
	program, err := filepath.Abs("../../bin/gpulease")
	require.NoError(t, err)
	require.FileExists(t, program, "make build")
	home, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	s := &stage{
		t: t, npm: npm, program: program, home: home, project: filepath.Join(home, "project"),
		env: []string{
			"HOME=" + home, "LANG=C.UTF-8",
			"PATH=" + filepath.Join(npm, "node_modules/node/bin") + ":" + filepath.Join(npm, "node_modules/.bin") + ":" + os.Getenv("PATH"),
		},
	}
	require.NoError(t, os.Mkdir(s.project, 0o700))
	s.startSim()
	t.Cleanup(s.nothingLeft) // while the cloud is there
	return s
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.home, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(s.t, os.WriteFile(path, []byte(text), 0o600))
}

func (s *stage) startSim() {
	s.t.Helper()
	var ready struct {
		API  string      `json:"api_url"`
		Port json.Number `json:"ssh_port"`
		Key  string      `json:"api_key"`
	}
	s.daemon(&ready, []string{"HOME=" + s.home + "/cloud", "PATH=" + os.Getenv("PATH")}, s.program, "sim", "--boot-time", "2s")
	s.key, s.api, s.sim = ready.Key, ready.API, strings.TrimSuffix(ready.API, "/api/v1")
	s.write("key", s.key)
	s.write(".config/gpulease/policy.yaml", "max_ttl: 2h\n")
	s.env = append(s.env, "LAMBDA_API_KEY_FILE="+filepath.Join(s.home, "key"), "GPULEASE_API_URL="+s.api, "GPULEASE_SSH_PORT="+ready.Port.String())
}

// command is one that this person starts in the project, ended with all that it
// started when ctx ends.
func (s *stage) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = s.project, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run is a command that ends by itself, well.
func (s *stage) run(name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	var errs bytes.Buffer
	cmd := s.command(ctx, name, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(s.t, err, "%s %s\n%s%s", filepath.Base(name), strings.Join(args, " "), out, errs.String())
	return string(out)
}

// daemon starts a program that says by one line of JSON that it is ready, and ends
// it with the test.
func (s *stage) daemon(ready any, env []string, name string, args ...string) {
	s.t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = s.project, env, &errs
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if s.t.Failed() {
			s.t.Logf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(errs.String()))
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(s.t, err, "%s is not ready", args[0])
	require.NoError(s.t, json.Unmarshal(line, ready))
}

// web starts a server over HTTP. files is the directory of the principal whose token it is.
func (s *stage) web(principal string) (url, token, files string) {
	s.t.Helper()
	token = strings.TrimSpace(s.run(s.program, "token", "create", principal))
	root := filepath.Join(s.home, "files")
	s.write("files/.keep", "")
	var ready struct {
		URL string `json:"url"`
	}
	s.daemon(&ready, s.env, s.program, "serve", "--transport", "http", "--listen", "127.0.0.1:0", "--root", root)
	return ready.URL, token, filepath.Join(root, principal)
}

// ask asks the simulator.
func (s *stage) ask(what string, answer any) {
	s.t.Helper()
	r, err := http.Get(s.sim + "/_sim/" + what)
	require.NoError(s.t, err)
	defer r.Body.Close()
	require.NoError(s.t, json.NewDecoder(r.Body).Decode(answer))
}

// launches are the launch calls that the cloud has seen.
func (s *stage) launches() int {
	s.t.Helper()
	var requests []struct {
		Op string `json:"op"`
	}
	s.ask("requests", &requests)
	n := 0
	for _, r := range requests {
		if r.Op == "launchInstance" {
			n++
		}
	}
	return n
}

// alive are the instances that are not gone.
func (s *stage) alive() []string {
	s.t.Helper()
	var instances []struct {
		Name   string    `json:"name"`
		Status string    `json:"status"`
		Ended  time.Time `json:"terminated_at"`
	}
	s.ask("instances", &instances)
	var alive []string
	for _, i := range instances {
		if i.Ended.IsZero() {
			alive = append(alive, i.Name+" "+i.Status)
		}
	}
	return alive
}

// onlyLease fails unless the ledger has one lease: of that principal, launched under
// the identifier that the host itself gave the call, so that a repeat is no other.
func (s *stage) onlyLease(principal, call string) {
	s.t.Helper()
	db, err := ledger.Open(s.t.Context(), filepath.Join(s.home, ".local/state/gpulease/ledger.db"), ledger.Options{})
	require.NoError(s.t, err)
	defer db.Close()
	all, err := db.List(s.t.Context(), 0)
	require.NoError(s.t, err)
	require.Len(s.t, all, 1)
	require.Equal(s.t, principal, all[0].Principal)
	require.Regexp(s.t, "^call "+call+"[0-9]+$", all[0].IdempotencyKey)
}

// nothingLeft waits until no gpulease of this person runs any more: servers end
// with their hosts, keepers with the last lease.
func (s *stage) nothingLeft() {
	deadline := time.Now().Add(90 * time.Second)
	for {
		left := s.processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) || s.t.Failed() {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			s.t.Errorf("%d processes were left behind", len(left))
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// processes are those with this person's home directory in their environment.
func (s *stage) processes() []int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []int
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte("HOME="+s.home+"\x00")) {
			continue
		}
		var pid int
		if json.Unmarshal([]byte(filepath.Base(filepath.Dir(file))), &pid) == nil {
			found = append(found, pid)
		}
	}
	return found
}

// hosted is an agent host at work, whose model the test is.
type hosted struct {
	*stage
	model *Model
	ctx   context.Context // ends with the host
	space string          // of our tools, for APIs with such
	fix   string          // before our tools' names

	mu     sync.Mutex
	out    bytes.Buffer
	done   chan struct{}
	failed error
}

var errHostGone = errors.New("the host has ended")

// host starts an agent host.
func (s *stage) host(m *Model, space, fix, name string, args ...string) *hosted {
	s.t.Helper()
	ctx, gone := context.WithCancelCause(s.t.Context())
	limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
	h := &hosted{stage: s, model: m, ctx: limited, space: space, fix: fix, done: make(chan struct{})}
	cmd := s.command(limited, name, args...)
	cmd.Stdout, cmd.Stderr = h, h
	require.NoError(s.t, cmd.Start())
	go func() {
		h.failed = cmd.Wait()
		gone(errHostGone)
		close(h.done)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-h.done
		_ = m.Close()
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", filepath.Base(name), tail(h.said()))
		}
	})
	return h
}

func (h *hosted) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.Write(p)
}

func (h *hosted) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.String()
}

// finish lets the host end.
func (h *hosted) finish() {
	h.t.Helper()
	h.model.Done()
	<-h.done
	require.NoError(h.t, h.failed, "the host's own end")
	require.NoError(h.t, h.model.Err())
	require.Contains(h.t, h.said(), "the model is done")
}

// call makes a call of ours.
func (h *hosted) call(tool string, args map[string]any) Seen {
	h.t.Helper()
	c := Call{Space: h.space, Tool: tool, Args: args}
	if h.space == "" {
		c.Tool = h.fix + tool
	}
	seen, err := h.model.Call(h.ctx, c)
	require.NoError(h.t, err)
	require.NotContains(h.t, seen.Text, h.key, "the API key")
	h.t.Logf("%s: %d bytes", tool, len(seen.Text))
	return seen
}

func tail(text string) string {
	const most = 8000
	return text[max(0, len(text)-most):]
}
