// Command transfer measures package remote against ssh, scp and rsync, all in one run on one real sshd: a short
// command, a large file and a tree of small ones both ways, syncing again after small changes, and paging through the
// output of a job, also through the whole server. It needs sshd, ssh, scp and rsync, and a quiet machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

type settings struct {
	runs, files int
	size, page  int64 // bytes
	delays      []time.Duration
	only        string
	scpTree     bool
}

func main() {
	var s settings
	megabytes := flag.Int64("size", 200, "size of the large file in MB")
	pages := flag.Int64("page", 1000, "size of the output that is paged in MB")
	flag.IntVar(&s.files, "files", 5000, "files in the tree")
	flag.IntVar(&s.runs, "runs", 3, "runs of each transfer; the median counts")
	delays := flag.String("delays", "0,20,80", "added round-trip times in ms")
	flag.StringVar(&s.only, "only", "", "only these of serve,page,command,file,tree,resync")
	flag.BoolVar(&s.scpTree, "scp-tree", false, "also scp the tree, which takes minutes")
	flag.Parse()
	s.size, s.page = *megabytes*1_000_000, *pages*1_000_000
	for d := range strings.SplitSeq(*delays, ",") {
		ms, err := strconv.Atoi(d)
		if err != nil {
			fmt.Fprintln(os.Stderr, "transfer: -delays:", err)
			os.Exit(2)
		}
		s.delays = append(s.delays, time.Duration(ms)*time.Millisecond)
	}
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "transfer:", err)
		os.Exit(1)
	}
}

func (s settings) wants(section string) bool {
	return s.only == "" || strings.Contains(","+s.only+",", ","+section+",")
}

func run(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp(fastDir(), "transfer-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := startMachine(dir)
	if err != nil {
		return err
	}
	defer m.stop()
	if s.wants("serve") {
		if err := servePaging(ctx, s); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	if s.wants("page") {
		if err := paging(ctx, s, m); err != nil {
			return fmt.Errorf("page: %w", err)
		}
	}
	for _, delay := range s.delays {
		b, err := newBench(ctx, s, m, delay)
		if err != nil {
			return err
		}
		for _, section := range []struct {
			name string
			run  func() error
		}{{"command", b.commands}, {"file", b.file}, {"tree", b.tree}, {"resync", b.resync}} {
			if !s.wants(section.name) {
				continue
			}
			if err := section.run(); err != nil {
				b.close()
				return fmt.Errorf("%s at %s: %w", section.name, delay, err)
			}
		}
		b.close()
	}
	return nil
}

// fastDir is in memory where there is such a place, so that no disk is measured.
func fastDir() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}
