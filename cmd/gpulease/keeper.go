package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
)

const (
	keeperTick    = time.Second
	keeperStarts  = 3 * time.Second // how long a keeper tries to get its lock: a server may just be looking at it
	keeperLogSize = 1 << 20
	keeperSweep   = 10 * time.Second
)

func (s *settings) keeperLock() *flock.Flock {
	return flock.New(filepath.Join(s.stateDir, "keeper.lock"), flock.SetPermissions(0o600))
}

func newKeeper(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "keeper",
		Short: "Enforce deadlines until no lease is alive (servers start it by themselves)",
		Long: `keeper is a small process that outlives agent hosts: it ends leases at their deadlines, confirms
stops and settles, and ends when no lease is alive. There is one for each state directory; servers
start it before the first launch, so there is rarely a reason to start it by hand.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			if err := os.MkdirAll(s.stateDir, 0o700); err != nil {
				return fmt.Errorf("make the state directory: %w", err)
			}
			lock := s.keeperLock()
			lockCtx, cancel := context.WithTimeout(c.Context(), keeperStarts)
			defer cancel()
			if ok, err := lock.TryLockContext(lockCtx, 50*time.Millisecond); !ok {
				if err == nil || errors.Is(err, context.DeadlineExceeded) {
					return nil // there is one already
				}
				return fmt.Errorf("lock %s: %w", lock.Path(), err)
			}
			defer lock.Close()
			a, err := s.open(c.Context(), lease.GuardKeeper, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return a.whileReconciling(c.Context(), a.untilNothingLives)
		},
	}
}

// untilNothingLives returns when no lease is alive. A ledger that cannot be read
// is no proof of that.
func (a *app) untilNothingLives(ctx context.Context) error {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	for {
		live, err := a.store.Live(ctx)
		if err == nil && len(live) == 0 {
			// What a killed server could not tidy up any more is ours to tidy.
			sweepCtx, cancel := context.WithTimeout(ctx, keeperSweep)
			defer cancel()
			if err := a.manager.Sweep(sweepCtx); err != nil {
				a.log.Warn("old SSH keys stay in the account for now", "err", err)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ensureKeeper starts a keeper if none runs. It returns when one holds the lock
// or could not be started.
func (s *settings) ensureKeeper(ctx context.Context) error {
	running, err := s.keeperRuns()
	if err != nil || running {
		return err
	}
	if err := s.startKeeper(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, keeperStarts)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if running, err := s.keeperRuns(); err != nil || running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the keeper: it did not come up; see %s", s.keeperLog())
		case <-tick.C:
		}
	}
}

func (s *settings) keeperRuns() (bool, error) {
	lock := s.keeperLock()
	free, err := lock.TryLock()
	if err != nil {
		return false, fmt.Errorf("look for the keeper: %w", err)
	}
	return !free, lock.Close()
}

func (s *settings) keeperLog() string { return filepath.Join(s.stateDir, "keeper.log") }

// startKeeper starts this binary once more, in a session of its own, so that it
// does not end with the agent host.
func (s *settings) startKeeper() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if st, err := os.Stat(s.keeperLog()); err == nil && st.Size() > keeperLogSize {
		if err := os.Rename(s.keeperLog(), s.keeperLog()+".old"); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(s.keeperLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "keeper")
	cmd.Dir = s.stateDir
	cmd.Env = append(os.Environ(),
		"GPULEASE_API_URL="+s.apiURL, "GPULEASE_SSH_PORT="+strconv.Itoa(s.sshPort), "GPULEASE_LEDGER="+s.ledgerPath,
		"GPULEASE_STATE_DIR="+s.stateDir, "GPULEASE_PRINCIPAL="+s.principal, "GPULEASE_LOG_LEVEL="+s.logLevel,
		"LAMBDA_API_KEY_COMMAND="+s.keyCommand, "LAMBDA_API_KEY_FILE="+s.keyFile)
	if s.policyIsGiven {
		cmd.Env = append(cmd.Env, "GPULEASE_POLICY="+s.policyPath)
	}
	cmd.Stdout, cmd.Stderr = log, log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	// Reaped if it ends before us; otherwise it is somebody else's child by then.
	go func() { _ = cmd.Wait() }()
	return nil
}
