//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// crashVariable names a directory of traps: see arm.
const crashVariable = "GPULEASE_TEST_CRASH_AT"

// A child of these tests has the hooks that the product has not.
func init() {
	if dir := os.Getenv(crashVariable); dir != "" && len(os.Args) > 1 {
		hooks.crash = func(point string) { spring(filepath.Join(dir, os.Args[1]+"."+point)) }
	}
}

// spring lets a trap do to this process what it says, once in all processes.
func spring(trap string) {
	how, err := os.ReadFile(trap)
	if err != nil || os.Rename(trap, trap+".sprung") != nil {
		return
	}
	signal := syscall.SIGKILL
	if string(how) == "suspend" {
		signal = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), signal)
	if signal == syscall.SIGKILL {
		select {} // not one step further
	}
	time.Sleep(100 * time.Millisecond) // it takes a moment until all threads stand still
}

// trap is a point at which the next process of a kind that gets there dies.
type trap struct {
	t    *testing.T
	path string
}

func (w *world) traps() string { return filepath.Join(w.dir, "traps") }

// arm makes the next process whose first argument is child die at a point, as if by
// kill -9 from outside.
func (w *world) arm(child, point string) trap { return w.set(child, point, "kill") }

func (w *world) set(child, point, how string) trap {
	w.t.Helper()
	require.NoError(w.t, os.MkdirAll(w.traps(), 0o700))
	path := filepath.Join(w.traps(), child+"."+point)
	require.NoError(w.t, os.WriteFile(path+".new", []byte(how), 0o600))
	require.NoError(w.t, os.Rename(path+".new", path))
	return trap{w.t, path}
}

// sprung returns when a process has got there.
func (x trap) sprung(why func() string) {
	x.t.Helper()
	limit := time.Now().Add(3 * time.Minute)
	for {
		if _, err := os.Stat(x.path + ".sprung"); err == nil {
			return
		}
		if !time.Now().Before(limit) {
			require.Failf(x.t, "no process came to that point", "%s\n%s", filepath.Base(x.path), why())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// impatient is a world with hardly a rate limit, whose processes die in traps.
func impatient(t *testing.T, cfg lambdatest.Config, env ...string) *world {
	w := newWorld(t, cfg)
	w.env = append(w.env, crashVariable+"="+w.traps(), paceVariable+"=15ms")
	w.env = append(w.env, env...)
	return w
}

// points are the names of all steps at which a process may be made to die, from the source.
func points(t *testing.T) map[string]bool {
	t.Helper()
	call := regexp.MustCompile(`\bCrash\(([^)]*)\)`)
	names := map[string]bool{}
	for _, dir := range []string{"../../lease", "../../ledger", "."} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			src, err := os.ReadFile(f)
			require.NoError(t, err)
			for _, m := range call.FindAllSubmatch(src, -1) {
				require.Regexp(t, `^"[a-z]+(-[a-z]+)*"$`, string(m[1]), "%s: a point that cannot be found by its name", f)
				name := strings.Trim(string(m[1]), `"`)
				require.False(t, names[name], "two points are called %s", name)
				names[name] = true
			}
		}
	}
	return names
}

// The product has no such hooks: with everything armed, the real binary goes its way.
func TestProductDoesNotKnowTheTraps(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "gpulease")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	code, err := os.ReadFile(binary)
	require.NoError(t, err)
	require.Contains(t, string(code), "LAMBDA_API_KEY_COMMAND")
	for _, name := range []string{crashVariable, paceVariable} {
		require.False(t, bytes.Contains(code, []byte(name)), "the product knows %s", name)
	}

	w := impatient(t, lambdatest.Config{BootTime: 20 * time.Millisecond, TerminateTime: -1})
	w.exe = binary
	armed := points(t)
	for point := range armed {
		w.arm("serve", point)
		w.arm("keeper", point)
	}
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType, "ttl_minutes": 5}).Lease
	h.until(id, "ready")
	w.stop(h, id)
	require.NoError(t, h.session.Close())
	require.Zero(t, h.cmd.ProcessState.ExitCode())
	left, err := filepath.Glob(filepath.Join(w.traps(), "*"))
	require.NoError(t, err)
	require.Len(t, left, 2*len(armed))
	for _, trap := range left {
		require.NotContains(t, trap, ".sprung")
	}
}
