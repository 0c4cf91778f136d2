//go:build unix

package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

// startMachine starts a simulated GPU machine whose host key came by cloud-init.
func startMachine(t *testing.T, c machine.Config) (*machine.Machine, remote.Target) {
	t.Helper()
	hostKey, clientKey := newKey(t), newKey(t)
	c.ID = "remote-" + strings.ToLower(t.Name())
	c.Dir = filepath.Join(t.TempDir(), "machine")
	c.AuthorizedKeys = []ssh.PublicKey{clientKey.Public}
	c.UserData = "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n" +
		"    " + strings.ReplaceAll(strings.TrimSuffix(string(hostKey.PrivatePEM), "\n"), "\n", "\n    ") + "\n" +
		"  ed25519_public: " + hostKey.AuthorizedKey + "\n"
	m, err := machine.Start(testContext(t), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	signer, err := clientKey.Signer()
	require.NoError(t, err)
	return m, remote.Target{Key: c.ID, Addr: m.Addr(), User: "ubuntu", Signer: signer, HostKey: hostKey.Public}
}

func TestMachineBoots(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{
		CloudInitDelay: 500 * time.Millisecond,
		GPU:            machine.GPU{Count: 2, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true},
	})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	require.ErrorIs(t, p.Check(ctx, target), remote.ErrHostKey, "the image's own key comes first")
	require.Eventually(t, func() bool { return p.Check(ctx, target) == nil }, 10*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		c, err := p.CloudInit(ctx, target)
		return err == nil && c.State == remote.CloudInitDone
	}, 10*time.Second, 20*time.Millisecond)
	health, err := p.Health(ctx, target, 2)
	require.NoError(t, err)
	require.True(t, health.Healthy, health.Reason)
	require.True(t, health.Simulated)
	require.Len(t, health.GPUs, 2)
	require.Equal(t, "NVIDIA A10", health.GPUs[1].Name)
	require.Equal(t, int64(23028), health.GPUs[1].MemoryMiB)
	require.NotEmpty(t, health.GPUs[1].UUID)
	require.NotEmpty(t, health.GPUs[1].Driver)
}

func TestMachineIsSick(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 4, Name: "NVIDIA A100", MemoryMiB: 40960, Emulate: true}})
	p := newPool(t, remote.Config{})
	for fault, reason := range map[string]string{
		"":        "",
		"missing": "3 of 4 GPUs",
		"ecc":     "uncorrected ECC errors",
		"xid":     "GPU is lost",
	} {
		require.NoError(t, m.SetGPUFault(fault))
		health, err := p.Health(testContext(t), target, 4)
		require.NoError(t, err)
		require.Equal(t, fault == "", health.Healthy, "%s: %s", fault, health.Reason)
		require.Contains(t, health.Reason, reason)
	}
}

func TestMachineWork(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	src, dst := t.TempDir(), t.TempDir()
	write(t, filepath.Join(src, "in"), "data")
	_, err := p.Push(ctx, target, src, "project", remote.PushOptions{})
	require.NoError(t, err)
	job, stdout, stderr, err := p.Run(ctx, target, "job-work", remote.Command{
		Shell: "tr a-z A-Z <in | tee out; echo err >&2; exit 3", Dir: "project",
	}, wait, 100, 100)
	require.NoError(t, err)
	require.Equal(t, 3, job.ExitCode)
	require.Equal(t, "DATA", string(stdout.Head))
	require.Equal(t, "err\n", string(stderr.Head))
	sum, err := p.Fetch(ctx, target, []string{"project/out"}, dst, remote.FetchOptions{})
	require.NoError(t, err)
	require.Empty(t, sum.Missing)
	require.Equal(t, map[string]string{"project/out": "DATA"}, contents(t, dst))

	id := "job-tree-sim"
	_, err = p.Start(ctx, target, id, remote.Command{Shell: tree})
	require.NoError(t, err)
	page, err := p.Page(ctx, target, id, remote.Stdout, 0, 100, wait)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(page.Data))
	_, err = p.Cancel(ctx, target, id, 400*time.Millisecond)
	require.NoError(t, err)
	require.Empty(t, marked("GPULEASE_JOB_ID="+id))
	require.Empty(t, sleepers(&host{home: m.Home()}, "1004"))

	// A power cut: the job is lost, and nothing of it is thought to run.
	_, err = p.Start(ctx, target, "job-cut-off", remote.Command{Shell: "sleep 1010"})
	require.NoError(t, err)
	require.NoError(t, m.EndProcesses(ctx))
	job, err = p.Job(ctx, target, "job-cut-off", wait)
	require.NoError(t, err)
	require.Equal(t, remote.Lost, job.State)
}

func TestMachineLosesItsNetwork(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	_, err := p.Start(ctx, target, "job-net", remote.Command{Shell: "until [ -e go ]; do sleep 0.02; done; echo done"})
	require.NoError(t, err)
	m.SetRefuse(true)
	require.ErrorIs(t, p.Check(ctx, target), remote.ErrUnreachable)
	type answer struct {
		job remote.Job
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		job, err := p.Job(ctx, target, "job-net", wait)
		answers <- answer{job, err}
	}()
	require.NoError(t, os.WriteFile(filepath.Join(m.Home(), "go"), nil, 0o600))
	m.SetRefuse(false)
	a := <-answers
	require.NoError(t, a.err)
	require.Equal(t, remote.Exited, a.job.State)
	require.Equal(t, int64(5), a.job.StdoutBytes)
}

func TestMachineChangesItsHostKey(t *testing.T) {
	t.Parallel()
	m, target := startMachine(t, machine.Config{})
	p := newPool(t, remote.Config{})
	ctx := testContext(t)
	require.NoError(t, p.Check(ctx, target))
	m.SetHostKey(newSigner(t))
	require.NoError(t, p.Check(ctx, target), "the connection that was verified lives on")
	p.Forget(target.Key)
	err := p.Check(ctx, target)
	require.ErrorIs(t, err, remote.ErrHostKey)
	_, err = p.Jobs(ctx, target)
	require.ErrorIs(t, err, remote.ErrHostKey)
	require.Contains(t, fmt.Sprint(err), "SHA256:")
}
