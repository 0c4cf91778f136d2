package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
)

const (
	readers  = 4      // that page at once, each its part
	mostPage = 40_000 // bytes that read_output gives at most
)

// served is gpulease's own server, with a lease on the simulated cloud, and a client that speaks MCP to it.
type served struct {
	dir    string
	env    []string
	sim    *exec.Cmd
	serve  *exec.Cmd
	client *client.Client
}

// servePaging pages the whole output of a job through read_output, and tells the most memory that the server has had
// meanwhile.
func servePaging(ctx context.Context, s settings) (err error) {
	v, err := startServed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.stop()) }()
	var lease struct {
		ID    string `json:"lease_id"`
		State string `json:"state"`
	}
	if err := v.call(ctx, "launch_lease", map[string]any{"type": "gpu_1x_a10", "ttl_minutes": 120, "purpose": "bench"}, &lease); err != nil {
		return err
	}
	for lease.State != "ready" {
		if err := v.call(ctx, "get_lease", map[string]any{"lease_id": lease.ID, "wait_seconds": 20}, &lease); err != nil {
			return err
		}
	}
	var job struct {
		ID    string `json:"job_id"`
		State string `json:"state"`
		Bytes int64  `json:"stdout_bytes"`
	}
	text := fmt.Sprintf("yes 'epoch 17 step 004242 loss 0.12345 lr 3.0e-4 tokens/s 81920' | head -c %d", s.page)
	if err := v.call(ctx, "run_command", map[string]any{"lease_id": lease.ID, "command": text, "wait_seconds": 45}, &job); err != nil {
		return err
	}
	if job.State != "exited" || job.Bytes != s.page {
		return fmt.Errorf("the job is %s with %d bytes", job.State, job.Bytes)
	}
	before := peak(v.serve.Process.Pid)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", v.serve.Process.Pid), []byte("5"), 0) // the peak begins again
	begun := time.Now()
	calls, err := v.readAll(ctx, job.ID, s.page)
	if err != nil {
		return err
	}
	took := time.Since(begun)
	fmt.Printf("%-22s    0 ms  %d MB in %d calls of read_output: %.0f s, most memory of gpulease serve %s (%s before)\n", "paging by MCP",
		s.page/1_000_000, calls, took.Seconds(), peak(v.serve.Process.Pid), before)
	return nil
}

// readAll has several readers page the output, and returns how many calls that took.
func (v *served) readAll(ctx context.Context, jobID string, size int64) (int64, error) {
	var group sync.WaitGroup
	var calls atomic.Int64
	errs := make([]error, readers)
	for i := range int64(readers) {
		group.Go(func() {
			end := (i + 1) * size / readers
			for offset := i * size / readers; offset < end && errs[i] == nil; calls.Add(1) {
				var page struct {
					Next int64  `json:"next_offset"`
					Data string `json:"data"`
				}
				errs[i] = v.call(ctx, "read_output", map[string]any{
					"job_id": jobID, "offset": offset, "limit_bytes": min(mostPage, max(end-offset, 16)),
				}, &page)
				if errs[i] == nil && page.Next <= offset {
					errs[i] = fmt.Errorf("nothing at %d", offset)
				}
				offset = page.Next
			}
		})
	}
	group.Wait()
	return calls.Load(), errors.Join(errs...)
}

func startServed(ctx context.Context) (*served, error) {
	dir, err := os.MkdirTemp("", "bench-serve-")
	if err != nil {
		return nil, err
	}
	v := &served{dir: dir, env: []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "GPULEASE_STATE_DIR=" + filepath.Join(dir, "state")}}
	bin := filepath.Join(dir, "gpulease")
	if err := tool("go", "build", "-o", bin, "./cmd/gpulease"); err != nil {
		return nil, errors.Join(fmt.Errorf("build gpulease from the root of its source: %w", err), v.stop())
	}
	if err := v.start(ctx, bin); err != nil {
		return nil, errors.Join(err, v.stop())
	}
	return v, nil
}

func (v *served) start(ctx context.Context, bin string) error {
	v.sim = v.command(bin, "sim", "--boot-time", "1s")
	out, err := v.sim.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.sim.Start(); err != nil {
		return err
	}
	var ready struct {
		API  string      `json:"api_url"`
		Port json.Number `json:"ssh_port"`
		Key  string      `json:"api_key"`
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("gpulease sim: %w", err)
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return fmt.Errorf("gpulease sim: %w", err)
	}
	v.env = append(v.env, "GPULEASE_API_URL="+ready.API, "GPULEASE_SSH_PORT="+ready.Port.String(), "LAMBDA_API_KEY="+ready.Key)
	v.serve = v.command(bin, "serve")
	in, err := v.serve.StdinPipe()
	if err != nil {
		return err
	}
	said, err := v.serve.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.serve.Start(); err != nil {
		return err
	}
	v.client = client.NewClient(transport.NewIO(said, in, io.NopCloser(strings.NewReader(""))))
	if err := v.client.Start(ctx); err != nil {
		return err
	}
	_, err = v.client.Initialize(ctx, mcp.InitializeRequest{Params: mcp.InitializeParams{
		ProtocolVersion: mcp.LATEST_PROTOCOL_VERSION, ClientInfo: mcp.Implementation{Name: "bench", Version: "1"},
	}})
	return err
}

func (v *served) command(bin string, args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Env = v.dir, v.env
	return cmd
}

// stop ends the lease, the server and the cloud.
func (v *served) stop() error {
	if v.client != nil {
		_ = v.client.Close()
	}
	var err error
	if v.serve != nil && v.serve.Process != nil {
		err = v.command(filepath.Join(v.dir, "gpulease"), "stop", "--all").Run()
		_ = v.serve.Process.Signal(syscall.SIGTERM)
		_ = v.serve.Wait()
	}
	if v.sim != nil && v.sim.Process != nil {
		_ = v.sim.Process.Signal(syscall.SIGTERM)
		_ = v.sim.Wait()
	}
	for range 50 { // a keeper is still tidying for a moment
		if os.RemoveAll(v.dir) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func (v *served) call(ctx context.Context, name string, args map[string]any, result any) error {
	r, err := v.client.CallTool(ctx, mcp.CallToolRequest{Params: mcp.CallToolParams{Name: name, Arguments: args}})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if r.IsError {
		text, _ := json.Marshal(r.Content)
		return fmt.Errorf("%s: %s", name, text)
	}
	data, err := json.Marshal(r.StructuredContent)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, result)
}

// peak is the most memory that a process has had.
func peak(pid int) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
