package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

var errShut = errors.New("the machine is closed")

// herd is the processes of one machine.
type herd struct {
	id string

	mu     sync.Mutex
	groups map[int]*group // of commands: those that may have living members
	closed bool
}

// group is the process group of a command; headless once the command has ended.
type group struct {
	leader   *os.Process
	headless bool
}

func newHerd(id string) *herd { return &herd{id: id, groups: map[int]*group{}} }

// start starts cmd, unless the herd is shut. When shut has returned, every process
// that was ever started can be found.
func (h *herd) start(cmd *exec.Cmd) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errShut
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.groups[cmd.Process.Pid] = &group{leader: cmd.Process}
	return nil
}

// reaped notes that a command has ended. Its group may have other members.
func (h *herd) reaped(p *os.Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !groupAlive(p.Pid) {
		delete(h.groups, p.Pid)
	} else if g := h.groups[p.Pid]; g != nil {
		g.headless = true
	}
}

func (h *herd) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// end kills until nothing is left.
func (h *herd) end(ctx context.Context) error { return endAll(ctx, h.find, h.kill) }

// Sweep kills every process of the machine with this ID, whoever started it: for
// a simulator that comes back after its own sudden end. It finds them by their
// mark, for which it needs /proc; elsewhere the error is errors.ErrUnsupported.
func Sweep(ctx context.Context, id string) error {
	err := endAll(ctx, func() ([]int, error) { return marked(id) }, killProcess)
	if err != nil {
		return fmt.Errorf("end what is left of machine %s: %w", id, err)
	}
	return nil
}

// endAll kills what find finds, until it finds nothing twice in a row: one look
// may miss a process that is just being born.
func endAll(ctx context.Context, find func() ([]int, error), kill func(int)) error {
	pause := time.Millisecond
	for none := 0; ; {
		pids, err := find()
		if err != nil {
			return err
		}
		if none++; len(pids) > 0 {
			none = 0
		}
		if none == 2 {
			return nil
		}
		for _, pid := range pids {
			kill(pid)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("processes %v live on: %w", pids, ctx.Err())
		}
	}
}
