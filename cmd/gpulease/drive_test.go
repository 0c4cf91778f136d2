//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/gpulease/gpulease/lease"
)

func init() {
	for _, name := range []string{"launch", "extend", "approve", "adopt"} {
		children["drive-"+name] = func(args []string) int { return drive(name, args) }
	}
}

// drive is a process that does one thing to the leases and ends, wired as the
// program is.
func drive(what string, args []string) int {
	s := newSettings(os.Environ())
	newRoot(s, os.Stdin, os.Stdout, os.Stderr) // takes the settings from the environment
	ctx := context.Background()
	a, err := s.openGuarded(ctx, lease.GuardServer, slices.Contains(args, "keeper"), os.Stderr)
	if err == nil {
		do := func(ctx context.Context) error { return driven[what](ctx, a.manager, args) }
		if what == "launch" {
			err = a.whileReconciling(ctx, do)
		} else {
			err = errors.Join(do(ctx), a.close())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var driven = map[string]func(ctx context.Context, m *lease.Manager, args []string) error{
	// launch DIR [keeper]: with the file "out" as the result, to be brought to DIR.
	"launch": func(ctx context.Context, m *lease.Manager, args []string) error {
		r := lease.LaunchRequest{Type: testType, TTL: 5 * time.Minute, Results: []string{"out"}, ResultsDir: args[0]}
		_, err := m.Launch(ctx, r)
		return err
	},
	// extend LEASE CALL: by ten minutes.
	"extend": func(ctx context.Context, m *lease.Manager, args []string) error {
		_, err := m.Extend(ctx, lease.ID(args[0]), lease.Extension{More: 10 * time.Minute, Call: args[1]})
		return err
	},
	"approve": func(ctx context.Context, m *lease.Manager, args []string) error {
		_, err := m.Approve(ctx, lease.ID(args[0]), "a person")
		return err
	},
	// adopt LEDGER: what that ledger has launched.
	"adopt": func(ctx context.Context, m *lease.Manager, args []string) error {
		_, err := m.Adopt(ctx, args...)
		return err
	},
}
