package tools

import (
	"context"
	"sync"
	"time"
)

// settle is the silence between the last progress note and the result. Clients
// in the wild lose a note, or the result, if both arrive in one read; 2 ms were
// enough in all measurements.
const settle = 20 * time.Millisecond

// Reporter sends progress notes of one call to whoever asked for them. All
// methods may be called on a nil Reporter and from any goroutine; they never
// block longer than send.
type Reporter struct {
	send  func(progress float64, message string)
	every time.Duration

	mu      sync.Mutex
	start   time.Time
	noted   time.Time // when the last note was sent
	last    float64
	settled bool
}

// NewReporter makes a reporter that calls send, one call at a time, at most once
// in every. progress is the seconds since now and increases from note to note.
func NewReporter(every time.Duration, send func(progress float64, message string)) *Reporter {
	return &Reporter{send: send, every: every, start: time.Now()}
}

// Note tells where the call stands, for people: "booting, 40 s". A note too soon
// after the one before it is dropped, as is one after the call's answer.
func (r *Reporter) Note(message string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.settled || (!r.noted.IsZero() && now.Sub(r.noted) < r.every) {
		return
	}
	r.last = max(now.Sub(r.start).Round(time.Millisecond).Seconds(), r.last+0.001)
	r.send(r.last, message)
	r.noted = time.Now()
}

// KeepAlive notes what say gives whenever nothing has been noted for so long, for hosts
// that give up on a call in silence. stop ends it and returns when it has ended.
func (r *Reporter) KeepAlive(quiet time.Duration, say func(since time.Duration) string) (stop func()) {
	if r == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(quiet)
		defer timer.Stop()
		for {
			select {
			case <-end:
				return
			case <-timer.C:
			}
			left := quiet - r.silence()
			if left <= 0 {
				r.Note(say(time.Since(r.start)))
				left = quiet
			}
			timer.Reset(left)
		}
	}()
	var once sync.Once
	return func() { once.Do(func() { close(end) }); <-ended }
}

// silence is how long nothing has been noted.
func (r *Reporter) silence() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.noted.IsZero() {
		return time.Since(r.start)
	}
	return time.Since(r.noted)
}

// Settle ends the notes and waits until the result may be sent.
func (r *Reporter) Settle() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.settled = true
	noted := r.noted
	r.mu.Unlock()
	if !noted.IsZero() {
		time.Sleep(time.Until(noted.Add(settle)))
	}
}

type reporterKey struct{}

// WithReporter gives ctx a reporter.
func WithReporter(ctx context.Context, r *Reporter) context.Context {
	return context.WithValue(ctx, reporterKey{}, r)
}

// Progress is the call's reporter. Where the client asked for no progress, it is
// nil and its methods do nothing.
func Progress(ctx context.Context) *Reporter {
	r, _ := ctx.Value(reporterKey{}).(*Reporter)
	return r
}
