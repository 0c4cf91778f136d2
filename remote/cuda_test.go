//go:build unix

package remote_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
	"github.com/gpulease/gpulease/remote"
)

func TestMachineProbeCUDA(t *testing.T) {
	t.Parallel()
	_, target := startMachine(t, machine.Config{GPU: machine.GPU{Count: 1, Name: "NVIDIA A10", MemoryMiB: 23028, Emulate: true}})
	p := newPool(t, remote.Config{})
	c, err := p.ProbeCUDA(testContext(t), target, 1)
	require.NoError(t, err)
	require.NotEqual(t, remote.CUDAFails, c.Verdict, "what is not there is no sickness: %+v", c)
	health, err := p.Health(testContext(t), target, 1)
	require.NoError(t, err)
	require.Contains(t, []string{"x86_64", "aarch64", "arm64"}, health.Arch)
}

func TestProbeCUDA(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	p := newPool(t, remote.Config{})
	// python answers both questions: whether there is torch, and what the probe says.
	python := func(says string) string {
		return "#!/bin/sh\ncase $2 in *find_spec*) echo True; exit ;; *device_count*) ;; *) exit 9 ;; esac\n" + says + "\n"
	}
	const none = "#!/bin/sh\necho False\n"
	for name, tt := range map[string]struct {
		python, nvcc string
		want         remote.CUDA
	}{
		"Computes":    {python("echo gpu 0 computes; echo gpu 1 computes"), "", remote.CUDA{Verdict: "computes", By: "torch", GPUs: 2}},
		"OneFails":    {python("echo gpu 0 computes; echo gpu 1 fails: CUDA error: an illegal memory access"), "", remote.CUDA{Verdict: "fails", Detail: "GPU 1: CUDA error: an illegal memory access", By: "torch", GPUs: 1}},
		"OneMissing":  {python("echo gpu 0 computes"), "", remote.CUDA{Verdict: "unknown", Detail: "torch sees 1 of 2 GPUs", By: "torch", GPUs: 1}},
		"TorchForCPU": {python(":"), "", remote.CUDA{Verdict: "unknown", Detail: "torch sees 0 of 2 GPUs", By: "torch"}},
		"TorchBroken": {python("echo ImportError: x >&2; exit 1"), "", remote.CUDA{Verdict: "unknown", Detail: "exit status 1: ImportError: x", By: "torch"}},
		"NoTorch":     {none, "", remote.CUDA{Verdict: "unknown", Detail: "neither PyTorch nor nvcc on the machine"}},
		"NVCC": {
			none, "#!/bin/sh\ngrep -q cudaMemcpy \"$3\" || exit 9\nprintf '#!/bin/sh\\necho gpu 0 computes; echo gpu 1 computes\\n' >\"$2\"; chmod +x \"$2\"\n",
			remote.CUDA{Verdict: "computes", By: "nvcc", GPUs: 2},
		},
		"NVCCBroken": {none, "#!/bin/sh\necho no compiler; exit 3\n", remote.CUDA{Verdict: "unknown", Detail: "exit status 3: no compiler", By: "nvcc"}},
	} {
		t.Run(name, func(t *testing.T) {
			h.shim(t, "python3", tt.python)
			if tt.nvcc == "" {
				h.unshim(t, "nvcc")
			} else {
				h.shim(t, "nvcc", tt.nvcc)
			}
			c, err := p.ProbeCUDA(testContext(t), h.Target, 2)
			require.NoError(t, err)
			require.Equal(t, tt.want, c)
		})
	}
	t.Run("Hangs", func(t *testing.T) {
		h.shim(t, "python3", python("echo gpu 0 computes; exec sleep 1050"))
		c, err := p.ProbeCUDA(testContext(t), h.Target, 2)
		require.NoError(t, err)
		require.Equal(t, remote.CUDA{Verdict: "unknown", Detail: "no answer in 20 s", By: "torch", GPUs: 1}, c)
		require.Empty(t, sleepers(h, "1050"))
	})
}
