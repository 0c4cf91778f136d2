package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/logfile"
	"github.com/gpulease/gpulease/lease"
)

const (
	keeperTick     = time.Second
	keeperLocks    = 3 * time.Second               // how long a keeper tries to get its lock: a server may just be looking at it
	keeperLeaves   = closeTimeout + 20*time.Second // how long an older keeper may take to leave
	keeperReturns  = 5 * time.Second               // how long a keeper that was asked to leave waits for its successor to hold the lock
	keeperLogSize  = 1 << 20
	keeperSweep    = 10 * time.Second // how long one sweep may take
	keeperAgain    = 15 * time.Second // after a sweep that has found an instance
	keeperIdentify = time.Minute      // how long the key's command may take
)

func (s *settings) keeperLock() *flock.Flock {
	return flock.New(filepath.Join(s.stateDir, "keeper.lock"), flock.SetPermissions(0o600))
}

// keeper is the process that `gpulease keeper` is.
type keeper struct {
	s     *settings
	stays bool // it is a service: it does not end when nothing lives
	log   *slog.Logger
	logTo io.Writer
	build build
	self  *program // nil where it cannot be watched

	obeyed leaveNote // the last request to leave that it followed
}

func newKeeper(s *settings) *cobra.Command {
	var keyOnStdin, stays, rehearse bool
	var logPath string
	c := &cobra.Command{
		Use:   "keeper",
		Short: "Enforce deadlines until no lease is alive (servers start it by themselves)",
		Long: `keeper is a small process that outlives agent hosts: it ends leases at their deadlines, confirms
stops and settles, and ends when no lease is alive. There is one for each state directory; servers
start it before the first launch and again if it died, so there is rarely a reason to start it by hand.

A newer gpulease takes the place of an older one's keeper; an older one never does. When its own program
file is replaced, the keeper goes on as the new program. See docs/keeper.md.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if keyOnStdin {
				key, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("read the API key: %w", err)
				}
				s.env["LAMBDA_API_KEY"] = string(key)
			}
			if err := s.check(); err != nil {
				return err
			}
			k := &keeper{s: s, stays: stays, logTo: c.ErrOrStderr(), build: thisBuild(), self: ownProgram()}
			if rehearse {
				return k.rehearse(c.Context())
			}
			return k.main(c.Context(), logPath)
		},
	}
	f := c.Flags()
	f.BoolVar(&keyOnStdin, "key-on-stdin", false, "read the API key from standard input (for servers)")
	f.BoolVar(&stays, "stay", false, "go on when no lease is alive, and wait where another keeper is at work (for a service)")
	f.StringVar(&logPath, "log", "", "write the log to this file, which is kept small, and not to standard error")
	f.BoolVar(&rehearse, "rehearse", false, "only find out whether a keeper could work here: key, account, ledger")
	c.AddCommand(newKeeperStatus(s))
	return c
}

// main runs the keeper with a log that is kept small, and lets neither a closed
// terminal nor a closed pipe end it.
func (k *keeper) main(ctx context.Context, logPath string) error {
	signal.Ignore(syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // and not Ignore, which the key's command would inherit
	if logPath != "" {
		file := keeperLogFile(logPath)
		defer file.Close()
		k.logTo = file
	}
	k.logTo = logfile.NewCalm(k.logTo, time.Now)
	log, err := k.s.logger(k.logTo)
	if err != nil {
		return err
	}
	k.log = log.With("pid", os.Getpid())
	err = k.run(ctx)
	if err != nil {
		k.log.Error("the keeper ends", "err", err)
	}
	return err
}

// run guards whenever it is this keeper's turn.
func (k *keeper) run(ctx context.Context) error {
	for {
		lock, err := k.turn(ctx)
		if err != nil || lock == nil {
			return err
		}
		why, key, err := k.guard(ctx)
		if removed := removeNote(k.s.keeperNotePath()); removed != nil {
			k.log.Warn("the keeper's note stays behind", "err", removed)
		}
		if err = errors.Join(err, lock.Close()); err != nil || ctx.Err() != nil {
			return err
		}
		switch why {
		case nothingLives, ledgerLost:
			return nil
		case replaced:
			k.log.Info("going on as the new program", "path", k.self.path)
			err := k.self.become(key)
			k.log.Error("the new program could not be started; the old one goes on", "err", err)
		case askedToLeave:
			if k.succeeded(ctx) && !k.stays {
				return nil
			}
		}
	}
}

// turn waits until this keeper may guard and returns the lock. It returns none
// where another keeper is at work, which is no reason to stay, or when ctx ends.
func (k *keeper) turn(ctx context.Context) (*flock.Flock, error) {
	limit := time.Now().Add(keeperLocks)
	var asked keeperNote
	wait := 50 * time.Millisecond
	for {
		if err := os.MkdirAll(k.s.stateDir, 0o700); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
		lock := k.s.keeperLock()
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
		}
		if ok {
			return lock, nil
		}
		other, known := k.s.keeperNote()
		switch {
		case known && other != asked && k.follows(other):
			if err := k.askToLeave(ctx, other); err != nil {
				k.log.Warn("an older keeper goes on, since this one could not do its work", "older", other.Build.String(), "err", err)
			} else {
				limit = time.Now().Add(keeperLeaves)
			}
			asked = other
		case known && other != asked && asked.PID != 0: // somebody else was faster
			asked, limit = keeperNote{}, time.Now().Add(keeperLocks)
		case time.Now().Before(limit):
		case k.stays && k.self.wasReplaced(ctx, k.log, k.key(nil)):
			return nil, k.self.become(k.key(nil))
		case k.stays:
			wait = keeperTick
		default:
			if asked.PID != 0 {
				k.log.Warn("the older keeper is still there", "older", asked.Build.String(), "older_pid", asked.PID)
			}
			return nil, nil // there is one already
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
	}
}

// follows reports whether this keeper is the one to take another's place.
func (k *keeper) follows(other keeperNote) bool {
	return k.build.newer(other.Build) && other.Guards == k.s.keeperScope() && other.PID != os.Getpid()
}

// askToLeave asks an older keeper to leave, once it is certain that this one can
// do what the other did.
func (k *keeper) askToLeave(ctx context.Context, other keeperNote) error {
	if err := k.rehearse(ctx); err != nil {
		return err
	}
	k.log.Info("an older keeper is asked to leave", "older", other.Build.String(), "older_pid", other.PID)
	return writeNote(k.s.leavePath(), leaveNote{PID: other.PID, Since: other.Since, By: k.build, ByPID: os.Getpid()})
}

// rehearse does all that a keeper does first, and nothing that another would notice.
func (k *keeper) rehearse(ctx context.Context) error {
	a, err := k.s.open(ctx, "rehearsal", io.Discard)
	if err != nil {
		return err
	}
	return errors.Join(a.fit(ctx), a.close())
}

// fit reports why this process cannot guard the leases that are alive.
func (a *app) fit(ctx context.Context) error {
	if a.broken != nil {
		return a.broken // who cannot read the ledger guards nothing
	}
	ctx, cancel := context.WithTimeout(ctx, keeperIdentify)
	defer cancel()
	account, err := a.account.Account(ctx)
	if err != nil {
		return fmt.Errorf("without a key nobody can be a keeper: %w", err)
	}
	live, err := a.store.Live(ctx)
	if err != nil {
		return err
	}
	if foreign := slices.IndexFunc(live, func(l lease.Lease) bool { return l.Account != account }); foreign >= 0 {
		return fmt.Errorf("lease %s was launched with another API key: %w", live[foreign].ID, errOtherKey)
	}
	return nil
}

var errOtherKey = errors.New("with this key it can be neither watched nor stopped")

// key is the API key that this keeper works with, "" where it finds one in its settings.
func (k *keeper) key(a *app) string {
	if a != nil {
		if key := a.key.Load(); key != nil {
			return key.Reveal()
		}
	}
	return k.s.env["LAMBDA_API_KEY"]
}

// succeeded reports whether another keeper has taken the lock after this one was
// asked to leave. It waits only for a moment: no lease is left alone for long.
func (k *keeper) succeeded(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, keeperReturns)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, ok := k.s.keeperNote()
		if running, err := k.s.keeperRuns(); err == nil && running && ok && n.PID != os.Getpid() {
			k.log.Info("another keeper has taken over", "build", n.Build.String(), "its_pid", n.PID)
			return true
		}
		select {
		case <-ctx.Done():
			k.log.Warn("nobody has taken over; this keeper goes on")
			return false
		case <-tick.C:
		}
	}
}
