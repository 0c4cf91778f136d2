package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

const (
	keeperStarts = 10 * time.Second // how long a server waits for a keeper's first heartbeat
	keeperFresh  = 20 * time.Second // how old a heartbeat may be
	// keeperOffers is how long a process waits before it starts a newer keeper once
	// more in the place of an older one that is still there.
	keeperOffers = time.Minute
)

// ensureKeeper returns when a keeper guards this ledger's leases: it holds its
// lock, and has shown by a heartbeat that it has the ledger and the key. started
// is set if that took starting one. An older program's keeper is good enough, and
// a newer one is sent to take its place.
func (s *settings) ensureKeeper(ctx context.Context, a *app) (started bool, err error) {
	a.ensuring.Lock() // a launch and the loop would each start one
	defer a.ensuring.Unlock()
	ctx, cancel := context.WithTimeout(ctx, keeperStarts)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var ended <-chan error
	for {
		running, err := s.keeperRuns()
		if err != nil {
			return started, err
		}
		if running {
			guards, err := a.store.Guards(ctx)
			if err != nil {
				return started, fmt.Errorf("look for the keeper's heartbeat: %w", err)
			}
			if slices.ContainsFunc(guards, isFreshKeeper) {
				return started, s.offerNewer(a)
			}
		} else if !started {
			if ended, err = s.startKeeper(a); err != nil {
				return started, fmt.Errorf("start the keeper: %w", err)
			}
			started = true
		}
		select {
		case <-ctx.Done():
			return started, fmt.Errorf("start the keeper: no heartbeat of it in the ledger %s within %s; see %s", ledger.Redact(s.ledgerPath), keeperStarts, s.keeperLog())
		case err := <-ended:
			if err != nil {
				return started, fmt.Errorf("start the keeper: it ended at once (%w); see %s", err, s.keeperLog())
			}
			ended = nil // there was one already
		case <-tick.C:
		}
	}
}

func isFreshKeeper(g lease.Guard) bool {
	return strings.HasPrefix(g.Name, lease.GuardKeeper+" ") && time.Since(g.Seen).Abs() < keeperFresh
}

// outdated reports whether the running keeper is an older program than this one.
func (s *settings) outdated() (keeperNote, bool) {
	n, ok := s.keeperNote()
	return n, ok && thisBuild().newer(n.Build) && n.Guards == s.keeperScope()
}

// offerNewer starts a keeper beside an older program's. It asks the older one to
// leave by itself, once it has shown that it can do the work.
func (s *settings) offerNewer(a *app) error {
	older, ok := s.outdated()
	if !ok {
		return nil
	}
	a.offering.Lock()
	defer a.offering.Unlock()
	if time.Since(a.offered).Abs() < keeperOffers {
		return nil
	}
	a.offered = time.Now()
	a.log.Info("the keeper is an older program; a newer one is sent to take its place", "older", older.Build.String())
	if _, err := s.startKeeper(a); err != nil {
		a.log.Warn("the newer keeper could not be started; the older one goes on", "err", err)
	}
	return nil
}

// keeperRuns reports whether a keeper holds the lock. It takes it in a way that
// keeps nobody but a keeper from it, and that only for a moment.
func (s *settings) keeperRuns() (bool, error) {
	lock := s.keeperLock()
	free, err := lock.TryRLock()
	if err != nil {
		return false, fmt.Errorf("look for the keeper: %w", err)
	}
	return !free, lock.Close()
}

// startKeeper starts this program once more, in a session of its own, so that it
// does not end with the agent host. ended tells how it ended, if it does so
// before this process.
func (s *settings) startKeeper(a *app) (ended <-chan error, err error) {
	path, err := programPath()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "keeper", "--log", s.keeperLog())
	if _, err := os.Stat(path); err != nil {
		cmd.Path = runningProgram // the file is gone: an upgrade may be under way
	}
	// It keeps its log by itself. What it says before that, and when the Go runtime
	// ends it, goes to where its log begins. A full disk is no reason not to guard.
	if log, err := open0600(s.keeperLog()); err == nil {
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	} else {
		a.log.Warn("the keeper's log cannot be opened", "err", err)
	}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return a.key.Load() != nil && strings.HasPrefix(kv, "LAMBDA_API_KEY=") })
	if key := a.key.Load(); key != nil {
		// It may have come from a command that works in our session only. A pipe is
		// not seen by other processes, as the environment is.
		cmd.Args = append(cmd.Args, "--key-on-stdin")
		cmd.Stdin = strings.NewReader(key.Reveal())
	}
	cmd.Dir = s.stateDir
	cmd.Env = append(cmd.Env,
		"GPULEASE_API_URL="+s.apiURL, "GPULEASE_SSH_PORT="+strconv.Itoa(s.sshPort), "GPULEASE_LEDGER="+s.ledgerPath,
		"GPULEASE_STATE_DIR="+s.stateDir, "GPULEASE_PRINCIPAL="+s.principal, "GPULEASE_LOG_LEVEL="+s.keeperLogLevel(),
		policySetVariable+"="+s.policySetText(), "LAMBDA_API_KEY_COMMAND="+s.keyCommand, "LAMBDA_API_KEY_FILE="+s.keyFile,
		authKeyCommandVariable+"="+s.authKeyCommand, authKeyFileVariable+"="+s.authKeyFile, "GPULEASE_TAILSCALE="+s.tailscale)
	if s.policyIsGiven {
		cmd.Env = append(cmd.Env, "GPULEASE_POLICY="+s.policyPath)
	}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Reaped if it ends before us; otherwise it is somebody else's child by then.
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, nil
}

// keeperLogLevel is the log level for a keeper: a command that is quiet has not
// asked for a quiet keeper.
func (s *settings) keeperLogLevel() string {
	if s.logLevel == quietLevel {
		return "info"
	}
	return s.logLevel
}

func open0600(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// mendGuard is for commands that find live leases: without a keeper they start
// one, if they have the key for it, and say so in a line. What they cannot mend
// they say, too; it is no reason for the command to fail.
func (s *settings) mendGuard(ctx context.Context, a *app, leases []lease.Lease, w io.Writer) {
	live := slices.DeleteFunc(slices.Clone(leases), func(l lease.Lease) bool { return !l.State.Live() })
	if len(live) == 0 || a.broken != nil {
		return
	}
	running, err := s.keeperRuns()
	if err != nil {
		fmt.Fprintln(w, "gpulease: whether a keeper runs cannot be told:", err)
		return
	}
	if _, older := s.outdated(); running && !older {
		return
	}
	account, err := a.account.Account(ctx)
	mine := slices.ContainsFunc(live, func(l lease.Lease) bool { return l.Account == account })
	switch {
	case err == nil && mine:
		var started bool
		started, err = s.ensureKeeper(ctx, a)
		if err == nil && started {
			fmt.Fprintf(w, "gpulease: no keeper was running for %s; one has been started\n", countLeases(len(live)))
		}
		if err == nil || running {
			return
		}
	case running:
		return
	case err == nil:
		err = errors.New("they were launched with another API key than the present one")
	}
	why := err.Error()
	var e *lease.Error
	if errors.As(err, &e) && e.Code == lease.CodeBadAPIKey {
		why = "there is no key to start one with: " + e.Why
	}
	fmt.Fprintf(w, "gpulease: no keeper runs for %s: %s (%s)\n", countLeases(len(live)), a.guardedBy(ctx), a.redact(why))
}

// guardedBy says who enforces deadlines where there is no keeper.
func (a *app) guardedBy(ctx context.Context) string {
	guards, err := a.store.Guards(ctx)
	if err != nil {
		return "WHO ENFORCES DEADLINES IS UNKNOWN"
	}
	for _, g := range guards {
		if strings.HasPrefix(g.Name, lease.GuardServer+" ") && time.Since(g.Seen).Abs() < keeperFresh {
			return "only " + g.Name + " enforces deadlines, as long as it runs"
		}
	}
	return "NOBODY ENFORCES DEADLINES"
}

func countLeases(n int) string {
	if n == 1 {
		return "1 live lease"
	}
	return fmt.Sprintf("%d live leases", n)
}
