package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

const (
	keeperTick    = time.Second
	keeperLocks   = 3 * time.Second  // how long a keeper tries to get its lock: a server may just be looking at it
	keeperStarts  = 10 * time.Second // how long a server waits for a keeper's first heartbeat
	keeperFresh   = 20 * time.Second // how old a heartbeat may be
	keeperLogSize = 1 << 20
	keeperSweep   = 10 * time.Second // how long one sweep may take
	keeperAgain   = 15 * time.Second // after a sweep that has found an instance
)

func (s *settings) keeperLock() *flock.Flock {
	return flock.New(filepath.Join(s.stateDir, "keeper.lock"), flock.SetPermissions(0o600))
}

func newKeeper(s *settings) *cobra.Command {
	var keyOnStdin bool
	c := &cobra.Command{
		Use:   "keeper",
		Short: "Enforce deadlines until no lease is alive (servers start it by themselves)",
		Long: `keeper is a small process that outlives agent hosts: it ends leases at their deadlines, confirms
stops and settles, and ends when no lease is alive. There is one for each state directory; servers
start it before the first launch and again if it died, so there is rarely a reason to start it by hand.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			if keyOnStdin {
				key, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("read the API key: %w", err)
				}
				s.env["LAMBDA_API_KEY"] = string(key)
			}
			if err := os.MkdirAll(s.stateDir, 0o700); err != nil {
				return fmt.Errorf("make the state directory: %w", err)
			}
			lock := s.keeperLock()
			lockCtx, cancel := context.WithTimeout(c.Context(), keeperLocks)
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
			if a.broken != nil {
				return errors.Join(a.broken, a.close()) // who cannot read the ledger guards nothing
			}
			return errors.Join(a.keep(c.Context()), a.close())
		},
	}
	c.Flags().BoolVar(&keyOnStdin, "key-on-stdin", false, "read the API key from standard input (for servers)")
	return c
}

// keep reconciles until nothing lives. Before it leaves it says that it guards
// no more, and looks once again: a lease that was reserved in between is either
// seen here, or its server sees that no keeper guards it and starts another.
func (a *app) keep(ctx context.Context) error {
	for {
		runCtx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- a.manager.Run(runCtx) }()
		a.untilNothingLives(ctx)
		stop()
		if err := <-done; err != nil || ctx.Err() != nil {
			return err
		}
		if err := a.store.Beat(ctx, a.guard, time.Time{}); err != nil {
			return err
		}
		if live, err := a.store.Live(ctx); err == nil && len(live) == 0 {
			return nil
		}
	}
}

// untilNothingLives returns when no lease is alive, and no instance of an ended one
// either. A ledger that cannot be read is no proof of that.
func (a *app) untilNothingLives(ctx context.Context) {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	var swept time.Time
	for {
		if live, err := a.store.Live(ctx); err == nil && len(live) == 0 && time.Since(swept) >= keeperAgain {
			swept = time.Now()
			if err := a.sweep(ctx); !errors.Is(err, lease.ErrStray) {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep tidies what a killed server could not tidy up any more.
func (a *app) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keeperSweep)
	defer cancel()
	err := a.manager.Sweep(ctx)
	if err != nil {
		a.log.Warn("what ended leases left behind is still there", "err", err)
	}
	return err
}

// ensureKeeper returns when a keeper guards this ledger's leases: it holds its
// lock, and has shown by a heartbeat that it has the ledger and the key.
func (s *settings) ensureKeeper(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, keeperStarts)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	started := false
	for {
		running, err := s.keeperRuns()
		if err != nil {
			return err
		}
		if running {
			guards, err := a.store.Guards(ctx)
			if err != nil {
				return fmt.Errorf("look for the keeper's heartbeat: %w", err)
			}
			for _, g := range guards {
				if strings.HasPrefix(g.Name, lease.GuardKeeper+" ") && time.Since(g.Seen).Abs() < keeperFresh {
					return nil
				}
			}
		} else if !started {
			if err := s.startKeeper(a); err != nil {
				return fmt.Errorf("start the keeper: %w", err)
			}
			started = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the keeper: no heartbeat of it in the ledger %s within %s; see %s", ledger.Redact(s.ledgerPath), keeperStarts, s.keeperLog())
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
func (s *settings) startKeeper(a *app) error {
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
	if key := a.key.Load(); key != nil {
		// It may have come from a command that works in our session only. A pipe is
		// not seen by other processes, as the environment is.
		cmd.Args = append(cmd.Args, "--key-on-stdin")
		cmd.Stdin = strings.NewReader(key.Reveal())
	}
	cmd.Dir = s.stateDir
	cmd.Env = append(os.Environ(),
		"GPULEASE_API_URL="+s.apiURL, "GPULEASE_SSH_PORT="+strconv.Itoa(s.sshPort), "GPULEASE_LEDGER="+s.ledgerPath,
		"GPULEASE_STATE_DIR="+s.stateDir, "GPULEASE_PRINCIPAL="+s.principal, "GPULEASE_LOG_LEVEL="+s.logLevel,
		policySetVariable+"="+s.policySetText(), "LAMBDA_API_KEY_COMMAND="+s.keyCommand, "LAMBDA_API_KEY_FILE="+s.keyFile)
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
