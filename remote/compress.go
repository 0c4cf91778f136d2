package remote

import (
	"compress/gzip"
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
