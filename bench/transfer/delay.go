package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// delayed is a TCP proxy that holds back every byte for half a round trip each way, without limiting the rate.
type delayed struct {
	listener net.Listener
	backend  string
	oneWay   time.Duration
	tasks    sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func startDelayed(backend string, roundTrip time.Duration) (*delayed, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &delayed{listener: l, backend: backend, oneWay: roundTrip / 2}
	d.tasks.Go(d.accept)
	return d, nil
}

func (d *delayed) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", d.backend)
		if err != nil {
			_ = client.Close()
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, client, server)
		d.mu.Unlock()
		d.tasks.Go(func() { d.carry(client, server) })
		d.tasks.Go(func() { d.carry(server, client) })
	}
}

type held struct {
	due  time.Time
	data []byte
}

// chunks are used again and again, so that the delay costs those who are measured little of the processors.
var chunks = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// carry holds up to 512 MiB in flight: more than any window.
func (d *delayed) carry(to, from net.Conn) {
	queue := make(chan held, 2048)
	d.tasks.Go(func() {
		defer func() { _ = to.Close() }()
		for h := range queue {
			time.Sleep(time.Until(h.due))
			_, err := to.Write(h.data)
			chunks.Put((*[256 << 10]byte)(h.data[:256<<10]))
			if err != nil {
				_ = from.Close()
				for range queue { // what still comes has nowhere to go
				}
				return
			}
		}
	})
	for {
		data := chunks.Get().(*[256 << 10]byte)
		n, err := from.Read(data[:])
		if n > 0 {
			queue <- held{time.Now().Add(d.oneWay), data[:n]}
		}
		if err != nil {
			close(queue)
			_, _ = io.Copy(io.Discard, from)
			return
		}
	}
}

func (d *delayed) stop() {
	_ = d.listener.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.tasks.Wait()
}
