package remote

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Check connects and runs "true": nil means that SSH answers with the pinned key and lets us in. It retries nothing
// that a fresh connection would not mend.
func (p *Pool) Check(ctx context.Context, t Target) error {
	if err := t.validate(); err != nil {
		return err
	}
	for again := true; ; again = false {
		n, err := p.connect(ctx, t)
		if err != nil {
			return err
		}
		status, err := n.exec(ctx, execution{command: "true", stdout: io.Discard, stderr: io.Discard})
		switch {
		case errors.Is(err, ErrConnLost) && again:
		case err != nil:
			return fmt.Errorf("check %s: %w", t.Addr, err)
		case status != 0:
			return fmt.Errorf("check %s: %w: true exits with %d", t.Addr, ErrMachine, status)
		default:
			return nil
		}
	}
}

// States of [CloudInit].
const (
	CloudInitRunning = "running" // or not begun
	CloudInitDone    = "done"
	CloudInitError   = "error"
	CloudInitAbsent  = "absent" // not installed or switched off: nothing to wait for
)

// CloudInit is how far the machine's first boot has come.
type CloudInit struct {
	State  string // running, done, error or absent
	Detail string // cloud-init's own words, one line; more than the state only when something went wrong
}

// CloudInit asks cloud-init for its state.
func (p *Pool) CloudInit(ctx context.Context, t Target) (CloudInit, error) {
	var c CloudInit
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: probeScript, args: []string{"cloudinit"}, data: 16 << 10})
		if err == nil {
			c = parseCloudInit(r.get("state"), string(r.data))
		}
		return err
	})
	if err != nil {
		return CloudInit{}, fmt.Errorf("cloud-init state: %w", err)
	}
	return c, nil
}

func parseCloudInit(present, text string) CloudInit {
	if present == "absent" {
		return CloudInit{State: CloudInitAbsent}
	}
	detail := printable([]byte(text))
	status := ""
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "status" {
			status = strings.TrimSpace(value)
			break
		}
	}
	switch status {
	case "done":
		return CloudInit{State: CloudInitDone, Detail: detail}
	case "disabled":
		return CloudInit{State: CloudInitAbsent, Detail: detail}
	case "error":
		return CloudInit{State: CloudInitError, Detail: detail}
	}
	if strings.HasPrefix(status, "degraded") {
		return CloudInit{State: CloudInitDone, Detail: detail}
	}
	// "running", "not run", "not started", and whatever a later version says: the boot deadline decides.
	return CloudInit{State: CloudInitRunning, Detail: detail}
}

// GPU is one card as nvidia-smi shows it.
type GPU struct {
	Index     int
	Name      string
	UUID      string
	MemoryMiB int64 // 0 where the card has no memory of its own to count
	Driver    string
	ECCErrors int64 // uncorrected since the last reset; 0 where the card does not count them
}

// Health is whether the machine has the GPUs that were paid for.
type Health struct {
	Healthy   bool
	Reason    string // why not; empty when healthy
	GPUs      []GPU
	Simulated bool   // nvidia-smi says of itself that it is simulated
	Arch      string // the processor's, as uname names it: "x86_64", "aarch64"
}

// Health asks nvidia-smi for the machine's GPUs. gpus is how many must be there; with 0 nvidia-smi is not needed
// and what it says is only told. A sick machine is not an error.
func (p *Pool) Health(ctx context.Context, t Target, gpus int) (Health, error) {
	if gpus < 0 {
		return Health{}, invalid("%d GPUs", gpus)
	}
	var h Health
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{script: probeScript, args: []string{"gpu"}, data: 256 << 10})
		if err == nil {
			h = parseHealth(r, gpus)
		}
		return err
	})
	if err != nil {
		return Health{}, fmt.Errorf("GPU health: %w", err)
	}
	return h, nil
}

func parseHealth(r reply, want int) Health {
	h := Health{Arch: r.get("arch")}
	parts := append(strings.Split(string(r.data), "\x1e\x1e"), "", "", "")
	list, status := answer(parts[0])
	plain, _ := answer(parts[1])
	ecc, _ := answer(parts[2])
	h.Simulated = strings.Contains(strings.ToLower(list+plain), "simulat")
	sick := failure(list, status)
	if sick == nil {
		h.GPUs, sick = parseGPUs(list)
	}
	addECC(h.GPUs, ecc)
	if want > 0 {
		h.Reason = sickness(h.GPUs, want, sick)
		if h.Reason == "" && !h.Simulated {
			h.Reason = brokenBy(parts[3])
		}
	}
	h.Healthy = h.Reason == ""
	return h
}

// answer takes apart what bounded in base.sh printed. The status is empty when the command did not end.
func answer(text string) (said, status string) {
	i := strings.LastIndexByte(text, 0x1e)
	if i < 0 {
		return text, ""
	}
	return text[:i], text[i+1:]
}

// failure is what an answer of nvidia-smi says of nvidia-smi itself.
func failure(said, status string) error {
	switch status {
	case "0":
		return nil
	case "127":
		return errors.New("no nvidia-smi")
	case "", "124", "137":
		return errors.New("nvidia-smi hangs")
	}
	return fmt.Errorf("nvidia-smi exits with %s: %s", status, printable([]byte(said)))
}

func sickness(gpus []GPU, want int, sick error) string {
	if sick != nil {
		return sick.Error()
	}
	if len(gpus) < want {
		return fmt.Sprintf("%d of %d GPUs", len(gpus), want)
	}
	for _, g := range gpus {
		if g.ECCErrors > 0 {
			return fmt.Sprintf("GPU %d has %d uncorrected ECC errors", g.Index, g.ECCErrors)
		}
	}
	return ""
}

func parseGPUs(text string) ([]GPU, error) {
	rows := csv.NewReader(strings.NewReader(text))
	rows.TrimLeadingSpace = true
	rows.FieldsPerRecord = 5
	records, err := rows.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi says: %s", printable([]byte(text)))
	}
	var gpus []GPU
	for _, f := range records {
		index, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("nvidia-smi says: %s", printable([]byte(text)))
		}
		// "[N/A]" comes from cards that share the host's memory; "[Unknown Error]" from one about to fall off the bus.
		memory, err := strconv.ParseInt(f[3], 10, 64)
		if (err != nil || memory <= 0) && !strings.Contains(f[3], "N/A") {
			return nil, fmt.Errorf("GPU %d shows memory %q", index, f[3])
		}
		gpus = append(gpus, GPU{Index: index, Name: f[1], UUID: f[2], MemoryMiB: memory, Driver: f[4]})
	}
	return gpus, nil
}

func addECC(gpus []GPU, text string) {
	for line := range strings.Lines(text) {
		index, count, _ := strings.Cut(line, ",")
		i, err1 := strconv.Atoi(strings.TrimSpace(index))
		errs, err2 := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
		if err1 != nil || err2 != nil {
			continue // "[N/A]"
		}
		for k := range gpus {
			if gpus[k].Index == i {
				gpus[k].ECCErrors = errs
			}
		}
	}
}
