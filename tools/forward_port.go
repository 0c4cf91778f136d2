package tools

import (
	"context"
	"fmt"

	"github.com/gpulease/gpulease/lease"
)

type forwardIn struct {
	LeaseID   lease.ID `json:"lease_id"`
	Port      int      `json:"port" jsonschema:"minimum=1,maximum=65535"`
	LocalPort int      `json:"local_port,omitempty" jsonschema:"minimum=1024,maximum=65535"`
	Close     bool     `json:"close,omitempty"`
}

type forwardOut struct {
	LocalAddr   string `json:"local_addr,omitempty"`
	leaseBeside `jsonschema:"-"`
	advice
}

func forwardPort(l interface {
	Reader
	Worker
}) Tool {
	return New(Def{
		Name:        "forward_port",
		Title:       "Reach a port of a lease",
		Description: "Opens a port on 127.0.0.1 of the server's computer that leads to one of the machine, until the lease or this server ends.",
		Annotations: Annotations{Idempotent: true},
	}, func(ctx context.Context, in forwardIn) (forwardOut, error) {
		if in.Close {
			return closeForward(ctx, l, in)
		}
		f, owner, err := l.Forward(ctx, in.LeaseID, in.LocalPort, in.Port)
		if err != nil {
			return forwardOut{}, ofLease(err, in.LeaseID)
		}
		s := status(ctx, l, owner)
		return forwardOut{
			LocalAddr: f.LocalAddr, leaseBeside: besideOf(s),
			advice: adviceOf(s, say("connect to %s; what listens on the machine has to listen on localhost, port %d", f.LocalAddr, in.Port)),
		}, nil
	})
}

func closeForward(ctx context.Context, l interface {
	Reader
	Worker
}, in forwardIn) (forwardOut, error) {
	closed, owner, err := l.CloseForward(ctx, in.LeaseID, in.Port)
	if err != nil {
		return forwardOut{}, ofLease(err, in.LeaseID)
	}
	s := status(ctx, l, owner)
	said := fmt.Sprintf("nothing was forwarded to port %d by this server", in.Port)
	if len(closed) > 0 {
		said = fmt.Sprintf("%s to port %d closed", plural(len(closed), "forward"), in.Port)
	}
	next := nextFor(owner)
	next.Text = said + "; " + next.Text
	return forwardOut{leaseBeside: besideOf(s), advice: adviceOf(s, next)}, nil
}

// forwardLines are the forwards of a lease for an answer about it.
func forwardLines(open []lease.Forward) []string {
	var lines []string
	for _, f := range open {
		lines = append(lines, fmt.Sprintf("%s -> port %d, %s open", f.LocalAddr, f.RemotePort, plural(f.Open, "connection")))
	}
	return lines
}

// Text is where to connect.
func (o forwardOut) Text() string {
	if o.LocalAddr == "" {
		return "closed" + o.lines()
	}
	return "forwarded: " + o.LocalAddr + o.lines()
}
