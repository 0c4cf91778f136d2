// Command mcp measures gpulease as an MCP server, all in one run and as ratios: list_leases on a ledger with a history
// against a tool of the bare library that does nothing, the time from process start to the tools against public servers
// from npm, and the memory of idle HTTP sessions against those of the bare library. It needs Linux, a quiet machine and,
// for the public servers, what test/npm-install bench/mcp/rivals has put into the directory of -rivals.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

type settings struct {
	bin, rivals, only string
	rounds, calls     int
	starts, sessions  int
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareRole {
		if err := serveBare(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "mcp: the bare server:", err)
			os.Exit(1)
		}
		return
	}
	var s settings
	flag.StringVar(&s.bin, "bin", "bin/gpulease", "the binary to measure")
	flag.StringVar(&s.rivals, "rivals", "", "directory whose node_modules has the public servers (default: they are left out)")
	flag.StringVar(&s.only, "only", "", "only these of calls,starts,memory")
	flag.IntVar(&s.rounds, "rounds", 6, "rounds in which the servers take turns")
	flag.IntVar(&s.calls, "calls", 500, "calls of each server in a round")
	flag.IntVar(&s.starts, "starts", 21, "starts of each server; the median counts")
	flag.IntVar(&s.sessions, "sessions", 3000, "most idle sessions, at least 1000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

func (s settings) wants(section string) bool {
	return s.only == "" || strings.Contains(","+s.only+",", ","+section+",")
}

func run(ctx context.Context, s settings) (err error) {
	st, err := newStage(ctx, s.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	for _, section := range []struct {
		name string
		run  func(context.Context, settings, *stage) error
	}{{"calls", calls}, {"starts", starts}, {"memory", memory}} {
		if !s.wants(section.name) {
			continue
		}
		if err := section.run(ctx, s, st); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	return nil
}
