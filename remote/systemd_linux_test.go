package remote_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/remote"
)

// inside runs as the first process in namespaces of its own: it gives systemd a fresh /proc, /run and cgroup tree, and
// nothing but our units, so that it does nothing else to this computer.
const inside = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/units /run/sshd
cp "$1"/*.service "$1"/*.socket "$1"/*.target /run/units/
cd /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other SYSTEMD_UNIT_PATH=/run/units "$2" --system --unit=test.target --log-target=console --log-level=warning
`

// startSystemd starts a machine on which a real systemd runs, as the first process of a PID namespace.
func startSystemd(t *testing.T) *host {
	t.Helper()
	const systemd, bus = "/lib/systemd/systemd", "/usr/bin/dbus-daemon"
	missing := ""
	switch {
	case os.Geteuid() != 0:
		missing = "root"
	case !executable(systemd) || !executable("/usr/bin/busctl"):
		missing = "systemd"
	case !executable(bus):
		missing = "dbus"
	}
	group, err := cgroup(t)
	if err != nil && missing == "" {
		missing = err.Error()
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			require.FailNow(t, "CI must have it: "+missing)
		}
		t.Skip("this test needs " + missing)
	}
	h := makeHost(t, "")
	units := t.TempDir()
	for name, text := range map[string]string{
		"test.target": "[Unit]\nDefaultDependencies=no\nWants=dbus.service ssh.service\n",
		"dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
		"dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nExecStart=" + bus +
			" --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
		"ssh.service": fmt.Sprintf("[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=%s\nExecStart=%s -D -e -f %s\n", h.mark, h.sshd, h.config),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(units, name), []byte(text), 0o600))
	}
	server := exec.Command("unshare", "--fork", "--kill-child=KILL", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "sh", "-c", inside, "sh", units, systemd)
	server.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	h.serve(t, server)
	return h
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode()&0o111 != 0
}

// cgroup makes a cgroup that goes, with all that was made in it, at the end of the test.
func cgroup(t *testing.T) (*os.File, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer func() { _ = mounts.Close() }()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(f[1], "gpulease-test-")
		if err != nil {
			return nil, err
		}
		group, err := os.Open(dir)
		require.NoError(t, err)
		t.Cleanup(func() {
			_ = group.Close()
			require.Eventually(t, func() bool { return removeGroup(dir) == nil }, 10*time.Second, 10*time.Millisecond)
		})
		return group, nil
	}
	return nil, fmt.Errorf("cgroups of version 2")
}

func removeGroup(dir string) error {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	return os.Remove(dir)
}

// hidden starts what no mark, no session and no descent leads to: a daemon of a daemon with a clean environment.
const hidden = `(env -i setsid sh -c 'trap "" INT TERM; (sleep 1040 & sleep 1041 & echo there >there & wait) & sleep 0.2' >/dev/null 2>&1 &)
until [ -s there ]; do sleep 0.02; done; sleep 0.5
echo ready
`

func TestScopeLetsNothingSurvive(t *testing.T) {
	t.Parallel()
	h := startSystemd(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	require.Eventually(t, func() bool { return p.Check(ctx, h.Target) == nil }, wait, 50*time.Millisecond)
	id := "job-scope-cancel"
	_, err := p.Start(ctx, h.Target, id, remote.Command{Shell: hidden + "sleep 1042"})
	require.NoError(t, err)
	page, err := p.Page(ctx, h.Target, id, remote.Stdout, 0, 100, wait)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(page.Data))
	require.Len(t, sleepers(h, "1040"), 1)
	for _, pid := range marked("GPULEASE_JOB_ID=" + id) {
		require.NotContains(t, sleepers(h, "1040"), fmt.Sprintf("/proc/%d/cmdline", pid), "what hides has no mark")
	}
	scope, err := os.ReadFile(filepath.Join(h.home, ".gpulease/jobs", id, "scope"))
	require.NoError(t, err)
	require.Equal(t, "/sys/fs/cgroup/system.slice/gpulease-"+id+".scope\n", string(scope))
	job, err := p.Cancel(ctx, h.Target, id, 600*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonCancelled, job.Reason)
	for _, s := range []string{"1040", "1041", "1042"} {
		require.Empty(t, sleepers(h, s), s)
	}

	// A timeout ends the scope too, and a cancel after the end finds what was left behind.
	require.NoError(t, os.Remove(filepath.Join(h.home, "there")))
	job, _, _, err = p.Run(ctx, h.Target, "job-scope-late", remote.Command{Shell: hidden + "sleep 1042", Timeout: 2 * time.Second}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonTimeout, job.Reason)
	require.Empty(t, sleepers(h, "1040"))
	require.NoError(t, os.Remove(filepath.Join(h.home, "there")))
	untilReady(t, p, h, h.Target)
	job, _, _, err = p.Run(ctx, h.Target, "job-scope-left", remote.Command{Shell: hidden + "exit 4"}, wait, 0, 0)
	require.NoError(t, err)
	require.Equal(t, 4, job.ExitCode)
	began, err := os.ReadFile(filepath.Join(h.home, ".gpulease/jobs/job-scope-left/began"))
	require.NoError(t, err)
	require.Regexp(t, `\.[0-9]{2}0{7}\n$`, string(began), "the time is that of a ready shell, which counts hundredths")
	require.Len(t, sleepers(h, "1040"), 1, "a daemon outlives the job's end")
	_, err = p.Cancel(ctx, h.Target, "job-scope-left", 0)
	require.NoError(t, err)
	require.Empty(t, sleepers(h, "1040"))
}

// What forks faster than it can be listed is killed in one step.
func TestScopeEndsARelay(t *testing.T) {
	t.Parallel()
	h := startSystemd(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	require.Eventually(t, func() bool { return p.Check(ctx, h.Target) == nil }, wait, 50*time.Millisecond)
	_, err := p.Start(ctx, h.Target, "job-relay", remote.Command{
		Shell: "cat >relay; for i in 1 2 3 4; do env -i PATH=$PATH setsid sh relay; done; sleep 1044",
		Stdin: []byte("trap '' INT TERM\necho >>laps\nsleep 0.01\nsetsid sh relay >/dev/null 2>&1 &\n"),
	})
	require.NoError(t, err)
	laps := func() int64 {
		info, err := os.Stat(filepath.Join(h.home, "laps"))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	require.Eventually(t, func() bool { return laps() > 100 }, wait, 10*time.Millisecond)
	job, err := p.Cancel(ctx, h.Target, "job-relay", 0)
	require.NoError(t, err)
	require.Equal(t, remote.ReasonCancelled, job.Reason)
	end := laps()
	require.Never(t, func() bool { return laps() > end }, 500*time.Millisecond, 10*time.Millisecond)
	require.Empty(t, sleepers(h, "1044"))
}

// Without a scope what hides so well survives: the tests above are about something.
func TestWithoutScopeTheHiddenSurvive(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	t.Cleanup(func() {
		for _, seconds := range []string{"1040", "1041"} {
			for _, f := range sleepers(h, seconds) {
				var pid int
				_, _ = fmt.Sscanf(f, "/proc/%d/", &pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	_, _, _, err := p.Run(ctx, h.Target, "job-no-scope", remote.Command{Shell: hidden}, wait, 0, 0)
	require.NoError(t, err)
	_, err = p.Cancel(ctx, h.Target, "job-no-scope", 0)
	require.NoError(t, err)
	require.Len(t, sleepers(h, "1040"), 1)
	_, err = os.Stat(filepath.Join(h.home, ".gpulease/jobs/job-no-scope/scope"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
