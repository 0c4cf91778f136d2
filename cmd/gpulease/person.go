package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpulease/gpulease/lease"
)

// person is who decides at this terminal, for the ledger's history: user@host.
func person() string {
	name := "somebody"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return name + "@" + hostname()
}

func hostname() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "unknown"
}

// confirm asks a person at a terminal. Without a terminal it may be an agent's
// shell, so --yes has to say that it is meant.
func confirm(c *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usageError(errors.New("this is for a person to decide, and there is no terminal to ask one: give --yes if that is meant; nothing was done"))
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "%s [y/N] ", question); err != nil {
		return err
	}
	answer := make(chan string, 1)
	// Nothing can interrupt this read; after an interruption the process ends anyway.
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // what was read before an error counts
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-c.Context().Done():
	case said := <-answer:
		if said == "y" || said == "yes" {
			return nil
		}
	}
	return errors.New("not confirmed; nothing was done")
}

// oneLease is the one lease that a command is about.
func oneLease(args []string) (lease.ID, error) {
	if len(args) != 1 {
		return "", usageError(errors.New("give the id of one lease; gpulease leases shows them"))
	}
	return lease.ID(args[0]), nil
}
