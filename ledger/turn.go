package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// turn lets one writer in at a time, over all processes. Inside a process writers go first come, first served; between
// processes they wait in the kernel, which wakes them at once. SQLite's own waiting polls, and one process that writes without a
// pause can keep the others out for seconds.
type turn struct {
	mine  chan struct{} // held by the writer of this process
	file  *flock.Flock
	waits sync.WaitGroup
}

func newTurn(path string) *turn {
	return &turn{mine: make(chan struct{}, 1), file: flock.New(path)}
}

// take waits for the turn until ctx is done or patience is over, which is ErrBusy.
func (t *turn) take(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrBusy)
	defer cancel()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case t.mine <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ok, err := t.file.TryLock(); ok || err != nil {
		if err != nil {
			<-t.mine
			return fmt.Errorf("lock %s: %w", t.file.Path(), err)
		}
		return nil
	}
	got := make(chan error, 1)
	t.waits.Go(func() { got <- t.block() })
	select {
	case err := <-got:
		if err != nil {
			<-t.mine
			return fmt.Errorf("lock %s: %w", t.file.Path(), err)
		}
		return nil
	case <-ctx.Done():
		// The kernel's wait cannot be broken off. Whoever waits here next gets its turn after it.
		t.waits.Go(func() {
			if <-got == nil {
				_ = t.file.Unlock() // closes the file, and that alone frees the lock
			}
			<-t.mine
		})
		return context.Cause(ctx)
	}
}

func (t *turn) block() error {
	for {
		if err := t.file.Lock(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// give ends the turn.
func (t *turn) give() error {
	err := t.file.Unlock()
	<-t.mine
	return err
}

// close waits until no goroutine of ours waits in the kernel any more, at most for patience: a process that is
// suspended with the lock in its hand could hold us for ever.
func (t *turn) close(patience time.Duration) error {
	done := make(chan struct{})
	go func() { t.waits.Wait(); close(done) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return ErrBusy
	}
}
