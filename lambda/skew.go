package lambda

import (
	"net/http"
	"sync"
	"time"
)

// skew keeps the newest difference between the service's clock and ours.
type skew struct {
	mu      sync.Mutex
	d       time.Duration
	answers uint64 // that had a date
}

// note reads the Date header of an answer to a request that was sent and answered at the given local times.
func (s *skew) note(h http.Header, sent, answered time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || h.Get("Age") != "" { // an answer from a cache has an old date
		return
	}
	// Without Round, Sub would use the monotonic clock, which stands still while a laptop sleeps.
	sent, answered = sent.Round(0), answered.Round(0)
	took := answered.Sub(sent)
	d := date.Add(500 * time.Millisecond).Sub(sent.Add(took / 2)) // the header has whole seconds
	if d.Abs() <= took.Abs()/2+500*time.Millisecond {
		d = 0 // no more than what nobody can tell
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.d = d
	s.answers++
}

func (s *skew) get() (time.Duration, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.d, s.answers
}
