package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/policy"
)

// loop is the agent's way from question to receipt.
type loop struct {
	show    *show
	agent   *agent.Agent
	options Options
	cloud   *lambdatest.Server
	dir     string // of the demo's own files

	asked bool   // for a lease
	lease string // once there is one
	ended bool
}

type receipt struct {
	Lease     string       `json:"lease_id"`
	Seconds   int64        `json:"billed_seconds"`
	Rate      policy.Money `json:"price_usd_per_hour"`
	Cost      policy.Money `json:"cost_usd"`
	CloudBill policy.Money `json:"simulated_cloud_bill_usd"`
}

// must calls a tool and decodes its answer; a refusal is a failure of the step.
func (l *loop) must(ctx context.Context, name, tool string, args map[string]any, into any) error {
	began := time.Now()
	a, err := l.agent.Call(ctx, tool, args)
	if err != nil {
		return fmt.Errorf("step %s: %w", name, err)
	}
	l.show.record(name, tool, args, a, began)
	if a.IsError {
		return fmt.Errorf("step %s: %s answered: %s", name, tool, a.Text)
	}
	if err := json.Unmarshal(a.Structured, into); err != nil {
		return fmt.Errorf("step %s: read the answer of %s: %w", name, tool, err)
	}
	return nil
}

func (l *loop) run(ctx context.Context) error {
	l.show.printf("gpulease demo: an agent leases a GPU machine, tests a project on it and gives it back.\n")
	l.show.printf("The cloud is a simulation; the server, the policy, the ledger, SSH and the tests are real. Nothing costs money.\n")
	typ, err := l.capacity(ctx)
	if err != nil {
		return err
	}
	if err := l.decide(ctx, typ); err != nil {
		return err
	}
	if err := l.launch(ctx, typ); err != nil {
		return err
	}
	if err := l.work(ctx); err != nil {
		return err
	}
	return l.stop(ctx)
}

// capacity asks what is free and takes the cheapest GPU that the policy allows.
func (l *loop) capacity(ctx context.Context) (string, error) {
	l.show.head("What is free, and what does it cost?", "list_capacity")
	var o agent.Offers
	if err := l.must(ctx, "list_capacity", "list_capacity", nil, &o); err != nil {
		return "", err
	}
	chosen := ""
	var rows [][4]string
	for _, x := range o.Offers {
		if len(x.Regions) == 0 {
			continue
		}
		verdict := fmt.Sprintf("allowed, up to %d min", x.Longest)
		if !x.Allowed {
			verdict = "denied by " + l.short(x.Rule)
		}
		rows = append(rows, [4]string{x.Type, x.Price.String() + "/h", strings.Join(x.Regions, ","), verdict})
		if chosen == "" && x.Allowed && x.GPUs == 1 {
			chosen = x.Type
		}
	}
	l.show.table(rows)
	if chosen == "" {
		return "", errors.New("step list_capacity: no one-GPU type is free and allowed")
	}
	l.show.line("budget left: %s", o.BudgetLeft)
	return chosen, nil
}

// short names the demo's own files without their directory, which is gone when
// somebody reads it.
func (l *loop) short(text string) string {
	return strings.ReplaceAll(text, l.dir+string(filepath.Separator), "")
}

// decide shows the policy at work: a refusal that costs nothing, then a quote.
func (l *loop) decide(ctx context.Context, typ string) error {
	args := map[string]any{"type": typ, "ttl_minutes": 24 * 60}
	l.show.head("The policy decides before anything is billed", `launch_lease {"type": "`+typ+`", "ttl_minutes": 1440}`)
	began := time.Now()
	a, err := l.agent.Call(ctx, "launch_lease", args)
	if err != nil {
		return fmt.Errorf("step refusal: %w", err)
	}
	l.show.record("refusal", "launch_lease", args, a, began)
	if !a.IsError {
		return errors.New("step refusal: a lease of 24 hours was not refused")
	}
	l.show.quote(l.short(a.Text))

	l.show.head("What would 30 minutes cost at most?", `launch_lease {"type": "`+typ+`", "ttl_minutes": 30, "dry_run": true}`)
	var q agent.Quote
	if err := l.must(ctx, "quote", "launch_lease", map[string]any{"type": typ, "ttl_minutes": 30, "dry_run": true}, &q); err != nil {
		return err
	}
	l.show.line("decision: %s, worst case %s (boot allowance, 30 minutes and a slow stop, all billed)", q.Decision, q.WorstCase)
	if q.Decision != string(policy.Allow) {
		return fmt.Errorf("step quote: the policy says %q: %s", q.Decision, q.Why)
	}
	return nil
}

// bootPatience is how long the demo waits for the simulated machine.
const bootPatience = 2 * time.Minute

func (l *loop) launch(ctx context.Context, typ string) error {
	l.show.head("Launch", `launch_lease {"type": "`+typ+`", "ttl_minutes": 30, "purpose": "demo"}`)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var a agent.Lease
	l.asked = true
	// An interruption waits for this call, which takes seconds: its answer names
	// what there is to give back.
	if err := l.must(context.WithoutCancel(ctx), "launch", "launch_lease", map[string]any{"type": typ, "ttl_minutes": 30, "purpose": "demo"}, &a); err != nil {
		return err
	}
	l.lease = a.Lease
	l.show.line("lease %s is %s; %s reserved", a.Lease, a.State, a.Reserved)
	began := time.Now()
	for a.State != "ready" {
		l.show.progress(a.State+": "+a.Detail, began)
		if time.Since(began) > bootPatience || a.State == "ended" || a.State == "stopping" {
			return fmt.Errorf("step boot: the lease is %s (%s %s) after %s", a.State, a.Reason, a.Detail, time.Since(began).Round(time.Second))
		}
		if err := l.must(ctx, "boot", "get_lease", map[string]any{"lease_id": l.lease, "wait_seconds": 1}, &a); err != nil {
			return err
		}
	}
	l.show.line("ready after %.0f s: %s; deadline %s; guarded by %s", time.Since(began).Seconds(), a.Detail, a.Deadline, a.Guard)
	return nil
}

// jobPatience is how long the project's command may run.
const jobPatience = 10 * time.Minute

func (l *loop) work(ctx context.Context) error {
	l.show.head("The machine", "run_command nvidia-smi")
	var j agent.Job
	if err := l.must(ctx, "nvidia-smi", "run_command", map[string]any{"lease_id": l.lease, "command": "nvidia-smi", "wait_seconds": 20}, &j); err != nil {
		return err
	}
	l.show.quote(j.Stdout)
	if j.Exit == nil || *j.Exit != 0 {
		return fmt.Errorf("step nvidia-smi: exit code %v: %s", j.Exit, j.Stderr)
	}

	name := filepath.Base(l.options.Project)
	l.show.head("Carry the project there", `sync_files {"local_dir": ".", "remote_dir": "`+name+`"}`)
	var p agent.Push
	if err := l.must(ctx, "sync", "sync_files", map[string]any{"lease_id": l.lease, "local_dir": ".", "remote_dir": name}, &p); err != nil {
		return err
	}
	l.show.line("%d files, %d bytes", p.Files, p.Bytes)

	l.show.head("Run its tests there", fmt.Sprintf("run_command {\"command\": %q, \"cwd\": %q}", l.options.Command, name))
	env := map[string]any{}
	for _, kv := range l.options.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	args := map[string]any{"lease_id": l.lease, "command": l.options.Command, "cwd": name, "env": env, "wait_seconds": 1}
	if err := l.must(ctx, "run", "run_command", args, &j); err != nil {
		return err
	}
	if err := l.follow(ctx, j.Job); err != nil {
		return err
	}
	if err := l.must(ctx, "result", "read_output", map[string]any{"job_id": j.Job, "stream": "stderr", "offset": -4000}, &agent.Page{}); err != nil {
		return err
	}
	return nil
}

// follow shows a job's output as it comes, page by page as an agent reads it.
func (l *loop) follow(ctx context.Context, job string) error {
	began := time.Now()
	var offset int64
	cut := &cutter{show: l.show}
	for {
		var p agent.Page
		if err := l.must(ctx, "output", "read_output", map[string]any{"job_id": job, "offset": offset, "wait_seconds": 5}, &p); err != nil {
			return err
		}
		offset = p.Next
		cut.write(p.Data)
		if p.Data == "" {
			l.show.progress("running", began)
		}
		switch {
		case p.EOF && p.State != "running":
			cut.end()
			if p.Exit == nil || *p.Exit != 0 {
				return l.failedJob(ctx, job, p.Exit)
			}
			l.show.line("exit code 0 after %.0f s", time.Since(began).Seconds())
			return nil
		case time.Since(began) > jobPatience:
			return fmt.Errorf("step run: the command has not ended after %s", jobPatience)
		}
	}
}

func (l *loop) failedJob(ctx context.Context, job string, exit *int) error {
	var p agent.Page
	if err := l.must(ctx, "stderr", "read_output", map[string]any{"job_id": job, "stream": "stderr", "offset": -4000}, &p); err != nil {
		return err
	}
	l.show.quote(p.Data)
	if exit == nil {
		return errors.New("step run: the command ended without an exit code")
	}
	return fmt.Errorf("step run: the command exited with %d", *exit)
}

// stopPatience is how long a stop may take to be confirmed.
const stopPatience = time.Minute

func (l *loop) stop(ctx context.Context) error {
	l.show.head("Give it back", `stop_lease {"lease_id": "`+l.lease+`"}`)
	began := time.Now()
	var a agent.Lease
	for a.State != "ended" {
		if err := l.must(ctx, "stop", "stop_lease", map[string]any{"lease_id": l.lease, "wait_seconds": 5}, &a); err != nil {
			return err
		}
		if a.State != "ended" {
			l.show.progress(a.State+": "+a.Detail, began)
			if time.Since(began) > stopPatience {
				return fmt.Errorf("step stop: not confirmed after %s: %s", stopPatience, a.Detail)
			}
		}
	}
	l.ended = true
	r := receipt{Lease: a.Lease, Seconds: a.Seconds, Rate: a.Rate, Cost: a.Cost, CloudBill: policy.Money(l.cloud.Bill().Total)}
	l.show.t.Receipt = &r
	l.show.line("ended (%s): %s", a.Reason, a.Detail)
	l.show.printf("\n== Receipt\n")
	l.show.line("lease      %s", r.Lease)
	l.show.line("billed     %d min (%d s, in whole minutes)", (r.Seconds+59)/60, r.Seconds)
	l.show.line("rate       %s/h", r.Rate)
	l.show.line("cost       %s (settled in the ledger)", r.Cost)
	l.show.line("cloud says %s (the simulated cloud's own bill, never more than the cost)", r.CloudBill)
	if r.CloudBill > r.Cost {
		return fmt.Errorf("step receipt: the cloud bills %s, the ledger has only %s", r.CloudBill, r.Cost)
	}
	return nil
}

// giveBack stops a lease that a failed step has left.
func (l *loop) giveBack(ctx context.Context) error {
	if !l.asked || l.ended {
		return nil
	}
	if l.lease == "" { // the launch has failed; what may have come of it?
		var all agent.Leases
		if err := l.must(ctx, "clean-up", "list_leases", nil, &all); err != nil {
			return err
		}
		if len(all.Leases) == 0 {
			return nil
		}
		l.lease = all.Leases[0].Lease // the demo asks for one only
	}
	return l.stop(ctx)
}

// leftovers fails if anything of the demo still lives in the simulated cloud.
func (l *loop) leftovers() error {
	var errs []error
	for _, i := range l.cloud.Instances() {
		if i.TerminatedAt.IsZero() {
			errs = append(errs, fmt.Errorf("step clean-up: instance %s (%s) is still %s", i.ID, i.Name, i.Status))
		}
	}
	for _, k := range l.cloud.Keys() {
		errs = append(errs, fmt.Errorf("step clean-up: SSH key %s is still in the account", k.Name))
	}
	return errors.Join(errs...)
}
