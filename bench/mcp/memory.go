package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// principals share the sessions: each may have 64 of them.
const principals = 64

// memory is what idle sessions take of a server's memory. The collector of a Go program lets its heap double before it
// looks, so what is resident depends on what went before; with a limit below what the program needs it looks all the
// time, and what is left is what the sessions hold.
func memory(ctx context.Context, s settings, st *stage) error {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		fmt.Println("left out: memory (this system has no /proc)")
		return nil
	}
	most := max(1000, min(s.sessions, 50*principals))
	var tokens []string
	for i := range principals {
		token, err := st.output("token", "create", fmt.Sprintf("idle-%d", i))
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
	}
	fmt.Println("resident memory with idle HTTP sessions")
	for _, tight := range []bool{false, true} {
		var perOwn, perBare held
		var err error
		if perOwn, err = hold(ctx, "gpulease", st.own, tokens, most, tight); err != nil {
			return fmt.Errorf("gpulease: %w", err)
		}
		if perBare, err = hold(ctx, "mcp-go", st.bare, []string{""}, most, tight); err != nil {
			return fmt.Errorf("mcp-go: %w", err)
		}
		fmt.Printf("  %-32s sessions %.2fx, with streams %.2fx\n", "gpulease against mcp-go", perOwn.session/perBare.session, perOwn.stream/perBare.stream)
	}
	return nil
}

// held is in bytes for one session, and for one with its event stream.
type held struct{ session, stream float64 }

type start func(ctx context.Context, env ...string) (*process, string, error)

// hold opens 1,000 sessions, then up to most, then the event streams of the first 1,000.
func hold(ctx context.Context, name string, start start, tokens []string, most int, tight bool) (h held, err error) {
	var env []string
	if tight {
		env, name = []string{"GOMEMLIMIT=8MiB"}, name+", collected all the time"
	}
	p, url, err := start(ctx, env...)
	if err != nil {
		return held{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	client := connections(4)
	var open []*web
	defer func() {
		for _, w := range open {
			err = errors.Join(err, w.close())
		}
	}()
	// What the first requests need is not of a session.
	more := func(n int) error {
		for len(open) < n {
			w := newWeb(client, url, tokens[len(open)%len(tokens)])
			open = append(open, w)
			if err := greet(ctx, w); err != nil {
				return fmt.Errorf("session %d: %w", len(open), err)
			}
		}
		return nil
	}
	const some = 50
	var at [4]int64
	for i, step := range []func() error{
		func() error { return more(some) },
		func() error { return more(some + 1000) },
		func() error { return more(max(some+1000, most)) },
		func() error {
			for _, w := range open[:1000] {
				if err := w.listen(); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		if err := step(); err != nil {
			return held{}, err
		}
		if at[i], err = settled(ctx, p.cmd.Process.Pid); err != nil {
			return held{}, err
		}
	}
	h.session = float64(at[2]-at[0]) / float64(len(open)-some)
	h.stream = h.session + float64(at[3]-at[2])/1000
	fmt.Printf("  %-32s %d: %s, %d: %s, %d: %s, and 1000 streams: %s; 1000 sessions %.1f MB, with streams %.1f MB\n", name,
		some, mb(at[0]), some+1000, mb(at[1]), len(open), mb(at[2]), mb(at[3]), h.session/1e3, h.stream/1e3)
	return h, nil
}

func mb(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// settled is the resident memory of a process when it no longer changes much.
func settled(ctx context.Context, pid int) (int64, error) {
	last, since := int64(-1<<40), time.Now()
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); {
		now, err := resident(pid)
		if err != nil {
			return 0, err
		}
		if now-last > 100_000 || last-now > 100_000 {
			last, since = now, time.Now()
		} else if time.Since(since) > 3*time.Second {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return last, nil
}

func resident(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, errors.New("no VmRSS")
}
