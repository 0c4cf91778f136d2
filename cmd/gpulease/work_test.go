//go:build unix

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// What an agent and a person do with a ready machine: files up and home, a shell.
func TestWorkOnAMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	root := filepath.Join(w.dir, "project")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "src"), 0o755))
	require.NoError(t, os.Symlink(w.dir, filepath.Join(root, "escape")))
	for i := range 20 {
		require.NoError(t, os.WriteFile(filepath.Join(root, "src", string(rune('a'+i))), []byte{byte(i)}, 0o644))
	}
	h := w.host("--root", root)
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	h.until(id, "ready")

	send := map[string]any{"lease_id": id, "local_dir": "src", "delete": true}
	h.ok("sync_files", send)
	for i := range 15 {
		require.NoError(t, os.Remove(filepath.Join(root, "src", string(rune('a'+i)))))
	}
	text := h.refused(lease.CodeInvalidInput, "sync_files", send)
	require.Contains(t, text, "it would delete 15 of the 20 files that were sent there before, and at most 10 may go at once; nothing was sent or deleted")
	require.Contains(t, text, "max_delete 15")
	send["max_delete"] = 15
	require.Contains(t, string(h.ok("sync_files", send).Raw), `"files_deleted":15`)

	h.fetchFromAHostileMachine(t, id, root)
	w.visit(t, id)
	local := h.forward(t, id)

	// Another key than the pinned one: nothing is sent, by whatever way.
	require.NoError(t, w.sim.ChangeHostKey(w.sim.Running()[0].ID))
	require.NoError(t, h.session.Close())
	_, err := net.Dial("tcp", local)
	require.Error(t, err, "a forward ends with its server")
	h = w.host("--root", root)
	h.refused(lease.CodeHostKeyMismatch, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"src/out"}})
	h.refused(lease.CodeHostKeyMismatch, "sync_files", send)
	_, errs, code := w.ssh("", id, "--", "echo told")
	require.Equal(t, noConnection, code)
	require.Contains(t, errs, "HOST IDENTIFICATION HAS CHANGED")
	w.stop(h, id)
	_, errs, code = w.ssh("", id)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "has ended")
	require.Contains(t, errs, "next: gpulease audit show "+id)
}

// fetchFromAHostileMachine meets an odd name, links that lead out, and what git would run.
func (h *host) fetchFromAHostileMachine(t *testing.T, id, root string) {
	t.Helper()
	a := h.ok("run_command", map[string]any{"lease_id": id, "wait_seconds": 20, "command": `cd src && mkdir -p out/.git/hooks &&
		printf one >out/a.txt && printf two >out/b.txt && printf 'odd' >"out/$(printf 'new\nline')" && ln -s /etc/passwd out/leak && ln -s ../../.. out/up &&
		echo evil >out/.git/hooks/post-checkout`})
	require.Zero(t, *a.Exit, a.Stderr)
	h.refused(lease.CodePathDenied, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"src/out"}, "local_dir": "../loot"})
	h.refused(lease.CodePathDenied, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"src/out"}, "local_dir": "escape/loot"})
	text := h.refused(lease.CodeInvalidInput, "fetch_files", map[string]any{"lease_id": id, "paths": []string{"src/out"}, "max_bytes": 5})
	require.Contains(t, text, "max_bytes")
	require.Contains(t, text, "at most 5")
	a = h.ok("fetch_files", map[string]any{"lease_id": id, "paths": []string{"src/out", "src/*.none"}})
	home := filepath.Join(root, "results", id)
	var got struct {
		Complete bool     `json:"complete"`
		Dir      string   `json:"local_dir"`
		Files    int      `json:"files"`
		Missing  []string `json:"missing"`
		Skipped  []string `json:"skipped"`
	}
	require.NoError(t, json.Unmarshal(a.Raw, &got))
	require.True(t, got.Complete)
	require.Equal(t, home, got.Dir)
	require.Equal(t, 3, got.Files)
	require.Equal(t, []string{"src/*.none"}, got.Missing)
	require.Len(t, got.Skipped, 3)
	names, err := os.ReadDir(filepath.Join(home, "src", "out"))
	require.NoError(t, err)
	require.Len(t, names, 3)
	odd, err := os.ReadFile(filepath.Join(home, "src", "out", "new\nline"))
	require.NoError(t, err)
	require.Equal(t, "odd", string(odd))
	manifest, err := os.ReadFile(filepath.Join(home, lease.ManifestName))
	require.NoError(t, err)
	sum := sha256.Sum256([]byte("one"))
	require.Contains(t, string(manifest), hex.EncodeToString(sum[:]))
	require.NoFileExists(t, filepath.Join(filepath.Dir(root), "loot"))
}

// forward reaches a server on the machine by many connections at once.
func (h *host) forward(t *testing.T, id string) (local string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "there: "+r.URL.Path) }))
	t.Cleanup(server.Close)
	var got struct {
		Local    string   `json:"local_addr"`
		Forwards []string `json:"forwards"`
	}
	port := server.Listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, json.Unmarshal(h.ok("forward_port", map[string]any{"lease_id": id, "port": port}).Raw, &got))
	require.True(t, strings.HasPrefix(got.Local, "127.0.0.1:"))
	require.NotEqual(t, server.Listener.Addr().String(), got.Local)
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			r, err := http.Get("http://" + got.Local + "/x")
			if !assert.NoError(t, err) {
				return
			}
			defer func() { _ = r.Body.Close() }()
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			assert.Equal(t, "there: /x", string(body))
		})
	}
	all.Wait()
	require.NoError(t, json.Unmarshal(h.ok("get_lease", map[string]any{"lease_id": id}).Raw, &got))
	require.Len(t, got.Forwards, 1)
	require.Contains(t, got.Forwards[0], got.Local)
	return got.Local
}

// visit goes to a machine by hand, with the computer's ssh and without.
func (w *world) visit(t *testing.T, id string) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no ssh: CI must install openssh-client")
		t.Skip("no ssh here")
	}
	path := os.Getenv("PATH")
	for _, path := range []string{path, t.TempDir()} {
		out, errs, code := w.with("PATH="+path).ssh("from here", id, "--", "cat; echo; echo two  words; exit 7")
		require.Equal(t, 7, code, "%q %q", path, errs)
		require.Equal(t, "from here\ntwo words\n", out)
		out, errs, code = w.with("PATH="+path).ssh("echo in a shell\n", id)
		require.Zero(t, code, "%q %q", path, errs)
		require.Contains(t, out, "in a shell\n")
	}
	config, _, code := w.ssh("", id, "--config")
	require.Zero(t, code)
	known, _, code := w.ssh("", id, "--known-hosts")
	require.Zero(t, code)
	require.Contains(t, known, "ssh-ed25519 ")
	both, _, _ := w.ssh("", id, "--config", "--known-hosts")
	require.Equal(t, config+known, both)
	private, err := os.ReadFile(filepath.Join(w.state(), "keys", id+".key"))
	require.NoError(t, err)
	for line := range strings.Lines(string(private)) {
		require.NotContains(t, both, strings.TrimSpace(line))
	}
	// The entry works as it stands.
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	out, err := exec.Command("ssh", "-F", file, "gpulease-"+id, "echo by my own ssh").Output()
	require.NoError(t, err)
	require.Equal(t, "by my own ssh\n", string(out))

	for _, args := range [][]string{{}, {id, "true"}, {id, "--config", "--", "true"}} {
		_, _, code := w.ssh("", args...)
		require.Equal(t, exitUsage, code, "%q", args)
	}
}

// ssh runs gpulease ssh.
func (w *world) ssh(stdin string, args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	cmd := w.program(append([]string{"ssh"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		require.NotNil(w.t, cmd.ProcessState, "%v", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
