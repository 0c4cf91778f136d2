package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/cmd/gpulease/tailnet"
	"github.com/gpulease/gpulease/lambda"
)

// Where the key to the tailnet comes from.
const (
	authKeyCommandVariable = "GPULEASE_TAILSCALE_AUTHKEY_COMMAND"
	authKeyFileVariable    = "GPULEASE_TAILSCALE_AUTHKEY_FILE"
)

// authKeySource is the setting that authKey takes the key from, "" where there is none.
func (s *settings) authKeySource() string {
	switch {
	case s.authKeyCommand != "":
		return authKeyCommandVariable
	case s.authKeyFile != "":
		return authKeyFileVariable
	}
	return ""
}

var errNoAuthKey = fmt.Errorf("neither %s nor %s is set", authKeyCommandVariable, authKeyFileVariable)

// authKey takes a key with which a machine may join the tailnet. Errors never repeat it.
func (s *settings) authKey(ctx context.Context) (lambda.Secret, error) {
	switch s.authKeySource() {
	case authKeyCommandVariable:
		text, err := s.runKeyCommand(ctx, authKeyCommandVariable, s.authKeyCommand)
		if err != nil {
			return lambda.Secret{}, err
		}
		return parseAuthKey(authKeyCommandVariable, text)
	case authKeyFileVariable:
		return s.fileAuthKey()
	}
	return lambda.Secret{}, errNoAuthKey
}

// fileAuthKey reads the file unless others may.
func (s *settings) fileAuthKey() (lambda.Secret, error) {
	info, err := os.Stat(s.authKeyFile)
	if err == nil && !info.Mode().IsRegular() { // asked before opening: to open a pipe would block
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return lambda.Secret{}, fmt.Errorf("read the tailnet's key from %s: %w", authKeyFileVariable, err)
	}
	f, err := os.Open(s.authKeyFile)
	if err != nil {
		return lambda.Secret{}, fmt.Errorf("read the tailnet's key from %s: %w", authKeyFileVariable, err)
	}
	defer f.Close()
	info, err = f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		err = fmt.Errorf("others may read it (mode %04o): run chmod 600 %s", info.Mode().Perm(), doctor.Quote(s.authKeyFile))
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, maxKeyText))
	}
	if err != nil {
		return lambda.Secret{}, fmt.Errorf("read the tailnet's key from %s: %w", authKeyFileVariable, err)
	}
	return parseAuthKey(authKeyFileVariable, string(b))
}

func parseAuthKey(from, text string) (lambda.Secret, error) {
	text = strings.TrimSpace(text)
	if err := checkAuthKey(text); err != nil {
		return lambda.Secret{}, fmt.Errorf("%s: %w", from, err)
	}
	return lambda.NewSecret(text), nil
}

// keyForm has nothing that JSON or a shell would write in another way: such a spelling of
// the key would not be known for it in what is said.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9._~:+=/-]+$`)

// checkAuthKey refuses what is no key for one machine. What opens more than that is not
// for a machine on which an agent works.
func checkAuthKey(key string) error {
	switch {
	case key == "":
		return errors.New("it holds no key")
	case len(key) < 12 || len(key) > 512:
		return errors.New("what it holds is no key of 12 to 512 characters")
	case !keyForm.MatchString(key):
		return errors.New("the key has a space, or another character in it that no key has")
	case strings.HasPrefix(key, "tskey-client-"):
		return errors.New("it holds the secret of an OAuth client, which does not expire and would be readable on the machine; let a command make a single-use key with it (docs/tailscale.md)")
	case strings.HasPrefix(key, "tskey-api-"), strings.HasPrefix(key, "tskey-scim-"), strings.HasPrefix(key, "tskey-webhook-"):
		return errors.New("it holds a key of another kind: what lets a machine join begins with tskey-auth-")
	}
	return nil
}

// tailnetAccess is what package lease needs of the tailnet.
type tailnetAccess struct {
	s    *settings
	took func(lambda.Secret) // is told of each key, so that no text shows it
}

func (t tailnetAccess) cli() tailnet.CLI { return tailnet.CLI(t.s.tailscale) }

// Ready implements [lease.Tailnet]. A command is not run: it may make a key.
func (t tailnetAccess) Ready(ctx context.Context) error {
	switch t.s.authKeySource() {
	case "":
		return errNoAuthKey
	case authKeyFileVariable:
		if _, err := t.s.fileAuthKey(); err != nil {
			return err
		}
	}
	return t.cli().Up(ctx)
}

// AuthKey implements [lease.Tailnet].
func (t tailnetAccess) AuthKey(ctx context.Context) (lambda.Secret, error) {
	key, err := t.s.authKey(ctx)
	if err == nil {
		t.took(key)
	}
	return key, err
}

// Find implements [lease.Tailnet].
func (t tailnetAccess) Find(ctx context.Context, name string) (netip.Addr, error) {
	return t.cli().Find(ctx, name)
}

// joinKeys are the keys to the tailnet that this process has taken last.
type joinKeys struct {
	mu   sync.Mutex
	keys []lambda.Secret
}

// mostJoinKeys are enough for the leases that a process has at once.
const mostJoinKeys = 32

func (j *joinKeys) add(key lambda.Secret) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.ContainsFunc(j.keys, key.Equal) {
		return
	}
	if len(j.keys) == mostJoinKeys {
		j.keys = slices.Delete(j.keys, 0, 1)
	}
	j.keys = append(j.keys, key)
}

func (j *joinKeys) list() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var texts []string
	for _, k := range j.keys {
		texts = append(texts, k.Reveal())
	}
	return texts
}

// authKeyForms are Tailscale's secrets.
var authKeyForms = regexp.MustCompile(`tskey-[a-z]+-[\w-]{6,}`)
