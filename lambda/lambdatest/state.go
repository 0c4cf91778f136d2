package lambdatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// unlock lets another simulator have the state file.
func (s *Server) unlock() error {
	if s.stateLock == nil {
		return nil
	}
	return s.stateLock.Close()
}

// load takes the account from the state file, if there is one. What the
// configuration gives wins over what was kept.
func (s *Server) load() error {
	if s.cfg.StateFile == "" {
		return nil
	}
	s.stateLock = flock.New(s.cfg.StateFile + ".lock")
	if ok, err := s.stateLock.TryLock(); err != nil || !ok {
		return errors.Join(fmt.Errorf("simulated cloud: state file %s: another simulator has it", s.cfg.StateFile), err)
	}
	data, err := os.ReadFile(s.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("simulated cloud: read state: %w", err)
	}
	var kept account
	if err := json.Unmarshal(data, &kept); err != nil {
		return fmt.Errorf("simulated cloud: read state %s: %w", s.cfg.StateFile, err)
	}
	if s.cfg.APIKey != "" {
		kept.APIKey = s.cfg.APIKey
	}
	if s.cfg.SSHPort != 0 {
		kept.SSHPort = s.cfg.SSHPort
	}
	if kept.Catalog == nil || s.cfg.catalogGiven {
		kept.Catalog = s.acct.Catalog
	}
	s.acct = kept
	s.clock.advance(kept.Offset)
	return nil
}

// save writes the account to the state file: all of it or, on a failure, what was
// there before. The caller holds mu.
func (s *Server) save() {
	if s.cfg.StateFile == "" {
		return
	}
	if err := s.writeState(); err != nil {
		s.cfg.Logf("keep state: %v", err)
	}
}

func (s *Server) writeState() error {
	data, err := json.Marshal(&s.acct)
	if err != nil {
		return err
	}
	dir := filepath.Dir(s.cfg.StateFile)
	// The file has the API key and the user data in it: CreateTemp makes it 0600.
	f, err := os.CreateTemp(dir, filepath.Base(s.cfg.StateFile)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.cfg.StateFile)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
