package remote

import (
	"bufio"
	"context"
)

// giver is a script on the machine that sends an archive of files, once it is told which.
type giver struct {
	*standby
	told   chan struct{}
	unpack func(reply, *bufio.Reader) error // set before told is closed
}

// hire starts as many as there may be work for, while the machine looks at what there is.
func (j *fetching) hire(n *conn, all bool) {
	want := 1
	if all {
		want = bulkStreams
	}
	for len(j.givers) < want {
		g := &giver{told: make(chan struct{})}
		g.standby = n.standBy(j.ctx, func(ctx context.Context, in *pipe, begun func()) error {
			return n.streaming(ctx, execution{
				command: filesScript.command(heldUntold(j.verb("send", j.base, n.pressing()))), stdin: in, bulk: true, standby: true, begun: begun,
			}, func(head reply, r *bufio.Reader) error {
				select {
				case <-g.told: // a machine may answer before it is asked
					return g.unpack(head, r)
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
		if g.standby == nil {
			return
		}
		j.givers = append(j.givers, g)
	}
}

// giver is one that stands by; nil if there is none.
func (j *fetching) giver() *giver {
	for {
		j.mu.Lock()
		if len(j.givers) == 0 {
			j.mu.Unlock()
			return nil
		}
		g := j.givers[0]
		j.givers = j.givers[1:]
		j.mu.Unlock()
		if g.ready() {
			return g
		}
	}
}

// keep drops those that are too many. They must not stand by where anything has to wait for what they hold.
func (j *fetching) keep(count int) {
	j.mu.Lock()
	var drop []*giver
	if len(j.givers) > count {
		drop, j.givers = j.givers[count:], j.givers[:count]
	}
	j.mu.Unlock()
	for _, g := range drop {
		g.drop()
	}
}

// give has it send the files, and gives what comes to unpack.
func (g *giver) give(ctx context.Context, paths []byte, unpack func(reply, *bufio.Reader) error) error {
	defer context.AfterFunc(ctx, g.cancel)()
	g.unpack = unpack
	close(g.told)
	g.work()
	_, _ = g.in.Write(counted(paths)) // if it takes none, the end says why
	<-g.ended
	return g.err
}
