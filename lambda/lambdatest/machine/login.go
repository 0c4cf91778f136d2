package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

var errLogin = errors.New("no such user or key")

func (m *Machine) authorizedKeys() string {
	return filepath.Join(m.Home(), ".ssh", "authorized_keys")
}

// authorize adds keys to the user's authorized_keys, each once.
func (m *Machine) authorize(keys []ssh.PublicKey) error {
	path := m.authorizedKeys()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, k := range keys {
		line := ssh.MarshalAuthorizedKey(k)
		if !bytes.Contains(have, line) {
			if len(have) > 0 && have[len(have)-1] != '\n' {
				have = append(have, '\n')
			}
			have = append(have, line...)
		}
	}
	if err := os.WriteFile(path, have, 0o600); err != nil {
		return fmt.Errorf("write the authorized keys: %w", err)
	}
	return nil
}

// login lets the user in with a key of the authorized_keys of this moment. Keys
// with options are skipped: a restriction that is not obeyed must not let in.
func (m *Machine) login(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if c.User() != m.user {
		return nil, errLogin
	}
	rest, err := os.ReadFile(m.authorizedKeys())
	if err != nil {
		return nil, errLogin
	}
	want := key.Marshal()
	for len(rest) > 0 {
		var have ssh.PublicKey
		var options []string
		if have, _, options, rest, err = ssh.ParseAuthorizedKey(rest); err != nil {
			break
		}
		if len(options) == 0 && bytes.Equal(have.Marshal(), want) {
			return nil, nil
		}
	}
	return nil, errLogin
}
