// Package smoke is the live check: it leases the cheapest machine there is, for
// a few minutes and real money, works on it as an agent would, gives it back and
// proves that nothing is left behind.
//
// A run has a state directory, a ledger and a policy of its own, so it can end
// everything that it has begun without touching other leases. The user's own
// policy and budget are asked first, and an amount that the user names bounds the
// whole run. Clean-up is armed before the first change: whatever happens after
// that (a failure, a signal, a panic), every lease of the run is stopped and the
// account is searched for what is left. Should the process be killed outright,
// the keeper that the server has started ends the lease at its deadline.
//
// It measures nothing and repeats nothing: one run, one classification.
package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Classification is the outcome of a run.
type Classification string

// The classifications. Those that are blocked say nothing about gpulease: it
// could not be tried.
const (
	Passed             Classification = "passed"
	EnvironmentBlocked Classification = "environment_blocked" // settings, network, key, policy, or interrupted
	BillingBlocked     Classification = "billing_blocked"     // the account's standing, or more than was allowed
	QuotaBlocked       Classification = "quota_blocked"       // Lambda's limits
	CapacityBlocked    Classification = "capacity_blocked"    // nothing that is allowed is free
	ValidationFailed   Classification = "validation_failed"   // something did not work as promised
	CleanUpFailed      Classification = "cleanup_failed"      // something may still cost money
)

// ExitCode is 0 for passed, 1 for what failed, 3 where something may still cost
// money, and 4 for what was blocked.
func (c Classification) ExitCode() int {
	switch c {
	case Passed:
		return 0
	case ValidationFailed:
		return 1
	case CleanUpFailed:
		return 3
	}
	return 4
}

// Options say what is checked, with what and for how much. All of them but Type
// are required.
type Options struct {
	Live  bool         // the user has said that real money may be spent
	Limit policy.Money // the most that the run may cost
	Type  string       // instance type; "" is the cheapest that is allowed and free
	TTL   time.Duration

	Settings error        // what is wrong with the settings; nil when nothing is
	Cloud    doctor.Cloud // reads only
	Doctor   func(context.Context) (doctor.Report, error)
	// Policy, Principal and LedgerPath are the user's own. A launch has to pass
	// them, too.
	Policy     lease.PolicySource
	Principal  string
	LedgerPath string

	Binary   string           // the gpulease binary
	Env      []string         // of the processes that are started; what the run sets itself is added
	StateDir string           // the run's own state directory is made in it
	Detach   func(*exec.Cmd)  // puts a process beyond the reach of our terminal's signals
	Secrets  []string         // never shown
	Version  string           // of this program
	Now      func() time.Time // for ledger periods

	JobTime   time.Duration // how long the detached job runs
	CleanTime time.Duration // how long a stop may take to be confirmed
	// Step is called as each step begins; for tests. It may be nil.
	Step func(name string)
}

// blocked is an error that knows its classification.
type blocked struct {
	as  Classification
	err error
}

func (b *blocked) Error() string { return b.err.Error() }
func (b *blocked) Unwrap() error { return b.err }

func blockf(as Classification, format string, args ...any) error {
	return &blocked{as, fmt.Errorf(format, args...)}
}

// run is one run.
type run struct {
	Options
	out    io.Writer
	redact func(string) string

	dir    string // of this run: state, policy and home of files
	armed  bool   // from here on there may be something to clean up
	server *agent.Agent

	lease string
	worst policy.Money
	cost  policy.Money
}

// Run does the check and says how it came out, on out, a line a step. The last
// line is "classification=" and the result, whatever happens.
func Run(ctx context.Context, o Options, out io.Writer) (c Classification) {
	r := &run{Options: o, out: out, redact: redactor(o.Secrets)}
	defer func() { fmt.Fprintf(out, "classification=%s\n", c) }()

	err := r.guarded(ctx, "check", r.check)
	if err != nil {
		r.say("failed", "%v", err)
	}
	if r.armed {
		if err := r.guarded(context.WithoutCancel(ctx), "clean-up", r.cleanUp); err != nil {
			r.say("clean-up", "FAILED: %v", err)
			r.say("clean-up", "something may still cost money; try: %s; and look at https://cloud.lambda.ai", r.byHand())
			return CleanUpFailed
		}
		if err == nil {
			if err = r.checkCost(); err != nil {
				r.say("failed", "%v", err)
			}
		}
	}
	if err != nil {
		return r.classify(ctx, err)
	}
	r.say("passed", "it cost %s of at most %s", r.cost, r.worst)
	return Passed
}

// byHand is the command that ends what the run has begun. It names the ledger,
// since the user's environment may name another one.
func (r *run) byHand() string {
	return fmt.Sprintf("gpulease --state-dir %s --ledger %s stop --all", doctor.Quote(r.stateDir()), doctor.Quote(r.ledger()))
}

func (r *run) classify(ctx context.Context, err error) Classification {
	var b *blocked
	switch {
	case ctx.Err() != nil:
		return EnvironmentBlocked // interrupted: that says nothing about gpulease
	case errors.As(err, &b):
		return b.as
	}
	return ValidationFailed
}

// guarded makes an error of a panic, so that the clean-up is never skipped.
func (r *run) guarded(ctx context.Context, what string, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.say("panic", "%v\n%s", p, debug.Stack())
			err = fmt.Errorf("%s: panic: %v", what, p)
		}
	}()
	return f(ctx)
}

// check is everything up to the stop. Nothing is changed before armed is set.
func (r *run) check(ctx context.Context) error {
	r.step("settings")
	if err := r.settings(); err != nil {
		return err
	}
	r.step("doctor")
	if err := r.doctor(ctx); err != nil {
		return err
	}
	r.step("choose")
	candidates, err := r.choose(ctx)
	if err != nil {
		return err
	}
	if err := r.setUp(candidates); err != nil {
		return err
	}
	return r.loop(ctx, candidates)
}

func (r *run) settings() error {
	switch {
	case !r.Live:
		return blockf(EnvironmentBlocked, "this check spends real money: set GPULEASE_LIVE=1 to say that it may")
	case r.Settings != nil:
		return &blocked{EnvironmentBlocked, r.Settings}
	case r.Limit <= 0:
		return blockf(EnvironmentBlocked, "--limit-usd is needed: the most that the check may cost, in dollars")
	case r.TTL < time.Minute || r.TTL%time.Minute != 0:
		return blockf(EnvironmentBlocked, "--ttl has to be whole minutes")
	}
	return nil
}

func (r *run) doctor(ctx context.Context) error {
	report, err := r.Doctor(ctx)
	if err != nil {
		return &blocked{EnvironmentBlocked, fmt.Errorf("doctor: %w", err)}
	}
	for _, l := range report.Lines {
		if l.Finding != doctor.OK {
			r.say("doctor", "%s %s: %s", l.Finding, l.Check, l.Text)
		}
	}
	r.say("doctor", "%s", report.Summary())
	// What this launch may cost is decided below, exactly.
	report.Lines = withoutBudget(report.Lines)
	class, failed := report.Failed()
	if !failed {
		return nil
	}
	as := EnvironmentBlocked
	switch class {
	case doctor.Billing:
		as = BillingBlocked
	case doctor.Quota:
		as = QuotaBlocked
	case doctor.Capacity:
		as = CapacityBlocked
	}
	return blockf(as, "doctor found what has to be mended first (%s)", class)
}

func withoutBudget(lines []doctor.Line) []doctor.Line {
	var out []doctor.Line
	for _, l := range lines {
		if l.Check != "budget" {
			out = append(out, l)
		}
	}
	return out
}

// setUp makes the run's own directory and arms the clean-up.
func (r *run) setUp(candidates []candidate) error {
	if err := os.MkdirAll(r.StateDir, 0o700); err != nil {
		return &blocked{EnvironmentBlocked, fmt.Errorf("make the state directory: %w", err)}
	}
	dir, err := os.MkdirTemp(r.StateDir, "smoke-")
	if err != nil {
		return &blocked{EnvironmentBlocked, fmt.Errorf("make the run's directory: %w", err)}
	}
	r.dir, r.armed = dir, true
	for _, d := range []string{r.stateDir(), r.home()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return &blocked{EnvironmentBlocked, fmt.Errorf("make the run's directory: %w", err)}
		}
	}
	if err := os.WriteFile(r.policyPath(), []byte(r.policyText(candidates)), 0o600); err != nil {
		return &blocked{EnvironmentBlocked, fmt.Errorf("write the run's policy: %w", err)}
	}
	r.say("armed", "clean-up is armed; should this process be killed, run: %s", r.byHand())
	return nil
}

func (r *run) step(name string) {
	if r.Step != nil {
		r.Step(name)
	}
}

// say writes a line, or a few, without secrets.
func (r *run) say(step, format string, args ...any) {
	fmt.Fprintf(r.out, "%s: %s\n", step, r.redact(fmt.Sprintf(format, args...)))
}
