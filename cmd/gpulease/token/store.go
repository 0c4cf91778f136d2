// Package token keeps the bearer tokens by which principals are known to a server
// over HTTP. Its file has their hashes only: who reads it can impersonate nobody.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Record is what is kept of a token.
type Record struct {
	Principal string    `json:"principal"`
	SHA256    string    `json:"sha256"` // of the whole token, hexadecimal; it has 256 random bits, so it needs no salt
	Created   time.Time `json:"created"`
}

// Prefix begins every token, for those who look for secrets in files.
const Prefix = "gpulease_"

const (
	secretBytes = 32
	maxFile     = 1 << 20
)

var (
	// ErrExists: the principal has a token.
	ErrExists = errors.New("has a token")
	// ErrNone: the principal has no token.
	ErrNone = errors.New("has no token")
)

// Store is a file of tokens. All its methods may be called from any number of
// goroutines and processes.
type Store struct {
	Path string

	mu   sync.Mutex
	read []Record
	was  os.FileInfo // the file that read is of; nil for none
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName fails for what cannot be a principal's name. It is also the name of a
// directory, so that upper and lower case must not tell two of them apart.
func CheckName(principal string) error {
	if !name.MatchString(principal) {
		return fmt.Errorf("%q is no name for a principal: want at most 63 of a-z, 0-9, dot, dash and underscore, a letter or digit first", principal)
	}
	if strings.HasPrefix(principal, "oauth.") {
		return fmt.Errorf("%q: names that begin with oauth. are those of an external issuer", principal)
	}
	return nil
}

// Create makes the principal's one token. It is not kept: the result is the only
// copy. With replace, an earlier one ends; without, ErrExists is returned for it.
func (s *Store) Create(principal string, replace bool, now time.Time) (string, error) {
	if err := CheckName(principal); err != nil {
		return "", err
	}
	raw := make([]byte, secretBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	secret := Prefix + base64.RawURLEncoding.EncodeToString(raw)
	err := s.change(func(all []Record) ([]Record, error) {
		i := slices.IndexFunc(all, func(r Record) bool { return r.Principal == principal })
		if i >= 0 && !replace {
			return nil, fmt.Errorf("%s %w", principal, ErrExists)
		}
		if i >= 0 {
			all = slices.Delete(all, i, i+1)
		}
		return append(all, Record{principal, hash(secret), now.UTC().Truncate(time.Second)}), nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Revoke ends the principal's token, or returns ErrNone.
func (s *Store) Revoke(principal string) error {
	return s.change(func(all []Record) ([]Record, error) {
		rest := slices.DeleteFunc(slices.Clone(all), func(r Record) bool { return r.Principal == principal })
		if len(rest) == len(all) {
			return nil, fmt.Errorf("%s %w", principal, ErrNone)
		}
		return rest, nil
	})
}

// List is all tokens, by principal. A file that is not there has none.
func (s *Store) List() ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load()
}

// Authenticate is the principal of a token; ok is false where no principal has it.
// It takes as long for a token that is nearly right as for any other.
func (s *Store) Authenticate(secret string) (principal string, ok bool, err error) {
	all, err := s.List()
	if err != nil {
		return "", false, err
	}
	sum := []byte(hash(secret))
	for _, r := range all {
		if subtle.ConstantTimeCompare(sum, []byte(r.SHA256)) == 1 {
			principal, ok = r.Principal, true
		}
	}
	return principal, ok, nil
}

// Has reports whether the principal has a token.
func (s *Store) Has(principal string) (bool, error) {
	all, err := s.List()
	return slices.ContainsFunc(all, func(r Record) bool { return r.Principal == principal }), err
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// load reads the file if it has changed since.
func (s *Store) load() ([]Record, error) {
	info, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.read, s.was = nil, nil
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the tokens: %w", err)
	case s.was != nil && os.SameFile(info, s.was) && info.ModTime().Equal(s.was.ModTime()) && info.Size() == s.was.Size():
		return s.read, nil
	}
	s.read, s.was = nil, nil
	all, err := s.parse()
	if err != nil {
		return nil, fmt.Errorf("read the tokens in %s: %w", s.Path, err)
	}
	s.read, s.was = all, info
	return all, nil
}

func (s *Store) parse() ([]Record, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := onlyOurs(f); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	var file struct {
		Tokens []Record `json:"tokens"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	for _, r := range file.Tokens {
		if err := CheckName(r.Principal); err != nil {
			return nil, err
		}
		if b, err := hex.DecodeString(r.SHA256); err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("the token of %s is no SHA-256", r.Principal)
		}
	}
	return file.Tokens, nil
}

// change replaces the file by a changed one, at once, so that a server never reads
// half of it. Two changes do not cross.
func (s *Store) change(f func([]Record) ([]Record, error)) (err error) {
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	lock := flock.New(s.Path+".lock", flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock the tokens: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.load()
	if err != nil {
		return err
	}
	if all, err = f(slices.Clone(all)); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Principal, b.Principal) })
	b, err := json.MarshalIndent(map[string]any{"tokens": append([]Record{}, all...)}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the tokens: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.Path), filepath.Base(s.Path)+".*") // has mode 0600
	if err != nil {
		return fmt.Errorf("write the tokens: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), s.Path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the tokens: %w", err), os.Remove(tmp.Name()))
	}
	s.was = nil
	return nil
}
