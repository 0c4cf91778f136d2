package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// Reaper ends instances of gpulease whose hard stop has passed. It needs no state
// but the API key: the signed name of an instance says that it is ours, and when
// it must be gone. It is a second enforcer, for another machine or a timer, and it
// can end nothing that is not ours.
type Reaper struct {
	Cloud  Cloud
	Now    func() time.Time
	Wait   time.Duration // how long to wait until the ends are confirmed, default 3 min
	Poll   time.Duration // between two listings meanwhile, default 5 s
	Logger *slog.Logger  // default: nothing is logged
}

// Reaped is an instance of ours.
type Reaped struct {
	Name     Name
	Instance string
	Type     string
	Region   string
	Price    policy.Money // per hour
	Err      error        // why its end is not confirmed; nil for one that is gone, or not due
}

// Reaping is what a Reaper has seen and done.
type Reaping struct {
	Ended       []Reaped // their hard stop had passed; the cloud shows them as gone
	Unconfirmed []Reaped // the same, but the cloud still shows them: MONEY IS STILL BEING SPENT
	Alive       []Reaped // ours, of whatever ledger, and not due
	Others      int      // instances that are not provably ours; never touched
	At          time.Time
}

const (
	reapWait = 3 * time.Minute
	reapPoll = 5 * time.Second
)

// Reap looks once and ends what is due. It fails where the account could not be
// listed or the time is in doubt; what could not be ended is in the result.
func (r Reaper) Reap(ctx context.Context) (Reaping, error) {
	if r.Wait <= 0 {
		r.Wait = reapWait
	}
	if r.Poll <= 0 {
		r.Poll = reapPoll
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	clock := &wallClock{now: r.Now, cloud: r.Cloud, fresh: time.Minute}
	instances, err := r.look(ctx, clock)
	if err != nil {
		return Reaping{}, err
	}
	out := Reaping{At: clock.time()}
	var due []Reaped
	for _, inst := range instances {
		if inst.Status == lambda.StatusTerminated {
			continue
		}
		n, ours, err := signedName(ctx, r.Cloud, inst)
		if err != nil {
			return out, fmt.Errorf("check the name of instance %s: %w", inst.ID, err)
		}
		if !ours {
			out.Others++
			continue
		}
		x := Reaped{Name: n, Instance: inst.ID, Type: inst.InstanceType.Name, Region: inst.Region.Name, Price: policy.Cents(int64(inst.InstanceType.PriceCentsPerHour))}
		if out.At.Before(n.HardStop) {
			out.Alive = append(out.Alive, x)
			continue
		}
		due = append(due, x)
	}
	out.Ended, out.Unconfirmed = r.end(ctx, clock, due)
	return out, nil
}

// look lists the account until the time is sure: one wrong date must not end
// what is not due.
func (r Reaper) look(ctx context.Context, clock *wallClock) ([]lambda.Instance, error) {
	for range blindAfter {
		instances, err := r.list(ctx)
		if err != nil {
			return nil, err
		}
		clock.observe()
		if clock.sure() {
			return instances, nil
		}
	}
	return nil, errors.New("the cloud's answers and this computer's clock contradict each other, so nothing was ended")
}

func (r Reaper) list(ctx context.Context) ([]lambda.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, listingCall)
	defer cancel()
	instances, err := r.Cloud.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	return instances, nil
}

// end asks for the end of each and waits until two good listings in a row show
// none of them as running.
func (r Reaper) end(ctx context.Context, clock *wallClock, due []Reaped) (ended, left []Reaped) {
	if len(due) == 0 {
		return nil, nil
	}
	until := clock.time().Add(r.Wait)
	absent := make([]int, len(due))
	tries := make([]stopTry, len(due))
	for {
		open := 0
		for i := range due {
			if absent[i] >= confirmations {
				continue
			}
			open++
			if now := clock.time(); !now.Before(tries[i].next) {
				tries[i].wait = min(max(2*tries[i].wait, 15*time.Second), maxStopRetry)
				tries[i].next = now.Add(tries[i].wait)
				due[i].Err = r.terminate(ctx, due[i])
			}
		}
		if open == 0 || ctx.Err() != nil || !clock.time().Before(until) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.Poll):
		}
		instances, err := r.list(ctx)
		if err != nil {
			r.Logger.Warn("reap", "err", err)
			continue // proves nothing
		}
		clock.observe()
		for i := range due {
			if gone(instances, due[i].Instance) {
				absent[i]++
			} else {
				absent[i] = 0
			}
		}
	}
	for i, x := range due {
		if absent[i] >= confirmations {
			x.Err = nil
			ended = append(ended, x)
			continue
		}
		if x.Err == nil {
			x.Err = fmt.Errorf("the cloud has accepted the end and still shows it after %s", r.Wait)
		}
		left = append(left, x)
	}
	return ended, left
}

// confirmations is how many good listings in a row have to show an end.
const confirmations = 2

// terminate asks for one end: a batch would fail as a whole.
func (r Reaper) terminate(ctx context.Context, x Reaped) error {
	r.Logger.Warn("its hard stop has passed; ending it", "lease", x.Name.Lease, "instance", x.Instance, "hard_stop", x.Name.HardStop)
	ctx, cancel := context.WithTimeout(ctx, terminateCall)
	defer cancel()
	if _, err := r.Cloud.Terminate(ctx, x.Instance); err != nil && !lambda.IsCode(err, lambda.CodeObjectDoesNotExist) {
		return fmt.Errorf("end instance %s: %w", x.Instance, err)
	}
	return nil
}

func gone(instances []lambda.Instance, id string) bool {
	for _, inst := range instances {
		if inst.ID == id {
			return inst.Status == lambda.StatusTerminated
		}
	}
	return true
}

// reaperFresh is how old a reaper's last visit may be for it to count as a guard.
const reaperFresh = 15 * time.Minute

// reaperSeen reports whether a reaper has visited this store lately.
func (m *Manager) reaperSeen(ctx context.Context) bool {
	for _, g := range m.guards(ctx) {
		if isReaper(g) && m.now().Sub(g.Seen) <= reaperFresh {
			return true
		}
	}
	return false
}
