package lambda

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// RetryPolicy says how a call that is safe to repeat is repeated. The n-th delay is Initial × Multiplier^n, at most Max,
// give or take Jitter of it; never less than Retry-After.
type RetryPolicy struct {
	Initial    time.Duration // the first delay
	Max        time.Duration // the longest delay
	Multiplier float64       // 1 or more
	Jitter     float64       // 0 to 1
	Elapsed    time.Duration // no repeat starts later than this after the first attempt began; 0 is no repeat at all
}

// DefaultRetry is used when no policy is given.
var DefaultRetry = RetryPolicy{
	Initial: 500 * time.Millisecond, Max: 8 * time.Second, Multiplier: 2, Jitter: 0.5, Elapsed: 30 * time.Second,
}

// NoRetry sends each request once.
var NoRetry = RetryPolicy{}

func (p RetryPolicy) check() error {
	if p == NoRetry {
		return nil
	}
	if p.Initial <= 0 || p.Max < p.Initial || p.Multiplier < 1 || p.Jitter < 0 || p.Jitter > 1 || p.Elapsed < 0 {
		return fmt.Errorf("retry policy %+v is not sensible", p)
	}
	return nil
}

// delays is the policy's backoff, with what the last answer asked for.
type delays struct {
	backoff.BackOff
	started    time.Time
	elapsed    time.Duration
	retryAfter time.Duration
}

func (d *delays) NextBackOff() time.Duration {
	next := d.BackOff.NextBackOff()
	if next == backoff.Stop {
		return backoff.Stop
	}
	next = max(next, d.retryAfter)
	if time.Since(d.started)+next > d.elapsed {
		return backoff.Stop
	}
	return next
}

// repeat calls attempt until it succeeds, fails for good, or the policy is used up. The error says that the call may have
// happened when any of the attempts may have.
func (c *Client) repeat(ctx context.Context, safe bool, attempt func() *Error) *Error {
	if !safe || c.retry.Elapsed <= 0 {
		return attempt()
	}
	p := c.retry
	d := &delays{started: time.Now(), elapsed: p.Elapsed, BackOff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(p.Initial), backoff.WithMaxInterval(p.Max), backoff.WithMultiplier(p.Multiplier),
		backoff.WithRandomizationFactor(p.Jitter), backoff.WithMaxElapsedTime(p.Elapsed))}
	outcome := NothingHappened
	var last *Error
	err := backoff.Retry(func() error {
		e := attempt()
		if e == nil {
			last = nil
			return nil
		}
		if e.Outcome == MayHaveHappened {
			outcome = MayHaveHappened
		}
		if last != nil && e.Status == 0 && ctx.Err() != nil {
			e = last // the caller gave up while we repeated: the answer that we had tells more
		}
		last, d.retryAfter = e, e.RetryAfter
		if !e.again {
			return backoff.Permanent(e)
		}
		return e
	}, backoff.WithContext(d, ctx))
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(last.Err, ctxErr) {
		last.Err = errors.Join(ctxErr, last.Err)
	}
	if outcome == MayHaveHappened {
		last.Outcome = MayHaveHappened
	}
	return last
}
