package remote

import (
	"context"
	"errors"
	"io"
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
func (j *pushing) apply(n *conn, p *plan, there present) error {
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
	if len(batches) == 1 && len(big) == 0 {
		return j.send(j.ctx, n, &packing{push: j, in: folder{root: j.root}, plan: p, items: small, how: there.how, both: true, last: true, members: []member{
			{"before", nulList(p.before)}, {"after", nulList(p.after)},
		}})
	}
	var all []*packing
	if first := (&packing{push: j, in: folder{root: j.root}, plan: p, how: there.how, both: true, members: []member{{"before", nulList(p.before)}}}); len(p.before) > 0 {
		if err := j.send(j.ctx, n, first); err != nil {
			return err
		}
	}
	var tasks []func(context.Context) error
	for i, items := range batches {
		batch := &packing{push: j, in: folder{root: j.root}, plan: p, items: items, how: there.how, both: i == 0 && len(p.before) == 0}
		all = append(all, batch)
		tasks = append(tasks, func(ctx context.Context) error { return j.send(ctx, n, batch) })
	}
	streams := 1
	if there.many {
		streams = bulkStreams
	}
	if err := inTurn(j.ctx, streams, tasks); err != nil {
		return err
	}
	for _, it := range big {
		batch := &packing{push: j, in: folder{root: j.root}, plan: p, next: manifest{}}
		if err := j.sendLarge(j.ctx, n, batch, it, there.how); err != nil {
			return err
		}
		all = append(all, batch)
	}
	return j.send(j.ctx, n, &packing{push: j, in: folder{root: j.root}, plan: p, how: there.how, last: true, earlier: all, members: []member{{"after", nulList(p.after)}}})
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
