package tools

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// bytesPerWeight is what one parameter takes in GPU memory.
var bytesPerWeight = []struct {
	precision string
	bytes     float64
}{{"fp32", 4}, {"bf16", 2}, {"fp8", 1}, {"int8", 1}, {"int4", 0.5}}

// memoryOf is what one parameter takes for a use, given the bytes of its weight; and how
// much more than that is needed for what comes beside.
var memoryOf = []struct {
	use     string
	bytes   func(weight float64) float64
	reserve float64
	why     string
}{
	{"inference", func(w float64) float64 { return w }, 1.2, "the weights, and a fifth for the KV cache and activations of short contexts"},
	{"lora", func(w float64) float64 { return w }, 1.5, "the weights, and half as much for adapters, their gradients and activations"},
	// Weights and gradients in 16 bits, or as the weights are; a copy of the weights and two moments of Adam in 32 bits.
	{"full_finetune", func(w float64) float64 { return 2*max(w, 2) + 12 }, 1.2, "weights, gradients, 32-bit master weights and Adam's two moments, and a fifth for activations"},
}

const maxBillions = 10_000

func precisions() []string {
	var list []string
	for _, p := range bytesPerWeight {
		list = append(list, p.precision)
	}
	return list
}

func uses() []string {
	var list []string
	for _, u := range memoryOf {
		list = append(list, u.use)
	}
	return list
}

// need is the GPU memory that a model takes.
type need struct {
	billions  float64
	precision string
	use       string
	gib       int // of all GPUs together
	why       string
}

func needOf(a map[string]string) (need, error) {
	n := need{precision: orWord(a["precision"], "bf16"), use: orWord(a["use"], "inference")}
	text := strings.TrimSpace(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(a["parameters_billion"])), "b"))
	billions, err := strconv.ParseFloat(text, 64)
	if err != nil || !(billions > 0 && billions <= maxBillions) {
		return need{}, &lease.Error{
			Code: lease.CodeInvalidInput, Message: fmt.Sprintf("parameters_billion is a number above 0 and up to %d, such as 8 or 70; not %s", maxBillions, quote(a["parameters_billion"])),
		}
	}
	n.billions = billions
	for _, p := range bytesPerWeight {
		if p.precision != n.precision {
			continue
		}
		for _, u := range memoryOf {
			if u.use == n.use {
				n.gib = int(math.Ceil(billions * 1e9 * u.bytes(p.bytes) * u.reserve / (1 << 30)))
				n.why = u.why
				return n, nil
			}
		}
		return need{}, &lease.Error{Code: lease.CodeInvalidInput, Message: unknownName("use", n.use, uses()).Error()}
	}
	return need{}, &lease.Error{Code: lease.CodeInvalidInput, Message: unknownName("precision", n.precision, precisions()).Error()}
}

func orWord(given, otherwise string) string {
	if word := strings.ToLower(strings.TrimSpace(given)); word != "" {
		return word
	}
	return otherwise
}

// picksShown is how many machines of each kind are named.
const picksShown = 5

func pickPrompt(ctx context.Context, r Reader, a map[string]string) (string, error) {
	n, err := needOf(a)
	if err != nil {
		return "", err
	}
	c, err := r.Capacity(ctx)
	if err != nil {
		return "", err
	}
	var free, busy, denied []string
	largest := 0
	for _, o := range c.Offers { // cheapest first, those that are free before the others
		largest = max(largest, o.VRAMGiB)
		if o.VRAMGiB < n.gib || o.GPUs == 0 {
			continue
		}
		line := fmt.Sprintf("- %s: %d x %d GiB, %s/h", o.Type, o.GPUs, o.VRAMGiB/o.GPUs, o.Price)
		switch {
		case !o.Allowed:
			denied = append(denied, line+"; denied by "+o.Rule)
		case len(o.Regions) == 0:
			busy = append(busy, line)
		default:
			free = append(free, fmt.Sprintf("%s, free in %s, up to %d min", line, strings.Join(o.Regions, ", "), int(o.LongestTTL/time.Minute)))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Pick a GPU machine for a model of %s billion parameters in %s for %s.\n\n", strconv.FormatFloat(n.billions, 'g', -1, 64), n.precision, n.use)
	fmt.Fprintf(&b, "It takes about %d GiB of GPU memory: %s. Long contexts and large batches take more. ", n.gib, n.why)
	b.WriteString("What is spread over several GPUs needs software that splits the model.\n")
	if len(free)+len(busy)+len(denied) == 0 {
		fmt.Fprintf(&b, "\nNo machine has that much: the most that one has is %d GiB. A smaller precision or use may fit.\n", largest)
	}
	for _, group := range []struct {
		title string
		lines []string
	}{{"Can be had now, cheapest first:", free}, {"Without capacity now:", busy}, {"Denied by the policy or the budget:", denied}} {
		if len(group.lines) > 0 {
			fmt.Fprintf(&b, "\n%s\n%s\n", group.title, strings.Join(group.lines[:min(len(group.lines), picksShown)], "\n"))
		}
	}
	b.WriteString("\nTell me which one you would take, why, and what an hour of it costs. Launch nothing before I agree.")
	return b.String(), nil
}
