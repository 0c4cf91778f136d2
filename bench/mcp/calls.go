package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// contender is a call of a server that others are compared with. The last of a list is what they are compared with.
type contender struct {
	name  string
	wire  wire
	tool  string
	args  map[string]any
	bytes int // of an answer

	times []time.Duration
	many  time.Duration // all rounds of calls at once
}

// atOnce is how many calls are under way in the second figure.
const atOnce = 8

func calls(ctx context.Context, s settings, st *stage) error {
	if err := st.fill(ctx); err != nil {
		return err
	}
	fmt.Printf("tools/call, %d live and %d ended leases, %d calls each in %d rounds\n", liveLeases, endedLeases, s.rounds*s.calls, s.rounds)
	if err := overStdio(ctx, s, st); err != nil {
		return fmt.Errorf("stdio: %w", err)
	}
	if err := overHTTP(ctx, s, st); err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	return nil
}

func overStdio(ctx context.Context, s settings, st *stage) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	own, err := startPipe(st.command(st.bin, "serve"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.close()) }()
	bare, err := startPipe(st.command(exe, bareRole))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	return compare(ctx, s, "stdio", own, bare)
}

func overHTTP(ctx context.Context, s settings, st *stage) (err error) {
	token, err := st.output("token", "create", principal)
	if err != nil {
		return err
	}
	ownServer, ownURL, err := st.own(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ownServer.close()) }()
	bareServer, bareURL, err := st.bare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bareServer.close()) }()
	client := connections(atOnce)
	return compare(ctx, s, "HTTP", newWeb(client, ownURL, token), newWeb(client, bareURL, ""))
}

func compare(ctx context.Context, s settings, transport string, own, bare wire) error {
	for _, w := range []wire{own, bare} {
		if err := greet(ctx, w); err != nil {
			return err
		}
	}
	all := []*contender{
		{name: "gpulease, list_leases", wire: own, tool: "list_leases"},
		{name: "gpulease, refused by its schema", wire: own, tool: "list_leases", args: map[string]any{"limit": 0}},
		{name: "mcp-go, no-op", wire: bare, tool: "nothing"},
	}
	for round := range s.rounds + 1 {
		for _, c := range all {
			if err := c.round(ctx, s.calls, round == 0); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for _, c := range all {
		slices.Sort(c.times)
	}
	base := all[len(all)-1]
	for _, c := range all {
		base50, base99 := percentile(base.times, 50), percentile(base.times, 99)
		p50, p99 := percentile(c.times, 50), percentile(c.times, 99)
		rate := float64(len(c.times)) / c.many.Seconds()
		baseRate := float64(len(base.times)) / base.many.Seconds()
		fmt.Printf("  %-5s %-31s median %8s (%5.2fx)  p99 %8s (%5.2fx)  %d at once %6.0f calls/s (1/%.2f)  %5d bytes\n", transport, c.name,
			short(p50), ratio(p50, base50), short(p99), ratio(p99, base99), atOnce, rate, baseRate/rate, c.bytes)
	}
	return nil
}

// round makes n calls one after the other, and n more several at once. The first round only warms up.
func (c *contender) round(ctx context.Context, n int, warmUp bool) error {
	times := make([]time.Duration, 0, n)
	for range n {
		began := time.Now()
		if err := c.call(ctx); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	began := time.Now()
	var each sync.WaitGroup
	errs := make([]error, atOnce)
	for i := range atOnce {
		each.Go(func() {
			for range n / atOnce {
				errs[i] = errors.Join(errs[i], c.call(ctx))
			}
		})
	}
	each.Wait()
	took := time.Since(began)
	if !warmUp {
		c.times = append(c.times, times...)
		c.many += took * time.Duration(n) / time.Duration(n/atOnce*atOnce)
	}
	return errors.Join(errs...)
}

func (c *contender) call(ctx context.Context) error {
	args := c.args
	if args == nil {
		args = map[string]any{}
	}
	answer, err := c.wire.ask(ctx, "tools/call", map[string]any{"name": c.tool, "arguments": args})
	if err != nil {
		return err
	}
	if len(c.times) > 0 {
		return nil // an answer of the first round was looked at
	}
	c.bytes = len(answer)
	return c.look(answer)
}

// look fails unless the answer is what is to be measured.
func (c *contender) look(answer []byte) error {
	result, err := checked(answer)
	if err != nil {
		return err
	}
	var r struct {
		Error      bool `json:"isError"`
		Structured struct {
			Leases []json.RawMessage `json:"leases"`
		} `json:"structuredContent"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return err
	}
	if refused := c.args != nil; r.Error != refused {
		return fmt.Errorf("an unexpected answer: %.500s", result)
	}
	if c.tool == "list_leases" && !r.Error && len(r.Structured.Leases) != liveLeases {
		return fmt.Errorf("it lists %d leases, not %d: %.500s", len(r.Structured.Leases), liveLeases, result)
	}
	return nil
}

// percentile is of sorted times.
func percentile(times []time.Duration, p int) time.Duration { return times[(len(times)-1)*p/100] }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
