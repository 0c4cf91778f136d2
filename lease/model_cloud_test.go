package lease_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// edgeTransport is the way from a process to the cloud and back. A request that is
// under way arrives, whatever becomes of its sender.
type edgeTransport struct {
	p   *process
	sim *lambdatest.Server
}

func (t *edgeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	p, w := t.p, t.p.w
	if err := p.step(); err != nil {
		return nil, err
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	w.asked(p, r.URL.Path, body)
	lost := pause(ctx, p.random(w.s.Setup.Lag)) != nil
	if lost { // too late to call it back, and nobody waits for the answer
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Millisecond)
		defer cancel()
		r = r.WithContext(late)
	}
	served := time.Now()
	resp, err := t.sim.Transport().RoundTrip(r)
	w.answered(p, t.sim, r.URL.Path, body, served, resp, err)
	if !lost {
		lost = pause(ctx, p.random(w.s.Setup.Lag)) != nil
	}
	if dead := p.step(); dead != nil {
		return nil, dead
	}
	if lost || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return resp, err
}

const (
	launchPath    = "/instance-operations/launch"
	terminatePath = "/instance-operations/terminate"
)

// attempt is one launch call.
type attempt struct {
	region  string
	refused bool // the cloud itself has said that nothing was created
}

// asked looks at a request before it is sent.
func (w *world) asked(p *process, path string, body []byte) {
	switch {
	case p.wrong:
		return
	case strings.HasSuffix(path, launchPath):
		var b struct {
			Name   string `json:"name"`
			Region string `json:"region_name"`
		}
		_ = json.Unmarshal(body, &b)
		w.note("%s: launch call for %s in %s", p.name, b.Name, b.Region)
		w.mu.Lock()
		defer w.mu.Unlock()
		id := w.leaseOf(b.Name)
		for _, a := range w.attempts[id] {
			if !a.refused {
				w.violate("lease %s is launched again, and an earlier launch in %s may have happened", id, a.region)
			}
		}
		w.attempts[id] = append(w.attempts[id], &attempt{region: b.Region})
		w.checkLaunch(id)
	case strings.HasSuffix(path, terminatePath):
		var b struct {
			IDs []string `json:"instance_ids"`
		}
		_ = json.Unmarshal(body, &b)
		w.note("%s: terminate call for %v", p.name, b.IDs)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range b.IDs {
			w.checkTerminate(id)
		}
	}
}

// answered looks at an answer before it goes back.
func (w *world) answered(p *process, sim *lambdatest.Server, path string, body []byte, at time.Time, resp *http.Response, err error) {
	if p.wrong || !strings.HasSuffix(path, launchPath) {
		return
	}
	var b struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(body, &b)
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.leaseOf(b.Name)
	tries := w.attempts[id]
	if err == nil && len(tries) > 0 {
		envelope := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
		s := resp.StatusCode
		tries[len(tries)-1].refused = envelope && s >= 400 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
	}
	var hidden time.Duration
	for _, r := range sim.Requests() {
		if r.Op != lambdatest.OpLaunch || !r.Time.Equal(at) {
			continue
		}
		for _, f := range w.faults {
			if slices.Contains(r.Faults, f.id) {
				hidden += f.LateBy + f.UnlistedFor
			}
		}
	}
	if err != nil && hidden == 0 { // where an answer hangs, the cloud does not say yet which failures it has met
		hidden = w.lateAtMost
	}
	if i, ok := sim.Instance(b.Name); ok && !i.LaunchedAt.Before(at) {
		w.hidden[i.ID] = i.LaunchedAt.Add(hidden)
		w.count("instances")
	}
}
