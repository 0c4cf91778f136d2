//go:build unix

package remote

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a broken connection leaves of a start does nothing, wherever it is cut, and what has come whole runs once,
// however often it comes.
func TestAStartThatIsCutShortStartsNothing(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("the short way needs Linux")
	}
	home := t.TempDir()
	lib := filepath.Join(home, ".gpulease", "lib")
	require.NoError(t, os.MkdirAll(lib, 0o700))
	for _, s := range []script{briefScript, watchScript, jobScript, readyScript} {
		require.NoError(t, os.WriteFile(filepath.Join(lib, s.file), []byte(s.text), 0o600))
	}
	c := Command{Shell: "echo 'it'\\''s me' >>ran; echo out", Env: map[string]string{"A": "it's\n$(touch ran)"}}
	r := request{script: jobScript, args: []string{"brief", "job-cut", "200", "100", "100"}}
	require.NoError(t, c.pack(&r))
	require.NotEmpty(t, r.text)
	whole := briefScript.inline(r.args, r.text)
	run := func(text string) string {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		sh := exec.CommandContext(ctx, "sh", "-s")
		sh.Env, sh.Stdin = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, strings.NewReader(text)
		said, _ := sh.Output()
		return string(said)
	}
	last := strings.Index(whole, "\n. ") + len("\n. ")
	for cut := 0; cut < last; cut += 1 + last/40 {
		run(whole[:cut])
	}
	run(whole[:last])
	require.NoDirExists(t, filepath.Join(home, ".gpulease", "jobs"))
	require.NoFileExists(t, filepath.Join(home, "ran"))

	for range 3 {
		said := run(whole)
		require.Contains(t, said, "state exited\ncode 0\nreason exit\n")
		require.True(t, strings.HasSuffix(said, "\n\nout\n"), said)
	}
	ran, err := os.ReadFile(filepath.Join(home, "ran"))
	require.NoError(t, err)
	require.Equal(t, "it's me\n", string(ran))
	require.Eventually(t, func() bool {
		left, err := filepath.Glob(filepath.Join(home, ".gpulease", "jobs", "job-cut", "stage.*"))
		return err == nil && len(left) == 0
	}, 10*time.Second, 10*time.Millisecond, "what was staged may hold secrets")
}

func TestAReadyShellThatHearsHalfStartsNothing(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setsid"); err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no setsid: CI must have util-linux")
		t.Skip("a ready shell needs setsid")
	}
	for _, shell := range []string{"dash", "bash", "busybox"} {
		file, err := exec.LookPath(shell)
		if err != nil {
			continue // see shells: CI has them all
		}
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			lib := filepath.Join(home, ".gpulease", "lib")
			require.NoError(t, os.MkdirAll(lib, 0o700))
			require.NoError(t, os.Symlink(file, filepath.Join(lib, "sh")))
			for _, s := range []script{watchScript, jobScript, readyScript} {
				require.NoError(t, os.WriteFile(filepath.Join(lib, s.file), []byte(s.text), 0o600))
			}
			c := Command{Shell: "echo 'it'\\''s me' >>ran; echo out", Env: map[string]string{"A": "it's\n$(touch ran)"}}
			r := request{script: jobScript, args: []string{"brief", "job-half", "200", "100", "100"}, wait: 2 * time.Second}
			require.NoError(t, c.pack(&r))
			run := func(text string) string {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				sh := exec.CommandContext(ctx, file)
				if shell == "busybox" {
					sh.Args = []string{"sh"}
				}
				sh.Args = append(sh.Args, "-c", readyCommand)
				sh.Env = []string{"HOME=" + home, "PATH=" + lib + ":" + os.Getenv("PATH")}
				sh.Stdin = strings.NewReader(readyLoad + text)
				said, _ := sh.Output() // which ends when the shell has gone
				return string(said)
			}
			last := strings.LastIndex(r.ready, "'") // of the call's last word
			for cut := 0; cut < last; cut += 1 + last/20 {
				require.Empty(t, run(r.ready[:cut]))
			}
			for cut := strings.Index(r.ready, "gl_ready "); cut <= last; cut++ {
				require.Empty(t, run(r.ready[:cut]))
			}
			require.NoDirExists(t, filepath.Join(home, ".gpulease", "jobs"))
			require.NoFileExists(t, filepath.Join(home, "ran"))
			said := run(r.ready)
			require.Contains(t, said, "state exited\ncode 0\nreason exit\n")
			require.True(t, strings.HasSuffix(said, "\n\nout\n"), said)
			require.Empty(t, run(r.ready), "it has been started")
			ran, err := os.ReadFile(filepath.Join(home, "ran"))
			require.NoError(t, err)
			require.Equal(t, "it's me\n", string(ran))
		})
	}
}

func TestWhatIsLongOrHasInputGoesAsAFile(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		c    Command
		verb string
	}{
		"Short":   {Command{Shell: "true"}, "brief"},
		"Input":   {Command{Shell: "cat", Stdin: []byte("x")}, "start"},
		"Long":    {Command{Shell: strings.Repeat("x", longestText)}, "start"},
		"NotHere": {Command{Shell: "true", long: true}, "start"},
	} {
		r := request{args: []string{"start"}}
		require.NoError(t, tt.c.pack(&r))
		require.Equal(t, tt.verb, r.args[0], name)
		require.Equal(t, tt.verb == "brief", r.stdin == nil, name)
	}
}
