package remote

import (
	"bufio"
	"net"
)

// wireLimit is how many bytes a wire holds that are to be sent, and how many it reads at once.
const wireLimit = 128 << 10

// wire is a connection that asks the kernel for few large pieces: x/crypto/ssh asks it twice or more for each packet of 32
// KiB, in either direction. What is written while an earlier piece is on its way goes together with the next. An
// error of a write is told by a later one. Close it.
type wire struct {
	net.Conn
	in   *bufio.Reader
	out  *pipe
	done chan struct{} // closed when nothing is sent any more
}

func newWire(raw net.Conn) *wire {
	w := &wire{Conn: raw, in: bufio.NewReaderSize(raw, wireLimit), out: newPipe(wireLimit), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		_, err := w.out.WriteTo(raw)
		w.out.refuse(err)
	}()
	return w
}

func (w *wire) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.out.Write(p) }

// Close ends the connection. What is held may be lost.
func (w *wire) Close() error {
	w.out.refuse(net.ErrClosed)
	err := w.Conn.Close()
	<-w.done
	return err
}
