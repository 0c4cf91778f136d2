package lambdatest

import (
	"bytes"
	"io"
	"net/http"
)

// Transport carries requests to the simulator without a socket, whatever host
// they name: for tests in a bubble of testing/synctest, and fast ones. A cut
// connection is io.ErrUnexpectedEOF.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ s *Server }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	req := r.Clone(r.Context())
	req.RequestURI, req.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:1"
	if req.Body == nil {
		req.Body = http.NoBody
	}
	defer req.Body.Close()
	w := &recorder{header: http.Header{}}
	whole := t.serve(w, req)
	if err := r.Context().Err(); err != nil && !whole {
		return nil, err
	}
	if !whole && w.status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	resp := &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Request: r, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}
	if !whole {
		resp.ContentLength = -1
		resp.Body = io.NopCloser(io.MultiReader(&w.body, broken{}))
	}
	return resp, nil
}

// serve tells whether the answer was given to its end.
func (t transport) serve(w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			panic(v)
		}
	}()
	t.s.ServeHTTP(w, r)
	return true
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}
