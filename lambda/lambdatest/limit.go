package lambdatest

import (
	"sync"
	"time"
)

// limiter is the account's rate limit: two token buckets.
type limiter struct {
	mu            sync.Mutex
	reads, starts bucket
}

type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) refill(now time.Time, every time.Duration, burst float64) {
	if b.last.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(burst, b.tokens+float64(d)/float64(every))
	}
	b.last = now
}

// take asks for one request. A refused one costs nothing; wait is when to ask
// again.
func (l *limiter) take(now time.Time, launch bool) (ok bool, wait time.Duration) {
	const requestEvery, launchEvery = time.Second, 12 * time.Second
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads.refill(now, requestEvery, 5)
	l.starts.refill(now, launchEvery, 1)
	const whole = 1 - 1e-9 // what sums of fractions of a second come to
	if l.reads.tokens < whole {
		return false, time.Duration((1 - l.reads.tokens) * float64(requestEvery))
	}
	if launch {
		if l.starts.tokens < whole {
			return false, time.Duration((1 - l.starts.tokens) * float64(launchEvery))
		}
		l.starts.tokens--
	}
	l.reads.tokens--
	return true, 0
}
