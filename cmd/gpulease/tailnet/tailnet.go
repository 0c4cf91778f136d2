// Package tailnet asks the tailscale program of this computer about the tailnet that
// it is in. It changes nothing there.
package tailnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"github.com/gpulease/gpulease/cmd/gpulease/printout"
)

// CLI is the tailscale program: its path, or its name in the PATH.
type CLI string

// ErrNotUp says that this computer is not in a tailnet, or that nobody can say.
var ErrNotUp = errors.New("this computer is not in a tailnet")

// patience bounds one call of the program, which asks a daemon of this computer.
const patience = 10 * time.Second

// How much of what it prints is taken: ten thousand machines take a quarter of it.
const (
	mostAnswer = 64 << 20
	mostSaid   = 4 << 10
)

// status is what is read of "tailscale status --json".
type status struct {
	BackendState string
	Self         *peer
	Peer         map[string]*peer
}

type peer struct {
	HostName     string // as the machine calls itself; not unique
	DNSName      string // unique; its first label is made from HostName
	TailscaleIPs []netip.Addr
	Online       bool
}

// Up fails with [ErrNotUp] unless this computer is in a tailnet and connected.
func (c CLI) Up(ctx context.Context) error {
	_, err := c.status(ctx)
	return err
}

// Find is the address of the machine that calls itself so: IPv4 where it has one. It
// is the zero Addr while there is none. Whether it is the right machine only its host
// key says.
func (c CLI) Find(ctx context.Context, name string) (netip.Addr, error) {
	s, err := c.status(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	var found []*peer
	for _, p := range s.Peer {
		if p == nil {
			continue
		}
		label, _, _ := strings.Cut(p.DNSName, ".")
		if (strings.EqualFold(p.HostName, name) || strings.EqualFold(label, name)) && len(p.TailscaleIPs) > 0 {
			found = append(found, p)
		}
	}
	if len(found) > 1 { // one that joined again leaves its former self behind for a while
		found = online(found)
	}
	switch len(found) {
	case 0:
		return netip.Addr{}, nil
	case 1:
		return found[0].addr(), nil
	}
	return netip.Addr{}, fmt.Errorf("%d machines in the tailnet call themselves %s", len(found), name)
}

func online(peers []*peer) (on []*peer) {
	for _, p := range peers {
		if p.Online {
			on = append(on, p)
		}
	}
	return on
}

func (p *peer) addr() netip.Addr {
	for _, a := range p.TailscaleIPs {
		if a.Is4() {
			return a
		}
	}
	return p.TailscaleIPs[0]
}

// status asks the program, and refuses an answer that is of no use.
func (c CLI) status(ctx context.Context) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(c), "status", "--json")
	cmd.WaitDelay = time.Second
	out, said := printout.Printout{Most: mostAnswer}, printout.Printout{Most: mostSaid}
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return status{}, fmt.Errorf("%w, or its tailscale program is not found: %q is not there (GPULEASE_TAILSCALE)", ErrNotUp, string(c))
	case ctx.Err() != nil:
		return status{}, fmt.Errorf("%w: %s status --json: %w", ErrNotUp, string(c), ctx.Err())
	case out.Over:
		return status{}, fmt.Errorf("%w: %s status --json: it printed more than %d MiB", ErrNotUp, string(c), mostAnswer>>20)
	}
	var s status
	if bad := json.Unmarshal(out.Bytes(), &s); bad != nil {
		// Where it fails it prints no JSON, and says why in a line or two.
		why := strings.Map(printable, strings.Join(strings.Fields(said.String()), " "))
		if err == nil {
			err = errors.New("its answer is not JSON")
		}
		return status{}, fmt.Errorf("%w: %s status --json: %w: %.200s", ErrNotUp, string(c), err, why)
	}
	if s.BackendState != "Running" {
		return status{}, fmt.Errorf("%w: %s says that it is %.60q (tailscale up)", ErrNotUp, string(c), s.BackendState)
	}
	if s.Self != nil && !s.Self.Online {
		return status{}, fmt.Errorf("%w: %s says that it is offline", ErrNotUp, string(c))
	}
	return s, nil
}

// printable leaves nothing in a program's words that a terminal would obey.
func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return '?'
	}
	return r
}
