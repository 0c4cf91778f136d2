package remote

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestPipeCarriesAll(t *testing.T) {
	t.Parallel()
	data := make([]byte, 1_000_003)
	_, _ = rand.Read(data)
	readers := map[string]func(*pipe) ([]byte, error){
		"read":  func(p *pipe) ([]byte, error) { return io.ReadAll(iotest.HalfReader(p)) },
		"write": func(p *pipe) ([]byte, error) { var b bytes.Buffer; _, err := p.WriteTo(&b); return b.Bytes(), err },
	}
	for name, read := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, broke := newPipe(4000), errors.New("broke")
			go func() {
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 3001)
					_, _ = p.Write(rest[:n])
					rest = rest[n:]
				}
				p.close(broke)
			}()
			got, err := read(p)
			require.ErrorIs(t, err, broke)
			require.True(t, bytes.Equal(data, got))
			_, err = p.Write([]byte("more"))
			require.ErrorIs(t, err, io.ErrClosedPipe)
		})
	}
}

func TestPipeHoldsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	p, refused := newPipe(100), errors.New("refused")
	_, err := p.Write(make([]byte, 100))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := p.Write([]byte{1})
		done <- err
	}()
	select {
	case <-done:
		t.Fatal("a full pipe took more")
	default:
	}
	p.refuse(refused)
	require.ErrorIs(t, <-done, refused)
	_, err = p.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// What x/crypto/ssh writes while the kernel is busy goes out as one piece, and a connection that takes nothing holds neither
// its writer nor its end.
func TestWire(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	w := newWire(here)
	for range 100 {
		_, err := w.Write([]byte("0123456789"))
		require.NoError(t, err)
	}
	pieces, total := 0, 0
	for total < 1000 {
		n, err := there.Read(make([]byte, 4096))
		require.NoError(t, err)
		pieces, total = pieces+1, total+n
	}
	require.Less(t, pieces, 100)
	go func() { _, _ = there.Write([]byte("answer")) }()
	got := make([]byte, 6)
	_, err := io.ReadFull(w, got)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))

	stuck := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Write(make([]byte, wireLimit)); err != nil {
				stuck <- err
				return
			}
		}
	}()
	require.NoError(t, w.Close())
	require.ErrorIs(t, <-stuck, net.ErrClosed)
}

// A machine decides what it answers, and must not fill the memory here with it.
func TestCappedKeepsItsLimitHoweverItIsFilled(t *testing.T) {
	t.Parallel()
	c := &capped{limit: 1000}
	n, err := io.Copy(c, bytes.NewReader(make([]byte, 1<<20)))
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, n)
	n, err = io.Copy(c, io.LimitReader(zeros{}, 1<<20))
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, n)
	require.True(t, c.over)
	require.Equal(t, 1000, len(c.Bytes()))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
