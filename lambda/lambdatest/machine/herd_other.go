//go:build !linux

package machine

import (
	"errors"
	"slices"
)

// find returns the commands whose group has living members.
func (h *herd) find() ([]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var pids []int
	for pid, g := range h.groups {
		if g.headless && !groupAlive(pid) {
			delete(h.groups, pid)
			continue
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

func (h *herd) kill(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.groups[pid]; g != nil {
		killGroup(g.leader)
	}
}

func marked(string) ([]int, error) { return nil, errors.ErrUnsupported }

func killProcess(int) {}
