package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// homeName names the state directory: on a ledger that several computers share,
// it tells which of them has a lease's private key. It is made once.
func (s *settings) homeName() (string, error) {
	path := filepath.Join(s.stateDir, "home")
	for {
		raw, err := os.ReadFile(path)
		if err == nil {
			name := strings.TrimSpace(string(raw))
			if name == "" {
				return "", fmt.Errorf("the name of the state directory is lost: %s is empty; remove it", path)
			}
			return name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the name of the state directory: %w", err)
		}
		// Written whole beside its place, and linked there only if no other process was faster.
		f, err := os.CreateTemp(s.stateDir, "home-*")
		if err != nil {
			return "", fmt.Errorf("name the state directory: %w", err)
		}
		_, err = f.WriteString(strings.ToLower(rand.Text()[:12]) + "\n")
		err = errors.Join(err, f.Sync(), f.Close())
		if err == nil {
			err = os.Link(f.Name(), path)
		}
		err = errors.Join(ignoreExists(err), os.Remove(f.Name()))
		if err != nil {
			return "", fmt.Errorf("name the state directory: %w", err)
		}
	}
}

func ignoreExists(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// hosting is the file lock of the one process of a state directory that works on
// its leases' machines.
type hosting struct {
	mu   sync.Mutex
	lock *flock.Flock
}

func newHosting(stateDir string) *hosting {
	return &hosting{lock: flock.New(filepath.Join(stateDir, "machines.lock"), flock.SetPermissions(0o600))}
}

func (h *hosting) try() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lock.TryLock()
}

func (h *hosting) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lock.Close()
}
