package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// What the ledger has while calls are measured.
const (
	liveLeases  = 3
	endedLeases = 50
)

// principal is whose they are: that of a server over stdio.
const principal = "default"

// stage is a simulated cloud, and a state directory of gpulease.
type stage struct {
	bin, dir string
	env      []string
	sim      *process
}

func newStage(ctx context.Context, bin string) (*stage, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-mcp-")
	if err != nil {
		return nil, err
	}
	s := &stage{bin: bin, dir: dir, env: []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "GPULEASE_STATE_DIR=" + filepath.Join(dir, "state")}}
	var ready struct {
		API  string      `json:"api_url"`
		Port json.Number `json:"ssh_port"`
		Key  string      `json:"api_key"`
	}
	if s.sim, err = s.start(ctx, &ready, bin, "sim", "--boot-time", "1s"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	policyFile := filepath.Join(dir, "policy.yaml")
	s.env = append(s.env, "GPULEASE_API_URL="+ready.API, "GPULEASE_SSH_PORT="+ready.Port.String(), "LAMBDA_API_KEY="+ready.Key, "GPULEASE_POLICY="+policyFile)
	text := fmt.Sprintf("max_ttl: 2h\nmax_leases: %d\n", liveLeases+1)
	if err := os.WriteFile(policyFile, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	var errs []error
	if _, err := os.Stat(filepath.Join(s.dir, "state", "ledger.db")); err == nil {
		_, err := s.output("stop", "--all")
		errs = append(errs, err)
	}
	if s.sim != nil {
		errs = append(errs, s.sim.close())
	}
	// A keeper is still tidying for a moment.
	err := os.RemoveAll(s.dir)
	for range 50 {
		if err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
		err = os.RemoveAll(s.dir)
	}
	return errors.Join(append(errs, err)...)
}

func (s *stage) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

func (s *stage) output(args ...string) (string, error) {
	out, err := s.command(s.bin, args...).Output()
	if err != nil {
		return "", fmt.Errorf("gpulease %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// process is one that says by a line of JSON that it is ready.
type process struct {
	cmd *exec.Cmd
	log *strings.Builder
}

func (s *stage) start(ctx context.Context, ready any, name string, args ...string) (*process, error) {
	return s.startWith(ctx, nil, ready, name, args...)
}

func (s *stage) startWith(ctx context.Context, env []string, ready any, name string, args ...string) (*process, error) {
	p := &process{cmd: s.command(name, args...), log: &strings.Builder{}}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, ready)
	}
	if err != nil {
		_ = p.close()
		return nil, fmt.Errorf("%s %s is not ready: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, p.log)
	}
	return p, ctx.Err()
}

func (p *process) close() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait() // the library's server knows no orderly end
	return nil
}

// fill gives the ledger its history, and leases that live on running machines.
func (s *stage) fill(ctx context.Context) error {
	if err := s.history(ctx); err != nil {
		return fmt.Errorf("write leases that have ended: %w", err)
	}
	w, err := startPipe(s.command(s.bin, "serve"))
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	if err := greet(ctx, w); err != nil {
		return err
	}
	for range liveLeases {
		var l struct {
			ID    string `json:"lease_id"`
			State string `json:"state"`
		}
		if err := use(ctx, w, "launch_lease", map[string]any{"type": "gpu_1x_a10", "ttl_minutes": 60, "purpose": "a benchmark"}, &l); err != nil {
			return err
		}
		for range 20 {
			if l.State == string(lease.Ready) {
				break
			}
			if err := use(ctx, w, "get_lease", map[string]any{"lease_id": l.ID, "wait_seconds": 20}, &l); err != nil {
				return err
			}
		}
		if l.State != string(lease.Ready) {
			return fmt.Errorf("the lease %s is %s", l.ID, l.State)
		}
	}
	return nil
}

// history writes leases that have ended, the last one a day ago. Launching them would take ten minutes: the cloud
// allows one launch in 12 s.
func (s *stage) history(ctx context.Context) (err error) {
	dir := filepath.Join(s.dir, "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	db, err := ledger.Open(ctx, filepath.Join(dir, "ledger.db"), ledger.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	allow := func(policy.Usage) policy.Decision { return policy.Decision{Verdict: policy.Allow} }
	at := time.Now().UTC().Truncate(time.Second).Add(-(endedLeases + 1) * 24 * time.Hour)
	for i := range endedLeases {
		id := lease.ID(fmt.Sprintf("history%c%caaa", 'a'+i/26, 'a'+i%26))
		res, err := db.Reserve(ctx, lease.Lease{
			ID: id, State: lease.Launching, Principal: principal, Type: "gpu_1x_a10", GPUs: 1, Price: policy.Dollar, Reserved: policy.Dollar,
			Name: "gl-bench-" + string(id), Purpose: "history", CreatedAt: at, ReservedAt: at,
		}, at, lease.Periods{}, allow)
		if err != nil {
			return err
		}
		at = at.Add(24 * time.Hour)
		l := res.Lease
		l.State, l.Reason, l.Reserved, l.Cost, l.EndedAt = lease.Ended, lease.Stopped, 0, policy.Dollar/2, at.Add(-23*time.Hour)
		if _, err := db.Update(ctx, l, "settled"); err != nil {
			return err
		}
	}
	return nil
}

// use calls a tool and reads its structured content.
func use(ctx context.Context, w wire, tool string, args map[string]any, into any) error {
	answer, err := w.ask(ctx, "tools/call", map[string]any{"name": tool, "arguments": args})
	if err != nil {
		return err
	}
	result, err := checked(answer)
	if err != nil {
		return err
	}
	var r struct {
		Error      bool            `json:"isError"`
		Content    json.RawMessage `json:"content"`
		Structured json.RawMessage `json:"structuredContent"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return err
	}
	if r.Error {
		return fmt.Errorf("%s: %s", tool, r.Content)
	}
	return json.Unmarshal(r.Structured, into)
}

// own is gpulease over HTTP, without the limits that would be measured instead of it.
func (s *stage) own(ctx context.Context, env ...string) (*process, string, error) {
	var ready struct {
		URL string `json:"url"`
	}
	p, err := s.startWith(ctx, env, &ready, s.bin, "serve", "--transport", "http", "--listen", "127.0.0.1:0", "--rate", "1000000")
	return p, ready.URL, err
}

// bare is the library's server over HTTP.
func (s *stage) bare(ctx context.Context, env ...string) (*process, string, error) {
	var ready struct {
		URL string `json:"url"`
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	p, err := s.startWith(ctx, env, &ready, exe, bareRole, "http")
	return p, ready.URL, err
}

// connections keeps as many as are used at once.
func connections(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n}}
}
