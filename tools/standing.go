package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// standing is where a lease stands; it is part of every answer about one. The
// schemas, which are sent to the model with every request, leave out what needs
// no telling.
type standing struct {
	LeaseID      lease.ID      `json:"lease_id,omitempty"`
	State        string        `json:"state,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	Detail       string        `json:"detail,omitempty"`
	InstanceType string        `json:"instance_type,omitempty" jsonschema:"-"`
	Region       string        `json:"region,omitempty" jsonschema:"-"`
	Price        *policy.Money `json:"price_usd_per_hour,omitempty"`
	Cost         *policy.Money `json:"cost_usd,omitempty"`
	Reserved     *policy.Money `json:"reserved_usd,omitempty"`
	Deadline     string        `json:"deadline,omitempty"`
	MinutesLeft  *int          `json:"minutes_left,omitempty" jsonschema:"-"` // models have no clock
	Guard        string        `json:"guard,omitempty" jsonschema:"-"`
	AgainAs      lease.ID      `json:"launched_again_as,omitempty" jsonschema:"-"` // its machine was sick
}

// advice is what to know and to do beside the answer, in every answer.
type advice struct {
	BudgetLeft *policy.Money `json:"budget_left_usd,omitempty"` // absent where no budget is set
	Warnings   []string      `json:"warnings,omitempty"`
	Next       step          `json:"next"`
}

// lines are the warnings and the next step as text.
func (a advice) lines() string {
	text := ""
	for _, w := range a.Warnings {
		text += "\nwarning: " + w
	}
	return text + "\nnext: " + a.Next.Text
}

func standingOf(s lease.Status) standing {
	l := s.Lease
	o := standing{
		LeaseID: l.ID, State: string(l.State), Reason: string(l.Reason), Detail: short(l.Detail, seen),
		InstanceType: l.Type, Region: l.Region,
		Price: &l.Price, Cost: &s.Cost, Reserved: &l.Reserved, Guard: s.Guard, AgainAs: s.SecondTry,
	}
	if l.State != lease.Ended && !l.Deadline.IsZero() {
		o.Deadline = clock(l.Deadline)
		left := max(0, int(l.Deadline.Sub(s.At)/time.Minute))
		o.MinutesLeft = &left
	}
	return o
}

func adviceOf(s lease.Status, next step) advice {
	return advice{BudgetLeft: limited(s.BudgetLeft), Warnings: s.Warnings, Next: next}
}

// line is the lease in one line, for people.
func (o standing) line() string {
	text := fmt.Sprintf("%s %s: %s", o.LeaseID, o.InstanceType, o.State)
	if o.Region != "" {
		text = fmt.Sprintf("%s %s in %s: %s", o.LeaseID, o.InstanceType, o.Region, o.State)
	}
	if o.Reason != "" {
		text += " (" + o.Reason + ")"
	}
	switch {
	case o.Cost == nil || o.Price == nil:
	case o.State == string(lease.Ended):
		text += fmt.Sprintf(", cost %s", *o.Cost)
	default:
		text += fmt.Sprintf(", %s so far at %s/h", *o.Cost, *o.Price)
	}
	if o.MinutesLeft != nil && o.State != string(lease.Stopping) { // what is being stopped has no time left, whatever its deadline was
		text += fmt.Sprintf(", %d min left (%s)", *o.MinutesLeft, o.Deadline)
	}
	if o.Detail != "" && o.Detail != o.State {
		text += "; " + o.Detail
	}
	return text
}

// limited is nil for an amount without a limit: a budget that is not set is not
// a number.
func limited(m policy.Money) *policy.Money {
	if m == policy.Unlimited {
		return nil
	}
	return &m
}

// plural counts things for people: "1 file", "2 files".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func clock(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// statusTime bounds the look at the ledger for an answer whose own time is up.
const statusTime = 500 * time.Millisecond

// status asks for a lease's status also at the end of a call's time: an answer
// without it would leave the agent guessing.
func status(ctx context.Context, r Reader, l lease.Lease) lease.Status {
	if ctx.Err() != nil {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTime)
		defer cancel()
		ctx = detached
	}
	return r.Status(ctx, l)
}

// nextFor is the call that usually follows in a lease's state.
func nextFor(l lease.Lease) step {
	wait := with{"lease_id": l.ID, "wait_seconds": 45}
	switch l.State {
	case lease.Ready:
		return say("run_command or sync_files with lease_id %q; stop_lease when you are done", l.ID)
	case lease.Stopping:
		return then("stop_lease", with{"lease_id": l.ID}, "stop_lease with lease_id %q again until its state is ended", l.ID)
	case lease.Ended:
		return say("nothing; launch_lease for a new machine")
	case lease.AwaitingApproval:
		if !l.ApprovedAt.IsZero() {
			return then("get_lease", wait, "get_lease with lease_id %q and wait_seconds 45: it was approved and is about to be launched", l.ID)
		}
		return then("get_lease", wait, "ask a person to run, by %s: gpulease approve %s (or gpulease deny); get_lease with lease_id %q and wait_seconds 45 waits for it", clock(l.DecideBy), l.ID, l.ID)
	default:
		return then("get_lease", wait, "get_lease with lease_id %q and wait_seconds 45 until its state is ready; stop_lease to give up", l.ID)
	}
}

// ofLease puts the lease into an error that does not name it: after a launch no
// error may leave the agent without the handle of what costs money.
func ofLease(err error, id lease.ID) error {
	var known *lease.Error
	if id == "" || err == nil || (errors.As(err, &known) && known.LeaseID != "") {
		return err
	}
	e := *Explain(err, nil)
	if known == nil {
		e.Err = err
	}
	e.LeaseID = id
	return &e
}

// watch waits for a lease and tells the client what it is doing meanwhile.
func watch(ctx context.Context, r Reader, id lease.ID, seconds int, done func(lease.Lease) bool) (lease.Lease, error) {
	progress := Progress(ctx)
	return r.Wait(ctx, id, Wait(ctx, seconds), func(l lease.Lease) bool {
		if done(l) {
			return true
		}
		progress.Note(strings.TrimSuffix(string(l.State)+": "+l.Detail, ": "))
		return false
	})
}
