package policy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/policy"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	// By rename, as the documentation asks, so that no reader sees half of it.
	tmp := path + ".new"
	require.NoError(t, os.WriteFile(tmp, []byte(text), 0o600))
	require.NoError(t, os.Rename(tmp, path))
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	_, err := policy.Load(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	var fe *policy.FileError
	require.ErrorAs(t, err, &fe)
	require.ErrorContains(t, err, path+": the policy cannot be read: ")

	write(t, path, "caps: {per_day: 7}\n")
	p, err := policy.Load(path)
	require.NoError(t, err)
	require.Equal(t, path, p.Path())
	r := small()
	r.TTL, r.PricePerHour = 8*3600e9, policy.Dollar
	d := policy.Evaluate(p, r, policy.Usage{}, nil)
	require.Equal(t, path+":1", d.Violations[0].Source)

	write(t, path, "caps: {per_day: x}\n")
	_, err = policy.Load(path)
	require.EqualError(t, err, path+`:1:17: caps.per_day: "x" is not an amount in dollars such as 1.29: want dollars such as 25 or 1.29, or none`)

	_, err = policy.Load(filepath.Dir(path))
	require.ErrorContains(t, err, "not a regular file")
}

func TestLoadGivesAnAbsolutePath(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "p.yaml", "max_leases: 1\n")
	p, err := policy.Load("p.yaml")
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(p.Path()))
}

func TestSourceWithoutAFile(t *testing.T) {
	for _, s := range []*policy.Source{
		{}, {Path: filepath.Join(t.TempDir(), "policy.yaml")}, {Path: filepath.Join(t.TempDir(), "no", "such", "policy.yaml")},
	} {
		p, err := s.Current()
		require.NoError(t, err)
		require.Equal(t, policy.Default().Hash(), p.Hash())

		s.Explicit = true
		_, err = s.Current()
		require.Error(t, err, "a file that was named must be there")
	}
}

func TestSourceFailsClosed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	s := &policy.Source{Path: path}

	write(t, path, "max_leases: 1\n")
	p, err := s.Current()
	require.NoError(t, err)
	require.Equal(t, 1, p.MaxLeases)
	same, err := s.Current()
	require.NoError(t, err)
	require.Same(t, p, same, "an unchanged file is not parsed again")

	// As long as before: neither size nor time of change need differ.
	write(t, path, "max_leases: 3\n")
	p, err = s.Current()
	require.NoError(t, err)
	require.Equal(t, 3, p.MaxLeases)

	for name, text := range map[string]string{"broken": "max_leases: -3\n", "emptied": "", "half written": "max_leas"} {
		write(t, path, text)
		_, err = s.Current()
		require.Error(t, err, name)
	}

	require.NoError(t, os.Remove(path))
	_, err = s.Current()
	require.ErrorContains(t, err, "was there and is gone")
	require.ErrorIs(t, err, fs.ErrNotExist)

	write(t, path, "max_leases: 3\n")
	p, err = s.Current()
	require.NoError(t, err, "back again")
	require.Equal(t, 3, p.MaxLeases)

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = s.Current()
	require.ErrorContains(t, err, "not a regular file")

	_, err = (&policy.Source{Path: filepath.Join(dir, "file", "policy.yaml")}).Current()
	require.NoError(t, err)
	write(t, filepath.Join(dir, "file"), "x")
	_, err = (&policy.Source{Path: filepath.Join(dir, "file", "policy.yaml")}).Current()
	require.Error(t, err, "a file where a directory should be is not a missing policy")
}

func TestSourceDanglingLinkIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.Symlink("nowhere.yaml", path); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	_, err := (&policy.Source{Path: path}).Current()
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestSourceConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "max_leases: 1\n")
	s := &policy.Source{Path: path}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := 0
			for range 200 {
				p, err := s.Current()
				if !assert.NoError(t, err) {
					return
				}
				// The file only ever goes up, and one reader must never see it go down.
				assert.GreaterOrEqual(t, p.MaxLeases, last)
				last = p.MaxLeases
			}
		})
	}
	for _, n := range []string{"2", "3", "4", "5"} {
		write(t, path, "max_leases: "+n+"\n")
	}
	wg.Wait()
	p, err := s.Current()
	require.NoError(t, err)
	require.Equal(t, 5, p.MaxLeases)
}
