//go:build unix

package tailnet_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/tailnet"
)

// program is a tailscale that answers so. These tests run one after the other: a program
// that was written while another one was being started could be busy.
func program(t *testing.T, script string) tailnet.CLI {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tailscale")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n[ \"$*\" = 'status --json' ] || exit 64\n"+script), 0o755))
	return tailnet.CLI(path)
}

func answering(t *testing.T, json string) tailnet.CLI {
	return program(t, "cat <<'EOF'\n"+json+"\nEOF\n")
}

const running = `"BackendState": "Running", "Self": {"HostName": "desk", "Online": true}`

func TestFind(t *testing.T) {
	c := answering(t, `{`+running+`, "Peer": {
		"nodekey:1": {"HostName": "gl-abcd-one", "DNSName": "gl-abcd-one.tail1.ts.net.", "TailscaleIPs": ["fd7a:115c:a1e0::1", "100.64.0.1"], "Online": true},
		"nodekey:2": {"HostName": "GL-ABCD-TWO", "DNSName": "gl-abcd-two.tail1.ts.net.", "TailscaleIPs": ["fd7a:115c:a1e0::2"], "Online": true},
		"nodekey:3": {"HostName": "gl-abcd-three", "DNSName": "gl-abcd-three.tail1.ts.net.", "TailscaleIPs": ["100.64.0.3"], "Online": false},
		"nodekey:4": {"HostName": "gl-abcd-three", "DNSName": "gl-abcd-three-1.tail1.ts.net.", "TailscaleIPs": ["100.64.0.4"], "Online": true},
		"nodekey:5": {"HostName": "gl-abcd-five", "DNSName": "gl-abcd-five.tail1.ts.net.", "TailscaleIPs": ["100.64.0.5"], "Online": true},
		"nodekey:6": {"HostName": "gl-abcd-five", "DNSName": "gl-abcd-five-1.tail1.ts.net.", "TailscaleIPs": ["100.64.0.6"], "Online": true},
		"nodekey:7": {"HostName": "gl-abcd-seven", "DNSName": "", "TailscaleIPs": null, "Online": true}
	}}`)
	require.NoError(t, c.Up(t.Context()))
	for name, want := range map[string]string{"gl-abcd-one": "100.64.0.1", "gl-abcd-two": "fd7a:115c:a1e0::2", "gl-abcd-three": "100.64.0.4"} {
		addr, err := c.Find(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, addr.String())
	}
	for _, name := range []string{"gl-abcd-eight", "gl-abcd-seven", "gl-abcd", "desk", ""} {
		addr, err := c.Find(t.Context(), name)
		require.NoError(t, err)
		require.False(t, addr.IsValid(), "%s", name)
	}
	_, err := c.Find(t.Context(), "gl-abcd-five")
	require.ErrorContains(t, err, "2 machines in the tailnet call themselves gl-abcd-five")
}

func TestThisComputerIsNotInATailnet(t *testing.T) {
	for want, c := range map[string]tailnet.CLI{
		"is not there (GPULEASE_TAILSCALE)":        "tailscale-that-is-nowhere",
		"none\" is not there (GPULEASE_TAILSCALE)": tailnet.CLI(filepath.Join(t.TempDir(), "none")),
		`"NeedsLogin"`: answering(t, `{"BackendState": "NeedsLogin"}`),
		`"Stopped"`:    answering(t, `{"BackendState": "Stopped", "Peer": null}`),
		"offline":      answering(t, `{"BackendState": "Running", "Self": {"Online": false}}`),
		"failed to connect; is tailscaled running?": program(t, "echo 'failed to connect; is\ntailscaled running?' >&2; exit 1\n"),
		"its answer is not JSON":                    answering(t, "hello"),
	} {
		err := c.Up(t.Context())
		require.ErrorIs(t, err, tailnet.ErrNotUp)
		require.ErrorContains(t, err, want)
		_, err = c.Find(t.Context(), "gl-abcd-one")
		require.ErrorIs(t, err, tailnet.ErrNotUp)
	}
}

// Whatever the program prints, it costs neither the process, which guards leases, nor its memory.
func TestProgramThatAnswersAnything(t *testing.T) {
	for _, peers := range []string{`{"nodekey:1": null}`, `{"nodekey:1": {"HostName": "gl-abcd-one", "TailscaleIPs": [""]}}`, `{}`, `null`} {
		addr, err := answering(t, `{`+running+`, "Peer": `+peers+`}`).Find(t.Context(), "gl-abcd-one")
		require.NoError(t, err)
		require.False(t, addr.IsValid(), "%s", peers)
	}
	for want, script := range map[string]string{
		"more than 64 MiB":   "exec head -c 1000000000 /dev/zero\n",
		"exit status 1: yyy": "head -c 1000000000 /dev/zero | tr '\\000' y >&2; exit 1\n",
		`\x1b[2J`:            `printf '{"BackendState": "\\u001b[2J%s"}' $(head -c 100000 /dev/zero | tr '\000' z)` + "\n",
		"?[2Jnot running":    `printf '\033[2Jnot running' >&2; exit 1` + "\n",
	} {
		before := allocated()
		err := program(t, script).Up(t.Context())
		require.ErrorIs(t, err, tailnet.ErrNotUp)
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 1000)
		require.Less(t, allocated()-before, uint64(700<<20), "%s", want)
	}
}

// allocated is how much memory was ever taken, in bytes.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
