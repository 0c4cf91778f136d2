package remote

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Verdicts of [CUDA].
const (
	CUDAComputes = "computes"
	CUDAFails    = "fails"
	CUDAUnknown  = "unknown"
)

// CUDA is whether the machine's GPUs compute.
type CUDA struct {
	// Verdict is fails only when CUDA itself said so of a GPU. Without PyTorch and nvcc, after 20 s, or when a program
	// failed for a reason of its own, it is unknown, and nothing may be concluded.
	Verdict string
	Detail  string // why it fails or is unknown
	By      string // what was asked: "torch" or "nvcc"; empty without either
	GPUs    int    // how many compute
}

// ProbeCUDA lets each GPU compute something small, with PyTorch or nvcc where the machine has one of them. It takes
// seconds, 25 at most. gpus is how many must compute.
func (p *Pool) ProbeCUDA(ctx context.Context, t Target, gpus int) (CUDA, error) {
	if gpus < 0 {
		return CUDA{}, invalid("%d GPUs", gpus)
	}
	var c CUDA
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: probeScript, args: []string{"cuda"}, data: 16 << 10})
		if err == nil {
			c = parseCUDA(r.get("by"), string(r.data), gpus)
		}
		return err
	})
	if err != nil {
		return CUDA{}, fmt.Errorf("CUDA probe: %w", err)
	}
	return c, nil
}

func parseCUDA(by, text string, want int) CUDA {
	if by == "" {
		return CUDA{Verdict: CUDAUnknown, Detail: "neither PyTorch nor nvcc on the machine"}
	}
	said, status := answer(text)
	c := CUDA{Verdict: CUDAUnknown, By: by}
	for line := range strings.Lines(said) {
		number, what, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "gpu "), " ")
		if _, err := strconv.Atoi(number); err != nil {
			continue
		}
		switch {
		case what == "computes":
			c.GPUs++
		case strings.HasPrefix(what, "fails: ") && c.Verdict != CUDAFails:
			c.Verdict, c.Detail = CUDAFails, "GPU "+number+": "+printable([]byte(strings.TrimPrefix(what, "fails: ")))
		}
	}
	switch {
	case c.Verdict == CUDAFails:
	case status == "" || status == "124" || status == "137":
		c.Detail = "no answer in 20 s"
	case status != "0":
		c.Detail = "exit status " + status + ": " + printable([]byte(said))
	case c.GPUs == 0 || c.GPUs < want:
		c.Detail = fmt.Sprintf("%s sees %d of %d GPUs", by, c.GPUs, want)
	default:
		c.Verdict = CUDAComputes
	}
	return c
}
