package lease

import (
	"context"
	"sync"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// maxTrustedSkew is how far our clock may be from the cloud's before the
// cloud's is taken instead; readings within it agree.
const maxTrustedSkew = time.Minute

// wallClock corrects our clock by the cloud's. One answer proves nothing, since
// a date can be wrong there too: a correction needs two answers that agree.
type wallClock struct {
	now   func() time.Time
	cloud interface {
		ClockSkew() (skew time.Duration, answer uint64)
	}
	fresh time.Duration // how long an agreement lasts

	mu      sync.Mutex
	skew    time.Duration // in force
	read    time.Duration // the newest reading
	exact   time.Duration // the same, however small
	answer  uint64        // which answer that was
	doubt   bool          // the newest reading contradicts what is in force
	checked time.Time     // when a good answer last agreed, by the corrected clock
}

func near(a, b time.Duration) bool { return (a - b).Abs() <= maxTrustedSkew }

// observe takes in the clock of an answer that has just come. One that was taken in
// before says nothing of the time now: our clock may have jumped since.
func (c *wallClock) observe() {
	s, answer := c.cloud.ClockSkew()
	exact := s
	if s.Abs() <= maxTrustedSkew {
		s = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer == c.answer {
		return
	}
	c.answer = answer
	switch {
	case near(s, c.skew):
		c.doubt = false
	case c.doubt && near(s, c.read):
		c.skew, c.doubt = s, false
	default:
		c.doubt = true
	}
	c.read, c.exact = s, exact
	if !c.doubt {
		c.checked = c.at(c.skew)
	}
}

// at is wall time in UTC without a monotonic part (a laptop sleeps), in whole
// milliseconds as stored.
func (c *wallClock) at(skew time.Duration) time.Time {
	return c.now().Add(skew).Round(0).UTC().Truncate(time.Millisecond)
}

// time is our time, corrected where the cloud's says that ours is wrong.
func (c *wallClock) time() time.Time {
	c.mu.Lock()
	skew := c.skew
	c.mu.Unlock()
	return c.at(skew)
}

// readingError is how far a reading may be off: dates have whole seconds.
const readingError = time.Second

// off is by how much the cloud's clock was last seen ahead of our time, within what is
// trusted: less than a minute, which is nothing for a deadline and something on a bill.
func (c *wallClock) off() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	off := c.exact - c.skew
	if off.Abs() <= readingError {
		return 0
	}
	return min(max(off, -maxTrustedSkew), maxTrustedSkew)
}

// sure reports whether the cloud has just agreed with our time. Where it has
// not, a clock may have jumped since.
func (c *wallClock) sure() bool {
	now := c.time()
	c.mu.Lock()
	defer c.mu.Unlock()
	since := now.Sub(c.checked)
	return !c.doubt && !c.checked.IsZero() && since >= 0 && since <= c.fresh
}

func (m *Manager) now() time.Time   { return m.clock.time() }
func (m *Manager) timeIsSure() bool { return m.clock.sure() }
func (m *Manager) observe()         { m.clock.observe() }

// askTime makes sure of the time before something is dated by it.
func (m *Manager) askTime(ctx context.Context) error {
	for range 3 {
		if m.timeIsSure() {
			return nil
		}
		if _, err := m.Cloud.Instances(ctx); err != nil {
			return cloudError("ask the cloud for the time", "", err)
		}
		m.observe()
	}
	if m.timeIsSure() {
		return nil
	}
	return &Error{
		Code: CodeCloudUnavailable, Message: "the time is not certain, so nothing was launched", Why: "the cloud's answers and this computer's clock contradict each other",
		Next: "check this computer's clock, then call again", Retryable: true,
	}
}

func (m *Manager) periods(p *policy.Policy, now time.Time) Periods {
	d, w, mo := p.PeriodStarts(now)
	return Periods{Day: d, Week: w, Month: mo}
}
