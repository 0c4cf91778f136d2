package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// rebindEvery is how often a process that has no lease of its own key looks whether
// its account has the machines of others.
const rebindEvery = time.Minute

// lookForOthers lists the account for the sake of leases that were launched with
// another API key.
func (r *reconciler) lookForOthers(ctx context.Context, account string) error {
	m := r.m
	now := m.now()
	since := now.Sub(r.listed)
	if !slices.ContainsFunc(r.others, func(l Lease) bool { return l.unseen(now) }) || since >= 0 && since < rebindEvery {
		return nil
	}
	r.listed = now
	ctx, cancel := context.WithTimeout(ctx, listingCall)
	defer cancel()
	instances, err := m.Cloud.Instances(ctx)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	m.observe()
	return r.rebind(ctx, account, instances)
}

// expireOthers ends what nothing was launched for, which needs no key: the one that it was
// asked for with may never be used again.
func (r *reconciler) expireOthers(ctx context.Context) error {
	due := func(l Lease) bool {
		why, _ := r.overdue(l, r.m.now())
		return l.LaunchSentAt.IsZero() && why != ""
	}
	if !slices.ContainsFunc(r.others, due) {
		return nil
	}
	if err := r.m.askTime(ctx); err != nil {
		return err
	}
	for _, l := range r.others {
		if due(l) {
			r.expire(ctx, l, r.m.now())
		}
	}
	return nil
}

// unseen reports whether nobody has seen the lease's machine for so long that
// whoever has the key that launched it cannot use it any more.
func (l Lease) unseen(now time.Time) bool {
	last := l.LaunchSentAt
	if l.SeenAt.After(last) {
		last = l.SeenAt
	}
	return !last.IsZero() && now.Sub(last) >= loudUnseen
}

// rebind binds leases to our API key whose own key is not used any more, revoked
// say, where a listing under ours shows their very machines, by the id and the
// signed name that nothing else has. That proves that it is the same account; a
// listing without them proves nothing.
func (r *reconciler) rebind(ctx context.Context, account string, instances []lambda.Instance) error {
	now := r.m.now()
	var errs []error
	for _, l := range r.others {
		if inst := findInstance(l, instances); inst == nil || !l.owns(*inst) || !l.unseen(now) {
			continue
		}
		l.Account = account
		_, err := r.m.Store.Update(ctx, l, "bound to another API key of the same account")
		switch {
		case err == nil:
			r.m.log.Warn("a lease is bound to another API key of the same account", "lease", l.ID)
			r.m.nudge()
		case !errors.Is(err, ErrConflict):
			errs = append(errs, fmt.Errorf("bind lease %s to another API key: %w", l.ID, err))
		}
	}
	return errors.Join(errs...)
}
