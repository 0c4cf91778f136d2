package lease

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// checkResults refuses paths that could not be kept, or brought home safely.
func checkResults(paths []string, dir string) error {
	if len(paths) == 0 {
		return nil
	}
	if !filepath.IsAbs(dir) {
		return invalid("name a directory below an allowed root", "there is no local directory for the results")
	}
	for _, p := range paths {
		switch {
		case strings.TrimSpace(p) == "":
			return invalid("leave it out", "a result has no path")
		case len(p) > maxResult:
			return invalid("shorten it", "the path of a result has %d bytes, at most %d are kept", len(p), maxResult)
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return invalid("rename it", "the path of the result %q has a control character", p)
		}
		// One that the machine would refuse at the end would take the others with it.
		if err := remote.CheckPath(p); err != nil {
			return invalid("give it below the home directory, or as an absolute path", "the result %q cannot be fetched: %v", p, err)
		}
	}
	return nil
}

// wantsRescue reports whether something has to be done on the machine before it
// is ended: results to bring home, or, at the deadline, jobs to end in order.
func (l Lease) wantsRescue() bool {
	return l.State == Stopping && !l.ReadyAt.IsZero() && l.RescuedAt.IsZero() && (l.Results != "" || l.Reason == Deadline)
}

// resultsFirst is why a stop that was asked for has not reached the cloud yet.
const resultsFirst = "; its results are brought home first"

// rescueTime is how long the end may wait for that.
func (m *Manager) rescueTime(l Lease) time.Duration {
	if l.Results != "" {
		return m.Timing.Rescue
	}
	return m.Timing.Farewell
}

// mayEnd reports whether the machine of a stopping lease may be ended now.
// Whatever became of the rescue, its time is bounded, and the hard stop stands.
func (m *Manager) mayEnd(l Lease) bool {
	now := m.now()
	waited := now.Sub(l.StopAt)
	return !l.wantsRescue() || waited < 0 || waited >= m.rescueTime(l) || !now.Before(l.HardStop)
}

// jobGrace is how long a job may take to end after SIGTERM.
const jobGrace = 5 * time.Second

// rescue ends the jobs of a stopping lease and brings its results home, as far
// as its time allows, and writes down what came of it. Then the machine is ended.
func (m *Manager) rescue(ctx context.Context, id ID) error {
	l, err := m.Store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	if !l.wantsRescue() {
		return nil
	}
	left := m.rescueTime(l) - m.now().Sub(l.StopAt)
	said := "no time was left for it"
	if left > 0 {
		bounded, cancel := context.WithTimeout(ctx, left)
		m.freshUse(bounded, l, lastLook)
		said = m.sayFarewell(bounded, l)
		cancel()
	}
	if ctx.Err() != nil {
		return nil // we are closing: whoever comes next goes on, or its time runs out
	}
	m.Crash("rescued")
	for {
		l = m.withUse(l)
		l.RescuedAt, l.Rescue = m.now(), said
		if before, first := strings.CutSuffix(l.Detail, resultsFirst); first {
			l.Detail = before + "; the end of the machine is being asked for"
		}
		_, err := m.Store.Update(ctx, l, "before the end: "+said)
		if err == nil {
			m.Crash("rescue-noted")
			m.log.Info("before the end", "lease", id, "what", said)
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("write down what was rescued: %w", err)
		}
		if l, err = m.Store.Get(ctx, id); err != nil {
			return fmt.Errorf("read the lease: %w", err)
		}
		if !l.wantsRescue() {
			return nil
		}
	}
}

// sayFarewell does the work on the machine and says in one sentence what came of it.
func (m *Manager) sayFarewell(ctx context.Context, l Lease) string {
	t, err := m.target(l)
	if err != nil {
		return "the machine cannot be reached: " + err.Error()
	}
	said := m.endJobs(ctx, t)
	if l.Results == "" {
		return said
	}
	m.Crash("jobs-ended")
	sum, err := m.Machine.Fetch(ctx, t, l.resultPaths(), l.ResultsDir, remote.FetchOptions{Unlinked: true, Manifest: ManifestName})
	n, files, are := len(sum.Files), "files", "are"
	if n == 1 {
		files, are = "file", "is"
	}
	said += fmt.Sprintf("; %d result %s (%d bytes) %s in %s", n, files, sum.Bytes, are, l.ResultsDir)
	if len(sum.Missing) > 0 {
		said += "; not there: " + strings.Join(sum.Missing, ", ")
	}
	if len(sum.Skipped) > 0 {
		said += fmt.Sprintf("; %d were skipped", len(sum.Skipped))
	}
	if err != nil {
		said += "; NOT ALL RESULTS CAME: " + err.Error()
	}
	return said
}

// endJobs ends what runs, in order: a program that is told can still save its state.
func (m *Manager) endJobs(ctx context.Context, t remote.Target) string {
	jobs, err := m.Machine.Jobs(ctx, t)
	if err != nil {
		return "its jobs could not be listed: " + err.Error()
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	running, left := 0, 0
	for _, j := range jobs {
		if j.Over() {
			continue
		}
		running++
		wait.Go(func() {
			if _, err := m.Machine.Cancel(ctx, t, j.ID, jobGrace); err != nil {
				mu.Lock()
				left++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	switch {
	case running == 0:
		return "no job was running"
	case left > 0:
		return fmt.Sprintf("%d of %d jobs were ended", running-left, running)
	}
	if running == 1 {
		return "1 job was ended"
	}
	return fmt.Sprintf("%d jobs were ended", running)
}
