package remote

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// grow makes files with their directories; a name that ends in a slash is an empty directory.
func grow(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(file, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
}

var ignoring = map[string]string{
	".gitignore":           "*.key\n/data/\nbuild\n!keep.key\nsub/only.txt\n",
	".env":                 "sent as it is",
	"a.py":                 "",
	"a.key":                "",
	"keep.key":             "",
	"data/x":               "",
	"other/data/x":         "",
	"build":                "",
	"deep/build/x":         "",
	"sub/.gitignore":       "!special.key\n*.tmp\n/here\n",
	"sub/special.key":      "",
	"sub/a.key":            "",
	"sub/only.txt":         "",
	"sub/a.tmp":            "",
	"sub/here":             "",
	"sub/under/here":       "",
	"sub/under/.gitignore": "!*.tmp\n",
	"sub/under/a.tmp":      "",
	"sub/under/a.key":      "",
	"venv/.gitignore":      "*\n",
	"venv/bin/python":      "",
	"neighbour/a.tmp":      "",
	"secret/.gitignore":    "hidden/\n",
	"secret/hidden/x":      "",
	"secret/shown":         "",
}

// git itself says what .gitignore files mean; without a repository they must mean the same.
func TestWalkMeansWhatGitMeans(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	dir := t.TempDir()
	grow(t, dir, ignoring)
	got, err := walk(dir, true)
	require.NoError(t, err)
	require.NoError(t, exec.Command("git", "init", "-q", dir).Run())
	out, err := exec.Command("git", "-C", dir, "ls-files", "-o", "-z", "--exclude-standard").Output()
	require.NoError(t, err)
	want := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(got)
	slices.Sort(want)
	require.Equal(t, want, got)
	require.Contains(t, got, ".env")
	require.NotContains(t, got, "a.key")
	require.Less(t, len(got), len(ignoring)-5)
}

// No git has to be installed for it.
func TestTreeHonoursGitignoreWithoutGit(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, map[string]string{".gitignore": "*.key\n", "a.key": "", "a.py": "", "sub/b.key": "", "sub/b.py": "", "empty/": "", ".env": ""})
	t.Setenv("PATH", "")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	items, skipped, err := tree(t.Context(), dir, root, nil)
	require.NoError(t, err)
	require.Empty(t, skipped)
	require.Equal(t, []string{".env", ".gitignore", "a.py", "empty", "sub/b.py"}, paths(items))
}

func TestTreeLeavesOutWhatIsExcluded(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, map[string]string{"a": "", "state/ledger": "", "state/deep/key": "", "state2/x": "", "config/policy": "", "alias/x": ""})
	other := filepath.Join(t.TempDir(), "other name")
	require.NoError(t, os.Symlink(filepath.Join(dir, "config"), other))
	exclude := []string{filepath.Join(dir, "state"), other, filepath.Join(dir, "absent")}
	for _, git := range []bool{false, true} {
		if git {
			if _, err := exec.LookPath("git"); err != nil {
				t.Skip("no git here")
			}
			require.NoError(t, exec.Command("git", "init", "-q", dir).Run())
		}
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		items, _, err := tree(t.Context(), dir, root, exclude)
		require.NoError(t, root.Close())
		require.NoError(t, err)
		require.Equal(t, []string{"a", "alias/x", "state2/x"}, paths(items))
	}
}

func paths(items []item) []string {
	var list []string
	for _, it := range items {
		list = append(list, it.path)
	}
	return list
}
