package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// cli runs the program in this process, with directories of its own.
func cli(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, append([]string{"HOME=" + t.TempDir()}, env...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWhatNoCommandKnowsIsAUsageError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		says string
	}{
		{"frob", `there is no command "frob"; see gpulease --help`},
		{"leese", `there is no command "leese" (perhaps leases); see gpulease --help`},
		{"policy frob", `there is no command "frob"; see gpulease policy --help`},
		{"leases extra", `unexpected arguments: ["extra"]; see gpulease leases --help`},
		{"policy check a b", `unexpected arguments: ["a" "b"]; see gpulease policy check --help`},
		{"version --frob", "unknown flag: --frob; see gpulease version --help"},
		{"demo --boot-time -1s", "--boot-time -1s: it cannot be negative"},
		{"demo --command=", "--command is empty: say what to run, or leave it out"},
	} {
		code, out, errs := cli(t, nil, strings.Fields(c.args)...)
		require.Equal(t, exitUsage, code, c.args)
		require.Empty(t, out, c.args)
		require.Equal(t, "gpulease: "+c.says+"\n", errs)
	}
	for _, args := range []string{"", "policy"} {
		code, out, errs := cli(t, nil, strings.Fields(args)...)
		require.Zero(t, code, args)
		require.Contains(t, out, "Available Commands", args)
		require.Empty(t, errs, args)
	}
}

func TestPolicyCheckWithoutAFile(t *testing.T) {
	t.Parallel()
	code, out, _ := cli(t, nil, "policy", "check")
	require.Zero(t, code)
	require.Contains(t, out, "the defaults are in force")

	missing := filepath.Join(t.TempDir(), "policy.yaml")
	for _, args := range [][]string{{"policy", "check", missing}, {"policy", "check", "--policy", missing}} {
		code, out, errs := cli(t, nil, args...)
		require.Equal(t, 1, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errs, missing, args)
	}
}

func TestStopSaysItOnce(t *testing.T) {
	t.Parallel()
	code, out, errs := cli(t, nil, "stop", "--all")
	require.Zero(t, code, errs)
	require.Equal(t, "no leases\n", out)
	require.Empty(t, errs)

	code, out, errs = cli(t, nil, "stop", "nosuch")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Equal(t, "gpulease: there is no lease \"nosuch\"; gpulease leases --all lists them\n", errs)
}

// A key that cannot be used is said first; a keeper that has one does the rest.
func TestStopWithoutAUsableKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host("--keeper=false")
	id := h.ok("launch_lease", map[string]any{"type": testType, "purpose": "evil\x1b[2J\nline"}).Lease
	h.kill()
	for _, c := range []struct{ key, says string }{
		{"", "there is no usable Lambda API key: none of"},
		{"secret_other_0123456789abcdef0123456789abcdef", "Lambda does not accept the API key"},
	} {
		code, out, errs := cli(t, w.withKey(c.key), "stop", id, "--wait", "1s", "--keeper=false")
		require.Equal(t, exitUnconfirmed, code, errs)
		require.Empty(t, out)
		require.True(t, strings.HasPrefix(errs, "gpulease: "+c.says), errs)
		require.Contains(t, errs, "set LAMBDA_API_KEY", "what to do")
		require.Equal(t, 1, strings.Count(errs, "gpulease: lease "), errs)
	}
	require.Len(t, w.sim.Running(), 1)

	code, out, errs := cli(t, w.env, "leases", "--keeper=false")
	require.Equal(t, exitUnconfirmed, code, errs)
	require.Contains(t, out, `evil\x1b[2J\nline`)
	table, _, _ := strings.Cut(out, "\n\n")
	require.Len(t, strings.Split(strings.TrimSpace(table), "\n"), 2, "one line for each lease")
	code, out, errs = cli(t, w.env, "leases", "--json", "--keeper=false")
	require.Zero(t, code, errs)
	require.Contains(t, out, `"created_at":"20`)
	require.Contains(t, out, `"purpose":"evil\u001b[2J\nline"`)
	require.NotContains(t, out, "ended_at", "it has not ended")
}

// The key is often known to the agent's host only, and a person in a terminal
// wants it to end.
func TestStopWithoutAKeyThroughTheKeeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.kill()
	require.True(t, w.keeperRuns())
	code, out, errs := cli(t, w.withKey(""), "stop", "--all")
	require.Zero(t, code, errs)
	require.Contains(t, out, id+": ended (stopped)")
	require.True(t, strings.HasPrefix(errs, "gpulease: there is no usable Lambda API key"), errs)
	require.Empty(t, w.sim.Running())
}

// withKey is the world's environment with another key.
func (w *world) withKey(key string) []string {
	return append(slices.Clone(w.env), "LAMBDA_API_KEY="+key)
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"train it, naïvely: 训练": "train it, naïvely: 训练",
		"a\tb\nc\x1b[31m\r\x7f": `a\tb\nc\x1b[31m\r\x7f`,
		"\u202eback\u009b":      `\u202eback\u009b`,
		"broken \xff end":       `broken \xff end`,
	} {
		require.Equal(t, want, printable(in))
	}
}

func TestDeadlineNamesItsZone(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	zone, _ := at.Local().Zone()
	require.True(t, strings.HasSuffix(deadline(lease.Lease{Deadline: at}), " "+zone))
	require.Equal(t, "-", deadline(lease.Lease{}))
}
