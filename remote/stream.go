package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// bulkStreams is how many channels carry data at once. A channel carries 2 MiB in a round trip, so it takes several to
// fill a long way. They are counted apart from commands, which must not wait behind them.
const bulkStreams = 4

// streamLimit is how many bytes of a stream wait between those who carry it and those who make or use it.
const streamLimit = 256 << 10

// stream runs a verb of files.sh with list as its input, and gives the data of its reply, while it comes, to take.
func (n *conn) stream(ctx context.Context, args []string, list []byte, take func(reply, *bufio.Reader) error) error {
	args, stdin, release := held(args, list)
	defer release()
	return n.streaming(ctx, execution{command: filesScript.command(args), stdin: stdin, bulk: true}, take)
}

func (n *conn) streaming(ctx context.Context, e execution, take func(reply, *bufio.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := newPipe(streamLimit)
	taken := make(chan error, 1)
	go func() {
		err := n.takeReply(out, take)
		if err != nil {
			cancel(err) // what still comes is of no use
		}
		out.refuse(errNotTaken)
		taken <- err
	}()
	e.stdout, e.stderr = &tolerant{to: out}, io.Discard
	status, err := n.exec(ctx, e)
	out.close(err) // nil is the end of the stream
	takeErr := <-taken
	switch {
	case errors.Is(err, ErrConnLost):
		return err
	case err == nil && status == notInstalled:
		return n.wentAway(filesScript)
	case takeErr != nil && !errors.Is(takeErr, context.Canceled):
		return takeErr
	}
	return err
}

func (n *conn) takeReply(r io.Reader, take func(reply, *bufio.Reader) error) error {
	stream := bufio.NewReaderSize(r, 256<<10)
	head, err := readHead(stream)
	if err != nil {
		return err
	}
	return take(head, stream)
}

// readHead reads a reply up to its data, past whatever a login script has printed.
func readHead(stream *bufio.Reader) (reply, error) {
	head := make([]byte, 0, 256)
	for len(head) < headLimit {
		c, err := stream.ReadByte()
		if errors.Is(err, ErrConnLost) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return reply{}, err
		}
		if err != nil {
			return reply{}, fmt.Errorf("%w: %s", ErrMachine, printable(head))
		}
		head = append(head, c)
		if c != '\n' || !bytes.HasSuffix(head, []byte("\n\n")) {
			continue
		}
		if r, ok := parseReply(head); ok {
			return r, r.failure()
		}
	}
	return reply{}, fmt.Errorf("%w: %s", ErrMachine, printable(head))
}

// early makes the end of a stream before its time a lost connection: whatever cut it, asked again the rest may come.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: stream ended early", ErrConnLost)
	}
	return err
}

// tolerant passes on what it can and takes the rest: a writer that fails would stop the stream and hang its command.
type tolerant struct {
	to     io.Writer
	mu     sync.Mutex
	broken bool
}

func (w *tolerant) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.broken {
		_, err := w.to.Write(p)
		w.broken = err != nil
	}
	return len(p), nil
}

// together runs the tasks at the same time. When one fails the others' context ends; its error is returned when all
// have ended.
func together(ctx context.Context, tasks ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	var once sync.Once
	var first error
	for _, task := range tasks {
		group.Go(func() {
			if err := task(ctx); err != nil {
				once.Do(func() {
					first = err
					cancel()
				})
			}
		})
	}
	group.Wait()
	return first
}
