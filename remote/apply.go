package remote

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
)

const (
	// oneArchive is how much goes in a single archive: less would not be worth another round trip.
	oneArchive = 4 << 20
	// mostArchive bounds what has to be sent again when the connection breaks, or the time of a call is up: an archive
	// counts when it has arrived whole.
	mostArchive = 8 << 20
)

// apply sends the plan: all in one archive if it is small, else in several, of which some are under way at once, and
// large files in parts. What has been put in its place stays, whatever breaks then.
func (j *pushing) apply(ctx context.Context, n *conn, p *plan, there present, crew *crew) error {
	small, big := p.send, []*item(nil)
	if there.ranged {
		small, big = nil, nil
		for _, it := range p.send {
			if it.kind == kindFile && it.size >= large {
				big = append(big, it)
			} else {
				small = append(small, it)
			}
		}
	}
	batches := j.batches(small, n.near())
	streams := 1
	if there.many {
		streams = bulkStreams
	}
	if !there.ranged {
		crew.dismiss() // they cut what comes with what dd can do elsewhere
	} else if crew.grow(min(streams, len(batches))); !there.many {
		crew.keep(1)
	}
	if len(batches) == 1 && len(big) == 0 {
		only := &packing{push: j, in: folder{root: j.root}, plan: p, items: small, how: there.how, both: true, last: true, members: []member{
			{"before", nulList(p.before)}, {"after", nulList(p.after)},
		}}
		return j.deliver(ctx, n, crew, 1, nil, only)
	}
	if first := (&packing{push: j, in: folder{root: j.root}, plan: p, how: there.how, both: true, members: []member{{"before", nulList(p.before)}}}); len(p.before) > 0 {
		crew.dismiss()
		if err := j.send(ctx, n, first); err != nil {
			return err
		}
	}
	var all []*packing
	for i, items := range batches {
		all = append(all, &packing{push: j, in: folder{root: j.root}, plan: p, items: items, how: there.how, both: i == 0 && len(p.before) == 0})
	}
	last := &packing{push: j, in: folder{root: j.root}, plan: p, how: there.how, last: true, earlier: all, members: []member{{"after", nulList(p.after)}}}
	if len(big) == 0 {
		return j.deliver(ctx, n, crew, streams, last, all...)
	}
	if err := j.deliver(ctx, n, crew, streams, nil, all...); err != nil {
		return err
	}
	crew.dismiss()
	for _, it := range big {
		batch := &packing{push: j, in: folder{root: j.root}, plan: p, next: manifest{}}
		if err := j.sendLarge(ctx, n, batch, it, there.how); err != nil {
			return err
		}
		last.earlier = append(last.earlier, batch)
	}
	return j.send(ctx, n, last)
}

// deliver sends archives, over so many streams at once, and the last one when the others are in their places. A taker carries as
// many as it gets; where there are too few of them, or somebody else waits for what they hold, each goes in a command of its own.
func (j *pushing) deliver(ctx context.Context, n *conn, crew *crew, streams int, last *packing, all ...*packing) error {
	todo := make(chan *packing, len(all))
	for _, pack := range all {
		todo <- pack
	}
	close(todo)
	hands := make([]func(context.Context) error, min(streams, len(all)))
	var busy atomic.Int32
	busy.Store(int32(len(hands)))
	for i := range hands {
		t := crew.take()
		hands[i] = func(ctx context.Context) error {
			if t != nil {
				defer context.AfterFunc(ctx, t.cancel)()
				defer t.drop()
			}
			t, err := j.carry(ctx, n, t, todo)
			if err != nil || busy.Add(-1) > 0 || last == nil {
				return t.finish(err)
			}
			// All others have been put in their places, and this hand has a taker still, or never had one.
			if t == nil {
				return j.send(ctx, n, last)
			}
			return t.finish(t.send(last))
		}
	}
	return together(ctx, hands...)
}

// carry is what one hand does: it sends what there is to send, and returns when that is in its place.
func (j *pushing) carry(ctx context.Context, n *conn, t *taker, todo <-chan *packing) (*taker, error) {
	for pack := range todo {
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		if t != nil && n.waiting.Load() > 0 {
			if err := t.finish(nil); err != nil {
				return t, err
			}
			t = nil
		}
		var err error
		if t != nil {
			err = t.send(pack)
		} else {
			err = j.send(ctx, n, pack)
		}
		if err != nil {
			return t, err
		}
	}
	if t == nil {
		return nil, nil
	}
	return t, t.settle()
}

// batches divides items into archives. Where there are several the first of them are small, so that a push with little
// time over a slow connection gets something into its place, and the next one has less to do. Near has no need of that.
func (j *pushing) batches(items []*item, near bool) [][]*item {
	var total int64
	for _, it := range items {
		total += it.size + 512
	}
	if total <= oneArchive {
		return [][]*item{items}
	}
	first := bulkStreams
	if near {
		first = 0
	}
	each := min(max((total-int64(first)*enough)/bulkStreams, enough), mostArchive)
	var all [][]*item
	var size int64
	start := 0
	for i, it := range items {
		most := each
		if len(all) < first {
			most = enough
		}
		if size += it.size + 512; size >= most || i == len(items)-1 {
			all = append(all, items[start:i+1])
			start, size = i+1, 0
		}
	}
	return all
}

// send sends one archive, which is written while it is sent.
func (j *pushing) send(ctx context.Context, n *conn, pack *packing) error {
	defer pack.in.close()
	pack.how = pack.worthwhile()
	r, err := n.feed(ctx, []string{"apply", j.dst, pack.how}, nil, pack.write)
	if err != nil {
		return err
	}
	removed, err := r.numbers("removed", 1)
	if err != nil {
		return err
	}
	j.placed(pack, int(removed[0]))
	return nil
}

// placed takes down what is in its place on the machine now.
func (j *pushing) placed(pack *packing, removed int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sum.Sent += pack.files
	j.sum.SentBytes += pack.bytes
	j.sum.Deleted += removed
	j.skipped = append(j.skipped, pack.skipped...)
}

// feed runs a verb of files.sh with what write writes as its input. Write has ended when feed returns. Seen, if there is one,
// is called with each field of the reply as soon as it comes.
func (n *conn) feed(ctx context.Context, args []string, seen func(field), write func(io.Writer) error) (reply, error) {
	in := newPipe(streamLimit)
	written := make(chan error, 1)
	go func() {
		err := write(in)
		in.close(err)
		written <- err
	}()
	r, err := n.call(ctx, request{
		script: filesScript, args: args, stdin: func() io.Reader { return in }, bulk: true, seen: seen, data: mostSeen,
	})
	in.refuse(errNotTaken) // the machine may have stopped reading
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errNotTaken) {
		return r, writeErr
	}
	return r, err
}

// mostSeen is how many bytes a machine may answer to what it is fed: a line for each part of a large file.
const mostSeen = 16 << 20

var errNotTaken = errors.New("no longer wanted")
