package lambda_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gpulease/gpulease/lambda"
)

// strictCloud answers after a latency, and with 429 whatever comes sooner than Lambda's limits allow.
type strictCloud struct {
	latency time.Duration

	mu         sync.Mutex
	last       time.Time
	lastLaunch time.Time
	load       load
}

// load is what a cloud saw and what its clients felt.
type load struct {
	requests, tooMany, types, launches int // at the cloud
	answers                            int // to the agents
	terminateWorst, terminateMean      time.Duration
}

func (s *strictCloud) RoundTrip(r *http.Request) (*http.Response, error) {
	ok := s.arrive(r.URL.Path)
	select {
	case <-time.After(s.latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if !ok {
		return reply(429, envelope("global/rate-limited", "slow down", "")), nil
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/instance-types"):
		return reply(200, documentTypes), nil
	case strings.HasSuffix(r.URL.Path, "/launch"):
		return reply(200, `{"data":{"instance_ids":["`+idInstance+`"]}}`), nil
	case strings.HasSuffix(r.URL.Path, "/terminate"):
		return reply(200, `{"data":{"terminated_instances":[`+documentInstance+`]}}`), nil
	}
	return reply(200, `{"data":[`+documentInstance+`]}`), nil
}

func (s *strictCloud) arrive(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.load.requests++
	ok := now.Sub(s.last) >= time.Second
	s.last = now
	switch {
	case strings.HasSuffix(path, "/instance-types"):
		s.load.types++
	case strings.HasSuffix(path, "/launch"):
		s.load.launches++
		ok = ok && now.Sub(s.lastLaunch) >= 12*time.Second
		s.lastLaunch = now
	}
	if !ok {
		s.load.tooMany++
	}
	return ok
}

func (s *strictCloud) stats() load {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load
}

// hundredAgents runs in a synctest bubble. For the given time 100 goroutines ask for capacity every quarter of a second, 20
// list instances, 5 launch, and every 5 s one terminates.
func hundredAgents(t *testing.T, ctx context.Context, during time.Duration) load {
	cloud := &strictCloud{latency: 200 * time.Millisecond}
	c := newClient(t, cloud, lambda.WithLimiter(lambda.NewPacer(lambda.PacerConfig{})), lambda.WithRetry(lambda.DefaultRetry))
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()

	var mu sync.Mutex
	var answers int
	var terminates []time.Duration
	var wg sync.WaitGroup
	loop := func(every time.Duration, do func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				do()
				// Not a ticker: under the race detector of Go 1.26 thousands of ticks in one bubble can crash the runtime.
				time.Sleep(every)
			}
		})
	}
	good := func(err error) bool {
		return ctx.Err() == nil && assert.NoError(t, err)
	}
	for range 100 {
		loop(250*time.Millisecond, func() {
			if _, err := c.InstanceTypes(ctx); good(err) {
				mu.Lock()
				answers++
				mu.Unlock()
			}
		})
	}
	for range 20 {
		loop(time.Second, func() { _, err := c.Instances(ctx); good(err) })
	}
	for range 5 {
		loop(time.Second, func() { _, err := c.Launch(ctx, goodLaunch()); good(err) })
	}
	loop(5*time.Second, func() {
		start := time.Now()
		if _, err := c.Terminate(ctx, idInstance); good(err) {
			mu.Lock()
			terminates = append(terminates, time.Since(start))
			mu.Unlock()
		}
	})
	wg.Wait()

	got := cloud.stats()
	got.answers = answers
	for _, d := range terminates {
		got.terminateWorst = max(got.terminateWorst, d)
		got.terminateMean += d / time.Duration(len(terminates))
	}
	return got
}
