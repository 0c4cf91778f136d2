package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// departure is why a keeper stops guarding.
type departure int

const (
	interrupted  departure = iota // by a signal
	nothingLives                  // no lease is alive
	askedToLeave                  // by a newer keeper
	replaced                      // its program file was replaced
	ledgerLost                    // the ledger was deleted, and no machine that it knew is left
)

// guard enforces deadlines until there is a reason not to. The caller holds the
// lock. It returns the key that it worked with.
func (k *keeper) guard(ctx context.Context) (why departure, key string, err error) {
	if err := removeNote(k.s.leavePath()); err != nil { // it was for somebody before us
		k.log.Warn("an old request to leave stays behind", "err", err)
	}
	a, err := k.s.open(ctx, lease.GuardKeeper, k.logTo)
	if err != nil {
		return interrupted, "", err
	}
	if err := a.fit(ctx); err != nil && !errors.Is(err, errOtherKey) { // what this key can guard it guards
		return interrupted, "", errors.Join(fmt.Errorf("nothing is guarded: %w", err), a.close())
	}
	w := &watch{k: k, a: a, note: keeperNote{PID: os.Getpid(), Since: time.Now().UTC(), Build: k.build, Stays: k.stays, Guards: k.s.keeperScope()}}
	if err := writeNote(k.s.keeperNotePath(), w.note); err != nil {
		// A full disk, say. Without the note a newer keeper lets this one be.
		k.log.Warn("the keeper's note cannot be written", "err", errors.Join(err, removeNote(k.s.keeperNotePath())))
	}
	w.file, _ = os.Stat(k.s.ledgerPath) // it has just been opened, if it is a file
	k.log.Info("guarding", "build", k.build.String(), "stays", k.stays, "ledger_and_api", w.note.Guards)
	why, err = w.keep(ctx)
	if why == interrupted && err == nil && len(w.known) > 0 {
		k.log.Warn("told to end while leases are alive: until a server or another command starts the next keeper, nobody may guard them", "leases", len(w.known))
	}
	// The launch call of a lease that was approved is waited for: its outcome is about to be known.
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return why, k.key(a), errors.Join(err, a.manager.Close(closeCtx), a.close())
}

// watch is a keeper at work.
type watch struct {
	k    *keeper
	a    *app
	note keeperNote
	file os.FileInfo // of the ledger; nil where it is no file

	known []lease.Lease // live at the last good look
	lost  *lostLedger   // nil while the ledger is there
}

// keep reconciles until there is a reason to leave. Before it leaves it says that
// it guards no more, and looks once again: a lease that was reserved in between is
// either seen here, or its server sees that no keeper guards it and starts another.
func (w *watch) keep(ctx context.Context) (departure, error) {
	for {
		runCtx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- w.a.manager.Run(runCtx) }()
		why := w.until(ctx)
		stop()
		if err := <-done; err != nil || ctx.Err() != nil || why == ledgerLost {
			return why, err // there is nothing to write it into
		}
		err := w.a.store.Beat(ctx, w.a.guard, time.Time{})
		if why != nothingLives {
			return why, nil // the next keeper comes, whether this one's last word is written or not
		}
		if err != nil {
			return why, err
		}
		if live, err := w.a.store.Live(ctx); err == nil && len(live) == 0 {
			return why, nil
		}
	}
}

// until returns when there is a reason to leave, and which. A ledger that cannot
// be read is none.
func (w *watch) until(ctx context.Context) departure {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	var swept time.Time
	for {
		live, err := w.a.store.Live(ctx)
		if err == nil {
			w.known = live // a ledger that was deleted can still be read
		}
		there := w.ledgerIsThere() && !errors.Is(err, ledger.ErrReplaced)
		switch {
		case !there && w.nothingIsLeft(ctx):
			return ledgerLost
		case there && err == nil && len(live) == 0 && !w.k.stays && time.Since(swept) >= keeperAgain && !w.mayReturn(ctx):
			swept = time.Now()
			if err := w.tidyUp(ctx); !errors.Is(err, lease.ErrStray) {
				return nothingLives
			}
		case there:
			w.lost = nil
		}
		if w.isAskedToLeave() {
			return askedToLeave
		}
		if w.lost == nil && w.k.self.wasReplaced(ctx, w.k.log, w.k.key(w.a)) {
			return replaced
		}
		select {
		case <-ctx.Done():
			return interrupted
		case <-tick.C:
		}
	}
}

// mayReturn reports whether an instance that has ended by nothing but absence may
// show again. The reconciler sweeps meanwhile; a ledger that cannot be read keeps nobody.
func (w *watch) mayReturn(ctx context.Context) bool {
	again, err := w.a.manager.MayReturn(ctx)
	return err == nil && again
}

// tidyUp removes what a killed server could not remove any more. It fails with
// lease.ErrStray where a machine of an ended lease was still there.
func (w *watch) tidyUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keeperSweep)
	defer cancel()
	err := w.a.manager.Sweep(ctx)
	if err != nil {
		w.a.log.Warn("what ended leases left behind is still there", "err", err)
	}
	return err
}

// ledgerIsThere reports whether the ledger's path still leads to the file that is open.
func (w *watch) ledgerIsThere() bool {
	if w.file == nil {
		return true
	}
	info, err := os.Stat(w.k.s.ledgerPath)
	return !errors.Is(err, fs.ErrNotExist) && (err != nil || os.SameFile(info, w.file))
}

// isAskedToLeave reports whether a newer keeper has asked this one to leave. It
// decides by itself whether the other one is newer, and follows a request once: a
// successor that asked and did not come asks in vain.
func (w *watch) isAskedToLeave() bool {
	var n leaveNote
	if readNote(w.k.s.leavePath(), &n) != nil || n.PID != w.note.PID || !n.Since.Equal(w.note.Since) || n.ByPID == w.k.obeyed.ByPID || !n.By.newer(w.note.Build) {
		return false
	}
	w.k.log.Info("leaving for a newer keeper", "newer", n.By.String(), "its_pid", n.ByPID)
	w.k.obeyed = n
	return true
}

const lostListings = 2 // good listings without a machine of ours, before they count as gone

var lostEvery = time.Minute // between them; tests have less time

// lostLedger is what a keeper remembers while its ledger is deleted.
type lostLedger struct {
	listed time.Time
	clean  int
}

// nothingIsLeft is asked while the ledger is deleted or replaced. The manager goes
// on ending what it knew at its deadlines; there is nothing left to do when the
// cloud shows none of it any more.
func (w *watch) nothingIsLeft(ctx context.Context) bool {
	if w.lost == nil {
		w.lost = &lostLedger{}
		w.k.log.Error("the ledger was deleted or replaced: what was alive in it is ended at its deadline all the same, and nothing can be written down",
			"ledger", ledger.Redact(w.k.s.ledgerPath), "leases", len(w.known))
	}
	if len(w.known) == 0 {
		return true
	}
	now := time.Now()
	if since := now.Sub(w.lost.listed); since >= 0 && since < lostEvery {
		return false
	}
	w.lost.listed = now
	instances, err := w.a.account.Instances(ctx)
	if err != nil {
		return false
	}
	for _, l := range w.known {
		if l.InstanceID == "" && now.Before(l.HardStop) || shows(instances, l) {
			w.lost.clean = 0
			return false
		}
	}
	w.lost.clean++
	if w.lost.clean < lostListings {
		return false
	}
	w.k.log.Warn("no machine of the lost ledger is left; the keeper ends", "leases", len(w.known))
	return true
}

// shows reports whether a listing has the machine of a lease.
func shows(instances []lambda.Instance, l lease.Lease) bool {
	for _, inst := range instances {
		if (inst.ID == l.InstanceID || inst.Name == l.Name) && inst.Status != lambda.StatusTerminated {
			return true
		}
	}
	return false
}
