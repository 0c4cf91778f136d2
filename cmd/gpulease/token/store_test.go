package token_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/token"
)

func TestATokenIsShownOnceAndKnownUntilItIsRevoked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "tokens.json")
	s, server := &token.Store{Path: path}, &token.Store{Path: path} // two processes
	_, ok, err := server.Authenticate("")
	require.NoError(t, err)
	require.False(t, ok)

	secret, err := s.Create("ci", false, time.Unix(1_700_000_000, 5))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(secret, token.Prefix))
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(file), strings.TrimPrefix(secret, token.Prefix), "only its hash is kept")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	who := func(secret string) string {
		name, ok, err := server.Authenticate(secret)
		require.NoError(t, err)
		require.Equal(t, ok, name != "")
		return name
	}
	require.Equal(t, "ci", who(secret))
	require.Empty(t, who(secret+"x"))
	require.Empty(t, who(secret[:len(secret)-1]))

	_, err = s.Create("ci", false, time.Now())
	require.ErrorIs(t, err, token.ErrExists)
	second, err := s.Create("ci", true, time.Now())
	require.NoError(t, err)
	require.Empty(t, who(secret), "the one before ends")
	require.Equal(t, "ci", who(second))

	require.NoError(t, s.Revoke("ci"))
	require.Empty(t, who(second))
	require.ErrorIs(t, s.Revoke("ci"), token.ErrNone)
}

func TestTokensThatCannotBeTrustedLetNobodyIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.json")
	s := &token.Store{Path: path}
	secret, err := s.Create("ci", false, time.Now())
	require.NoError(t, err)
	good, err := os.ReadFile(path)
	require.NoError(t, err)

	require.NoError(t, os.Chmod(path, 0o620))
	_, _, err = (&token.Store{Path: path}).Authenticate(secret)
	require.ErrorContains(t, err, "others may write the tokens (mode 0620): run chmod 600")
	require.NoError(t, os.Chmod(path, 0o600))
	for _, bad := range []string{"", "{", `{"tokens":[{"principal":"../up","sha256":""}]}`, strings.Replace(string(good), `"sha256": "`, `"sha256": "00`, 1)} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, ok, err := s.Authenticate(secret)
		require.Error(t, err, "%q", bad)
		require.False(t, ok)
	}
}

func TestNamesThatAreNoDirectories(t *testing.T) {
	s := &token.Store{Path: filepath.Join(t.TempDir(), "tokens.json")}
	for _, bad := range []string{"", ".", "..", ".git", "a/b", "a b", "CI", "ä", strings.Repeat("x", 64), "a\n", "oauth.x"} {
		_, err := s.Create(bad, false, time.Now())
		require.ErrorContains(t, err, "name", "%q", bad)
	}
}

func TestTokensMadeAtOnceAreAllKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.json")
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		all.Go(func() {
			_, err := (&token.Store{Path: path}).Create(name, false, time.Now())
			assert.NoError(t, err)
		})
	}
	all.Wait()
	records, err := (&token.Store{Path: path}).List()
	require.NoError(t, err)
	require.Len(t, records, 6)
}
