//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// demoProcess is a demo that runs in a process group and with temporary files of
// its own.
type demoProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	tmp  string
	pipe io.Closer
	out  *bufio.Scanner
	errs bytes.Buffer
}

func startDemo(t *testing.T, args ...string) *demoProcess {
	t.Helper()
	d := &demoProcess{t: t, tmp: t.TempDir()}
	project := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(project, "a.txt"), []byte("a\n"), 0o600))
	d.cmd = exec.Command(os.Args[0], append([]string{"demo", "--project", project, "--boot-time", "200ms"}, args...)...)
	d.cmd.Env = []string{asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + project, "TMPDIR=" + d.tmp}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.Stderr = &d.errs
	stdout, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() { _ = d.cmd.Process.Kill() }) // it has ended in a test that passes
	d.pipe, d.out = stdout, bufio.NewScanner(stdout)
	return d
}

// until reads the output up to a line that has the text.
func (d *demoProcess) until(text string) {
	d.t.Helper()
	for d.out.Scan() {
		if strings.Contains(d.out.Text(), text) {
			return
		}
	}
	d.t.Fatalf("the demo ended without %q: %s", text, d.errs.String())
}

// ended waits for the end of the demo and returns its exit code and the rest of
// its output.
func (d *demoProcess) ended() (code int, rest string) {
	d.t.Helper()
	killed := time.AfterFunc(time.Minute, func() { _ = d.cmd.Process.Kill() })
	defer killed.Stop()
	var b strings.Builder
	for d.out.Scan() {
		b.WriteString(d.out.Text() + "\n")
	}
	_ = d.cmd.Wait() // the code says it
	return d.cmd.ProcessState.ExitCode(), b.String()
}

// leavesNothing checks that there is no file, and no process that has the
// demo's directory for temporary files in its environment.
func (d *demoProcess) leavesNothing() {
	d.t.Helper()
	left, err := os.ReadDir(d.tmp)
	require.NoError(d.t, err)
	require.Empty(d.t, left)
	// The keeper has given up its lock, and is about to end.
	require.Eventually(d.t, func() bool { return len(processesWith(d.t, "TMPDIR="+d.tmp)) == 0 }, 10*time.Second, 50*time.Millisecond,
		"processes are left: %v", processesWith(d.t, "TMPDIR="+d.tmp))
}

func processesWith(t *testing.T, variable string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ") // none but on Linux
	require.NoError(t, err)
	var found []string
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err == nil && bytes.Contains(env, []byte(variable+"\x00")) { // a dead process's is empty
			found = append(found, f)
		}
	}
	return found
}

// A terminal sends its signal to all of the foreground: the demo, and whatever
// it has started and left there.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"in the launch call": "== Launch",
		"in a command":       "== Run its tests there",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, "--command", "sleep 600")
			d.until(line)
			// The keeper is started in the launch call.
			require.Eventually(t, func() bool {
				found, err := filepath.Glob(filepath.Join(d.tmp, "gpulease-demo-*", "state", "keeper.lock"))
				return err == nil && len(found) == 1
			}, 30*time.Second, time.Millisecond)
			require.NoError(t, syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT))
			code, rest := d.ended()
			require.Equal(t, exitInterrupted, code, "%s%s", rest, d.errs.String())
			require.Equal(t, "gpulease: interrupted\n", d.errs.String())
			require.Contains(t, rest, "ended (stopped)")
			require.Contains(t, rest, "Nothing is left behind")
			d.leavesNothing()
		})
	}
}

func TestDemoIntoAClosedPipeLeavesNothing(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--command", "true")
	d.until("== The machine")
	require.NoError(t, d.pipe.Close())
	code, _ := d.ended()
	require.Equal(t, exitInterrupted, code, d.errs.String())
	require.Equal(t, "gpulease: interrupted\n", d.errs.String())
	d.leavesNothing()
}
