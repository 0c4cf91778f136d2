package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// KeyDir keeps private keys as files of mode 0600 in a directory of mode 0700,
// one a lease.
type KeyDir string

// File is where the private key of a lease is kept.
func (d KeyDir) File(id ID) string { return filepath.Join(string(d), string(id)+".key") }

// Save writes the key so that a crash leaves the whole key or none.
func (d KeyDir) Save(id ID, privatePEM []byte) error {
	if !ValidID(string(id)) {
		return fmt.Errorf("save the key of lease %q: not a lease id", id)
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make the key directory: %w", err)
	}
	f, err := os.CreateTemp(string(d), "new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save the key of lease %s: %w", id, err)
	}
	_, err = f.Write(privatePEM)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), d.File(id))
	}
	if err != nil {
		return fmt.Errorf("save the key of lease %s: %w", id, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Load reads the key back; it fails with fs.ErrNotExist where there is none.
func (d KeyDir) Load(id ID) (ssh.Signer, error) {
	if !ValidID(string(id)) {
		return nil, fmt.Errorf("load the key of lease %q: %w", id, fs.ErrNotExist)
	}
	pem, err := os.ReadFile(d.File(id))
	if err != nil {
		return nil, fmt.Errorf("load the key of lease %s: %w", id, err)
	}
	s, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("load the key of lease %s: %w", id, errors.New("the file is not a private key"))
	}
	return s, nil
}

// Delete removes the key; a key that is not there is no error.
func (d KeyDir) Delete(id ID) error {
	if !ValidID(string(id)) {
		return nil
	}
	if err := os.Remove(d.File(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete the key of lease %s: %w", id, err)
	}
	return nil
}

// List names the leases whose keys are kept.
func (d KeyDir) List() ([]ID, error) {
	files, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the keys: %w", err)
	}
	var ids []ID
	for _, f := range files {
		if id, ok := strings.CutSuffix(f.Name(), ".key"); ok && ValidID(id) {
			ids = append(ids, ID(id))
		}
	}
	return ids, nil
}
