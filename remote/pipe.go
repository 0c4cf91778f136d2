package remote

import (
	"io"
	"sync"
)

// pipe carries bytes from one goroutine to another like an [io.Pipe], and holds some: neither has to wait for the other
// with each piece, which at hundreds of megabytes a second is what costs most.
type pipe struct {
	limit int // bytes held, from which on a write waits

	mu      sync.Mutex
	changed *sync.Cond // of what follows
	held    []byte
	next    int   // of held, what is to be read
	end     error // told when all that is held has been read
	refused error // told to the writer
}

func newPipe(limit int) *pipe {
	p := &pipe{limit: limit}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// Write takes all of data as soon as less is held than the limit.
func (p *pipe) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.refused == nil && p.end == nil && len(p.held)-p.next >= p.limit {
		p.changed.Wait()
	}
	switch {
	case p.refused != nil:
		return 0, p.refused
	case p.end != nil:
		return 0, io.ErrClosedPipe
	}
	if p.next == len(p.held) {
		p.held, p.next = p.held[:0], 0
	}
	p.held = append(p.held, data...)
	p.changed.Broadcast()
	return len(data), nil
}

// await waits for something to read, or returns why there will be none.
func (p *pipe) await() error {
	for {
		switch {
		case p.refused != nil:
			return io.ErrClosedPipe
		case p.next < len(p.held):
			return nil
		case p.end != nil:
			return p.end
		}
		p.changed.Wait()
	}
}

func (p *pipe) Read(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.await(); err != nil {
		return 0, err
	}
	n := copy(data, p.held[p.next:])
	p.next += n
	p.changed.Broadcast()
	return n, nil
}

// WriteTo gives w all that comes, as much at a time as is held.
func (p *pipe) WriteTo(w io.Writer) (int64, error) {
	var total int64
	var going []byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := p.await(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		from := p.next
		going, p.held, p.next = p.held, going[:0], 0
		p.changed.Broadcast()
		p.mu.Unlock()
		n, err := w.Write(going[from:])
		p.mu.Lock()
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// close ends what is written. Who reads gets err, or io.EOF for nil, behind what is held.
func (p *pipe) close(err error) {
	if err == nil {
		err = io.EOF
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end == nil {
		p.end = err
	}
	p.changed.Broadcast()
}

// refuse ends what is read, and drops what is held. Who writes gets err.
func (p *pipe) refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused == nil {
		p.refused, p.held, p.next = err, nil, 0
	}
	p.changed.Broadcast()
}
