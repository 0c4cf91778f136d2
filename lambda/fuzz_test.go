package lambda_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// Whatever comes back, a call ends in a result or an *Error, never in a panic, and what it says and logs does not hold the
// key. "KEY" in the input stands for the key.
func FuzzAnswers(f *testing.F) {
	for i, op := range operations() {
		f.Add(byte(i), 200, "application/json", []byte(op.answer))
	}
	for _, body := range []string{"", "null", "[]", `{"data":null}`, `{"data":[null]}`, `{"data":[{"id":"KEY"}],"page_token":"KEY"}`, page1010, page1015, page502,
		envelope("global/KEY", "KEY", "Bearer KEY"), `{"error":{"code":"a\u0000b","message":{}}}`, `{"data":{"instance_ids":["KEY","KEY"]}}`,
		`{"data":{"KEY":{"instance_type":{"price_cents_per_hour":1.5}}}}`, `{"data":[{"id":"a","first_healthy":"KEY","region":"KEY"}]}`} {
		for op := range byte(28) {
			f.Add(op, 200+200*int(op%2), "text/KEY", []byte(body))
		}
	}
	ops := operations()
	f.Fuzz(func(t *testing.T, op byte, status int, kind string, body []byte) {
		o := ops[int(op)%len(ops)]
		status = 100 + (status%500+500)%500
		if status < 200 {
			status += 100 // a transport does not hand out 1xx
		}
		plain := strings.ReplaceAll(string(body), "KEY", testKey)
		header := []string{"Content-Type", strings.ReplaceAll(kind, "KEY", testKey), "X-Request-Id", testKey, "Retry-After", kind, "Date", kind, "Location", "https://" + testKey}
		var log bytes.Buffer
		c := newClient(t, always(status, plain, header...), lambda.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))

		err := o.call(t.Context(), c)
		require.NotContains(t, log.String(), testKey)
		if err == nil {
			require.True(t, status >= 200 && status < 300)
			return
		}
		var e *lambda.Error
		if !asError(err, &e) {
			return // the operation read it, and it is not the document's example
		}
		require.NotContains(t, shown(t, err), testKey)
		require.Equal(t, o.op, e.Op)
		if o.method != http.MethodGet && e.Outcome == lambda.NothingHappened {
			require.True(t, status >= 400 && status < 500 && status != 408 && status != 429, "%v", e)
			require.True(t, json.Valid([]byte(plain)))
			require.NotEmpty(t, e.Code)
		}
		if lambda.IsBadKey(err) {
			require.True(t, json.Valid([]byte(plain)))
		}
	})
}

func asError(err error, e **lambda.Error) bool {
	got, ok := err.(*lambda.Error)
	*e = got
	return ok
}

// What a decoder takes, it can print without the secrets.
func FuzzInstance(f *testing.F) {
	f.Add([]byte(documentInstance))
	f.Add([]byte(leanInstance))
	f.Add([]byte(`{"id":"a","jupyter_token":"tok-KEY-tok","jupyter_url":"https://x/?token=tok-KEY-tok"}`))
	f.Add([]byte(`{"ID":"a","Jupyter_Token":"tok-KEY-tok","tags":[null],"actions":null,"region":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var i lambda.Instance
		if json.Unmarshal(in, &i) != nil {
			return
		}
		out := shown(t, i)
		for _, s := range []lambda.Secret{i.JupyterToken, i.JupyterURL} {
			if text := s.Reveal(); len(text) >= 8 && strings.Count(string(in), text) == 1 && strings.Contains(text, "KEY") {
				require.NotContains(t, out, text)
			}
		}
		b, err := json.Marshal(i)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &i), "its own JSON can be read")
	})
}
