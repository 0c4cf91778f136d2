package smoke

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// loop is the way of an agent: quote, launch, work, come back, bring home, stop.
func (r *run) loop(ctx context.Context, candidates []candidate) error {
	r.step("serve")
	if err := r.connect(ctx); err != nil {
		return err
	}
	if err := r.launch(ctx, candidates); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{{"boot", r.boot}, {"gpu", r.gpu}, {"job", r.job}, {"fetch", r.bringHome}, {"stop", r.stop}} {
		r.step(s.name)
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// env is the environment of every process that the run starts.
func (r *run) env() []string {
	return append(append([]string{}, r.Env...),
		"GPULEASE_STATE_DIR="+r.stateDir(), "GPULEASE_LEDGER="+r.ledger(),
		"GPULEASE_POLICY="+r.policyPath(), "GPULEASE_PRINCIPAL=smoke", "GPULEASE_LOG_LEVEL=info")
}

func (r *run) connect(ctx context.Context) (err error) {
	r.server, err = agent.Start(ctx, agent.Options{
		Binary: r.Binary, Dir: r.home(), Env: r.env(), Log: filepath.Join(r.dir, "server.log"), Name: "gpulease-smoke", Version: r.Version,
	})
	if err != nil {
		return fmt.Errorf("start gpulease serve: %w", err)
	}
	return nil
}

// refused is the classification of a tool's refusal.
func refused(code string) Classification {
	switch lease.Code(code) {
	case lease.CodeNoCapacity:
		return CapacityBlocked
	case lease.CodeQuotaExceeded:
		return QuotaBlocked
	case lease.CodeAccountBlocked, lease.CodeBudgetExceeded:
		return BillingBlocked
	case lease.CodeBadAPIKey, lease.CodeCloudUnavailable, lease.CodeRateLimited, lease.CodePolicyDenied, lease.CodeFrozen, lease.CodeApprovalRequired:
		return EnvironmentBlocked
	}
	return ValidationFailed
}

// call calls a tool and decodes its answer.
func (r *run) call(ctx context.Context, tool string, args map[string]any, into any) error {
	a, err := r.server.Call(ctx, tool, args)
	if err != nil {
		return err
	}
	if a.IsError {
		return blockf(refused(a.Code()), "%s answered: %s", tool, a.Text)
	}
	if err := json.Unmarshal(a.Structured, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", tool, err)
	}
	return nil
}

// launch takes the cheapest candidate that Lambda really has.
func (r *run) launch(ctx context.Context, candidates []candidate) (err error) {
	for _, c := range candidates {
		if err = r.launchOne(ctx, c); err == nil {
			return nil
		}
		var b *blocked
		if !errors.As(err, &b) || b.as != CapacityBlocked {
			return err
		}
		r.say("launch", "%v", err)
	}
	return err
}

func (r *run) launchOne(ctx context.Context, c candidate) error {
	args := map[string]any{"type": c.name, "ttl_minutes": int(r.TTL / time.Minute), "purpose": "live check"}
	quote := map[string]any{"dry_run": true}
	for k, v := range args {
		quote[k] = v
	}
	r.step("quote")
	var q agent.Quote
	if err := r.call(ctx, "launch_lease", quote, &q); err != nil {
		return err
	}
	r.say("quote", "%s for %s: %s, %s at most", c.name, r.TTL, q.Decision, q.WorstCase)
	switch {
	case q.WorstCase > r.Limit:
		return blockf(BillingBlocked, "%s could cost %s, above the limit of %s", c.name, q.WorstCase, r.Limit)
	case q.Decision != string(policy.Allow):
		return blockf(EnvironmentBlocked, "the quote for %s says %s: %s", c.name, q.Decision, q.Why)
	}
	r.worst = q.WorstCase

	r.step("launch")
	args["idempotency_key"] = "smoke " + c.name
	var l agent.Lease
	if err := r.call(ctx, "launch_lease", args, &l); err != nil {
		return err
	}
	r.lease = l.Lease
	r.say("launch", "lease %s is %s; %s are reserved; guarded by %s", l.Lease, l.State, l.Reserved, l.Guard)
	return nil
}

// boot waits until the lease is ready. The lease's own boot allowance bounds it.
func (r *run) boot(ctx context.Context) error {
	const extra = 2 * time.Minute
	began := time.Now()
	said := ""
	for {
		var l agent.Lease
		if err := r.call(ctx, "get_lease", map[string]any{"lease_id": r.lease, "wait_seconds": 20}, &l); err != nil {
			return err
		}
		switch {
		case l.State == string(lease.Ready):
			r.say("boot", "ready after %.0f s: %s; deadline %s; guarded by %s", time.Since(began).Seconds(), l.Detail, l.Deadline, l.Guard)
			if !strings.Contains(l.Guard, lease.GuardKeeper) {
				return fmt.Errorf("boot: the lease is not guarded by a keeper: %q", l.Guard)
			}
			return nil
		case l.State == string(lease.Ended), l.State == string(lease.Stopping):
			return ofEnd(l)
		case time.Since(began) > doctor.BootMany+extra:
			return fmt.Errorf("boot: the lease is still %s: %s", l.State, l.Detail)
		}
		if now := l.State + ": " + l.Detail; now != said {
			r.say("boot", "%s", now)
			said = now
		}
	}
}

// ofEnd is a lease that ended before it was of any use.
func ofEnd(l agent.Lease) error {
	as := ValidationFailed
	switch lease.Reason(l.Reason) {
	case lease.NoCapacity:
		as = CapacityBlocked
	case lease.Refused:
		as = EnvironmentBlocked
	}
	return blockf(as, "boot: the lease is %s (%s): %s", l.State, l.Reason, l.Detail)
}

// command runs a command on the machine to its end and returns what it printed.
func (r *run) command(ctx context.Context, what, command string) (string, error) {
	var j agent.Job
	if err := r.call(ctx, "run_command", map[string]any{"lease_id": r.lease, "command": command, "wait_seconds": 40}, &j); err != nil {
		return "", err
	}
	if j.Exit == nil || *j.Exit != 0 {
		return "", fmt.Errorf("%s: the job is %s with exit code %s: %s", what, j.State, exitText(j.Exit), j.Stderr)
	}
	return j.Stdout, nil
}

func exitText(code *int) string {
	if code == nil {
		return "none"
	}
	return fmt.Sprint(*code)
}

func (r *run) gpu(ctx context.Context) error {
	out, err := r.command(ctx, "nvidia-smi", "nvidia-smi -L")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "GPU 0:") {
		return fmt.Errorf("nvidia-smi shows no GPU: %q", out)
	}
	for line := range strings.Lines(out) {
		r.say("gpu", "%s", strings.TrimSpace(line))
	}
	return nil
}

// job starts a job, leaves, comes back with another server and reads it to its end.
func (r *run) job(ctx context.Context) error {
	word, err := nonce()
	if err != nil {
		return err
	}
	command := fmt.Sprintf("echo begin %[1]s; sleep %[2]d; echo end %[1]s", word, int(r.JobTime/time.Second))
	var j agent.Job
	if err := r.call(ctx, "run_command", map[string]any{"lease_id": r.lease, "command": command, "wait_seconds": 0}, &j); err != nil {
		return err
	}
	r.say("job", "%s is %s", j.Job, j.State)

	r.step("reconnect")
	first := r.server.PID()
	closeErr := r.server.Close()
	r.server = nil
	if closeErr != nil {
		return fmt.Errorf("reconnect: %w", closeErr)
	}
	if err := r.connect(ctx); err != nil {
		return err
	}
	var all agent.Leases
	if err := r.call(ctx, "list_leases", nil, &all); err != nil {
		return err
	}
	if len(all.Leases) != 1 || all.Leases[0].Lease != r.lease || all.Leases[0].State != string(lease.Ready) {
		return fmt.Errorf("reconnect: the new server shows %+v, not the lease %s ready", all.Leases, r.lease)
	}
	r.say("reconnect", "server %d instead of %d sees lease %s", r.server.PID(), first, r.lease)
	out, err := r.follow(ctx, j.Job)
	if err != nil {
		return err
	}
	if want := "begin " + word + "\nend " + word + "\n"; out != want {
		return fmt.Errorf("job: its output is %q, not %q", out, want)
	}
	r.say("job", "its output is whole")
	return nil
}

// follow reads a job's output to its end.
func (r *run) follow(ctx context.Context, job string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.JobTime+3*time.Minute)
	defer cancel()
	text := ""
	var offset int64
	for {
		var p agent.Page
		if err := r.call(ctx, "read_output", map[string]any{"job_id": job, "offset": offset, "wait_seconds": 20}, &p); err != nil {
			return "", err
		}
		text += p.Data
		offset = p.Next
		if !p.EOF {
			continue
		}
		if p.Exit == nil || *p.Exit != 0 {
			return "", fmt.Errorf("job: it is %s with exit code %s", p.State, exitText(p.Exit))
		}
		return text, nil
	}
}

const fileBytes = 2048 // so that an answer of run_command carries it whole

// bringHome makes a file there and has it here afterwards, byte for byte.
func (r *run) bringHome(ctx context.Context) error {
	sum, err := r.command(ctx, "make a file", fmt.Sprintf("head -c %d /dev/urandom > smoke.bin && sha256sum < smoke.bin", fileBytes))
	if err != nil {
		return err
	}
	text, err := r.command(ctx, "read the file", "base64 < smoke.bin | tr -d '\\n'")
	if err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("fetch: read the file: %w", err)
	}
	path := filepath.Join(r.home(), "smoke.bin")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	here := sha256.Sum256(data)
	if there, _, _ := strings.Cut(sum, " "); len(data) != fileBytes || there != hex.EncodeToString(here[:]) {
		return fmt.Errorf("fetch: %d bytes came home with another checksum than there", len(data))
	}
	r.say("fetch", "%d bytes came home, the checksum is the same", len(data))
	return nil
}

func (r *run) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.CleanTime)
	defer cancel()
	for {
		var l agent.Lease
		if err := r.call(ctx, "stop_lease", map[string]any{"lease_id": r.lease, "wait_seconds": 20}, &l); err != nil {
			return err
		}
		if l.State == string(lease.Ended) {
			r.say("stop", "ended (%s), %d s billed, cost %s", l.Reason, l.Seconds, l.Cost)
			return nil
		}
		r.say("stop", "not confirmed yet: %s", l.Detail)
	}
}

func nonce() (string, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return hex.EncodeToString(b), nil
}
