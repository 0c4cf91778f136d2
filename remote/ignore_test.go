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

// git itself says what each set of patterns means.
func TestIgnoreMeansWhatGitMeans(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	paths := []string{
		"a", "a.log", "b.txt", "dir/a", "dir/a.log", "dir/sub/a", "dir/sub/deep/b.txt", "other/dir/a", "build/x", "x/build",
		"x/build2", "foo/bar", "foo/baz/bar", "z/foo/bar", "#hash", "!bang", "sp ace", "trail ", "[b]", "abc", "adc", "a-c",
		"ü/x", "x.ü", `back\s`, "dir/.hidden", ".hidden", "a*b", "deep/1/2/3/end", "end",
	}
	dir := t.TempDir()
	for _, p := range paths {
		file := filepath.Join(dir, p)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, nil, 0o644))
	}
	require.NoError(t, exec.Command("git", "init", "-q", dir).Run())
	for _, patterns := range []string{
		"a", "/a", "*.log", "dir", "dir/", "/dir/a", "dir/a", "dir/*", "dir/**", "**/a", "**/foo/bar", "foo/**/bar", "foo/*/bar",
		"build/", "build", "*\n!a.log", "dir/\n!dir/a", "dir/*\n!dir/a", `\#hash`, `\!bang`, "#hash", "sp ace", "trail ", `trail\ `,
		"[b]", `\[b\]`, "a[bd]c", "a[!b]c", "a[^b]c", "a[a-z]c", "a[]-]c", "?", "???", "*", "/*", "**", ".*", "x.ü", "ü", `back\\s`,
		`a\*b`, "deep/**/end", "deep/**", "**/2/**", "a[", "  ", "/", "dir/sub/", "*.txt\n!b.txt\n/dir/sub/deep/b.txt", "foo**bar", "b**",
		"a\r\nb.txt\r", "[[:alpha:]].log",
	} {
		t.Run(strings.ReplaceAll(patterns, "\n", "+"), func(t *testing.T) {
			list := filepath.Join(t.TempDir(), "patterns")
			require.NoError(t, os.WriteFile(list, []byte(patterns+"\n"), 0o644))
			out, err := exec.Command("git", "-C", dir, "ls-files", "-o", "-z", "--exclude-from", list).Output()
			require.NoError(t, err)
			want := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")

			rules, err := parseIgnore("patterns", patterns)
			require.NoError(t, err)
			got := []string{}
			for _, p := range paths {
				if !rules.excluded(p, false) {
					got = append(got, p)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if len(got) == 0 {
				got = []string{""}
			}
			require.Equal(t, want, got)
		})
	}
}
