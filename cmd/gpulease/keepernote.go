package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/logfile"
	"github.com/gpulease/gpulease/ledger"
)

// keeperNote is what the keeper that holds the lock says about itself, in
// keeper.json beside the lock. A keeper that was killed leaves its note behind:
// it is worth something only while the lock is held, and even then it may be
// the last keeper's for a moment, so all that follows from it is checked again.
type keeperNote struct {
	PID    int       `json:"pid"`
	Since  time.Time `json:"since"`
	Build  build     `json:"build"`
	Stays  bool      `json:"stays,omitempty"`
	Guards string    `json:"guards"` // which ledger at which API, see keeperScope
}

// leaveNote asks one keeper to leave, in keeper.leave beside the lock.
type leaveNote struct {
	PID   int       `json:"pid"` // of the keeper that is asked
	Since time.Time `json:"since"`
	By    build     `json:"by"`
	ByPID int       `json:"by_pid"`
}

func (s *settings) keeperNotePath() string { return filepath.Join(s.stateDir, "keeper.json") }
func (s *settings) leavePath() string      { return filepath.Join(s.stateDir, "keeper.leave") }
func (s *settings) keeperLog() string      { return filepath.Join(s.stateDir, "keeper.log") }

// keeperLogFile is the keeper's own log. Where the state directory is deleted
// below it, it goes on beside it.
func keeperLogFile(path string) *logfile.File {
	return &logfile.File{Path: path, Size: keeperLogSize, Fallback: filepath.Dir(path) + ".keeper.log", Crashes: true}
}

// keeperScope names what a keeper guards: a ledger and an API. A keeper must not
// take the place of one that guards something else.
func (s *settings) keeperScope() string {
	sum := sha256.Sum256([]byte(ledger.Redact(s.ledgerPath) + "\n" + s.apiURL))
	return hex.EncodeToString(sum[:8])
}

// keeperNote reads the note of the keeper. Without one, or with one that cannot
// be read, ok is false.
func (s *settings) keeperNote() (n keeperNote, ok bool) {
	return n, readNote(s.keeperNotePath(), &n) == nil && n.PID != 0
}

func readNote(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// writeNote replaces a note at once, so that nobody reads half of it.
func writeNote(path string, note any) error {
	b, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return replaceFile(path, append(b, '\n'))
}

// replaceFile writes a file of mode 0600 whole or not at all.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

func removeNote(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
