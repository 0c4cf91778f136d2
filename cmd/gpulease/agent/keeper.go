package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// KeeperEnds waits until the keeper that a server has started for a state
// directory is gone, at most as long as a server may take to end. A keeper ends
// by itself when no lease is alive.
func KeeperEnds(ctx context.Context, stateDir string) error {
	path := filepath.Join(stateDir, "keeper.lock")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // there never was one
	}
	lock := flock.New(path)
	ctx, cancel := context.WithTimeout(ctx, exitWait)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return fmt.Errorf("the keeper has not ended: %w", err)
	}
	return lock.Close()
}
