package remote

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Ways of compressing a stream, as files.sh names them.
const (
	asItIs   = "none"
	withGzip = "gzip"
	withZstd = "zstd"
)

// pressing is what files.sh is told of whether to compress what it sends.
func (n *conn) pressing() string {
	if n.near() {
		return asItIs
	}
	return "best"
}

// decompress reads a stream of the machine. Close the result.
func decompress(how string, r io.Reader) (io.ReadCloser, error) {
	switch how {
	case asItIs:
		return io.NopCloser(r), nil
	case withGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, early(err)
		}
		return z, nil
	case withZstd:
		// One at a time: it works in the caller's goroutine. The window bounds what a stream can make us allocate.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMachine, err)
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("%w: compression %q", ErrMachine, how)
}

// compress writes a stream for the machine. Close it to end the stream.
func compress(how string, w io.Writer) (io.WriteCloser, error) {
	switch how {
	case withGzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case withZstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20))
	}
	return unpressed{w}, nil
}

type unpressed struct{ io.Writer }

func (unpressed) Close() error { return nil }

// sampleSize is how much of what is to be sent is compressed first to see whether that is worth its time.
const sampleSize = 1 << 20

// worthwhile is how, or none when the sample hardly gets smaller. Zstandard itself passes quickly over such data, and
// gzip does not.
func worthwhile(how string, sample []byte) string {
	most := 0.9
	if how == withGzip {
		most = 0.7
	}
	var size counter
	z, err := compress(how, &size)
	if err != nil || how == asItIs {
		return asItIs
	}
	_, err = z.Write(sample)
	if err = errors.Join(err, z.Close()); err != nil || float64(size) > most*float64(len(sample)) {
		return asItIs
	}
	return how
}

// counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
