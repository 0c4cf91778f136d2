package policy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

// What comes back from an origin is the same policy, as its file says now.
func TestSourceFromItsOrigin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte("caps: {per_day: 7}\n"), 0o600))
	s := &policy.Source{Path: path, Explicit: true, Sets: []policy.Set{{Rule: "max_ttl", Value: "2h", Source: "flag --policy-set"}}}
	text := s.Origin()
	require.NoError(t, os.WriteFile(path, []byte("caps: {per_day: 8}\n"), 0o600))
	again, err := policy.SourceFrom(text)
	require.NoError(t, err)
	require.Equal(t, text, again.Origin())
	was, err := s.Current()
	require.NoError(t, err)
	is, err := again.Current()
	require.NoError(t, err)
	require.Equal(t, was.Hash(), is.Hash())
	require.NoError(t, os.Remove(path))
	_, err = again.Current()
	require.Error(t, err, "a file that was named has to be there")
	_, err = policy.SourceFrom("/etc/policy.yaml")
	require.Error(t, err)
}

// In the default place a file need not be there. One that was is not forgotten.
func TestOriginOfAFileInTheDefaultPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	s := &policy.Source{Path: path}
	_, err := s.Current()
	require.NoError(t, err)
	again, err := policy.SourceFrom(s.Origin())
	require.NoError(t, err)
	_, err = again.Current()
	require.NoError(t, err, "there was none, and there is none")

	require.NoError(t, os.WriteFile(path, []byte("caps: {per_day: 7}\n"), 0o600))
	_, err = s.Current()
	require.NoError(t, err)
	again, err = policy.SourceFrom(s.Origin())
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	_, err = again.Current()
	require.ErrorIs(t, err, os.ErrNotExist)
}
