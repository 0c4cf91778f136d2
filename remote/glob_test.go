//go:build unix

package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestFetchPatterns(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			h := startHostWith(t, shell)
			testFetchPatterns(t, h.Target, h.home)
		})
	}
	t.Run("machine", func(t *testing.T) {
		t.Parallel()
		m, target := startMachine(t, machine.Config{})
		testFetchPatterns(t, target, m.Home())
	})
}

func testFetchPatterns(t *testing.T, target remote.Target, home string) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret.json"), "secret")
	for _, name := range []string{
		"runs/a.json", "runs/b.json", "runs/.hidden.json", "runs/new\nline.json", "runs/sp ace.json", "runs/c.txt",
		"runs/1/x.json", "runs/1/deep/y.json", "runs/2/x.json", "literal[1].json", "literal1.json", "bad\xff.json",
	} {
		write(t, filepath.Join(home, name), name)
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(home, "runs/away")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret.json"), filepath.Join(home, "runs/link.json")))
	p := newPool(t, remote.Config{})
	for pattern, want := range map[string][]string{
		"runs/*.json":            {"runs/.hidden.json", "runs/a.json", "runs/b.json", "runs/new\nline.json", "runs/sp ace.json"},
		"runs/**/*.json":         {"runs/.hidden.json", "runs/1/deep/y.json", "runs/1/x.json", "runs/2/x.json", "runs/a.json", "runs/b.json", "runs/new\nline.json", "runs/sp ace.json"},
		"runs/[ab].json":         {"runs/a.json", "runs/b.json"},
		"runs/[!a].json":         {"runs/b.json"},
		"runs/?.txt":             {"runs/c.txt"},
		"runs/*/x.json":          {"runs/1/x.json", "runs/2/x.json"},
		"runs/1*":                {"runs/1/deep/y.json", "runs/1/x.json"},
		"literal[1].json":        {"literal[1].json"},
		"literal[0-9].json":      {"literal1.json"},
		"**/y.json":              {"runs/1/deep/y.json"},
		"*\xff*":                 {"bad\xff.json"},
		"runs/a*/secret.json":    nil,
		"runs/away/*":            {"runs/away/secret.json"}, // named without a pattern
		home + "/runs/?.txt":     {strings.TrimPrefix(home, "/") + "/runs/c.txt"},
		"runs/$(touch x)*":       nil,
		"runs/*'; touch y; '":    nil,
		"none/*":                 nil,
		"./runs/../runs/b.js*":   {"runs/b.json"},
		"~/runs/b.js[o]n":        {"runs/b.json"},
		"runs/[[:alpha:]].j[s]*": {"runs/a.json", "runs/b.json"},
	} {
		dst := t.TempDir()
		sum, err := p.Fetch(testContext(t), target, []string{pattern}, dst, remote.FetchOptions{})
		require.NoError(t, err, pattern)
		var got []string
		for _, f := range sum.Files {
			got = append(got, f.Path)
		}
		require.Equal(t, want, got, "%q", pattern)
		require.Len(t, contents(t, dst), len(want), "%q", pattern)
		if want == nil {
			require.Equal(t, []string{pattern}, sum.Missing)
		} else {
			require.Empty(t, sum.Missing)
		}
		if pattern == "runs/*.json" {
			require.Equal(t, "runs/link.json", sum.Skipped[0].Path, "a link that matches is named and not followed")
		}
	}
	_, err := p.Fetch(testContext(t), target, []string{"*/../../*"}, t.TempDir(), remote.FetchOptions{})
	require.ErrorIs(t, err, remote.ErrInvalid)
}
