package machine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func (h *herd) find() ([]int, error) { return marked(h.id) }

func (h *herd) kill(pid int) { killProcess(pid) }

func killProcess(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

// marked finds the living processes of a machine: those whose environment has its
// mark, whatever session or parent they have by now, and those that have dropped
// their environment but live in the session of one that has not, or descend from
// one. This process is never among them.
func marked(id string) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	mark := []byte(Mark + "=" + id)
	ours, sessions := map[int]bool{}, map[int]bool{}
	self := all[os.Getpid()]
	for pid := range all {
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if err != nil || pid == os.Getpid() {
			continue // gone meanwhile, or somebody else's
		}
		if slices.ContainsFunc(bytes.Split(env, []byte{0}), func(e []byte) bool { return bytes.Equal(e, mark) }) {
			ours[pid] = true
		}
	}
	for more := true; more; {
		more = false
		for pid := range ours {
			if s := all[pid].session; s != self.session {
				sessions[s] = true
			}
		}
		for pid, p := range all {
			if !ours[pid] && pid != os.Getpid() && (ours[p.parent] || sessions[p.session]) {
				ours[pid], more = true, true
			}
		}
	}
	pids := make([]int, 0, len(ours))
	for pid := range ours {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

type process struct{ parent, session int }

// processes are all processes that are not dead yet.
func processes() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.ErrUnsupported
	}
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// "pid (name) state ppid pgrp session …", and the name may hold anything.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) < 4 || strings.ContainsAny(f[0], "ZXx") {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		session, _ := strconv.Atoi(f[3])
		all[pid] = process{parent, session}
	}
	return all, nil
}
