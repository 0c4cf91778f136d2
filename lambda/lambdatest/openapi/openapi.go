// Package openapi holds the simulated cloud, or anything else that answers like
// Lambda's API, to Lambda's OpenAPI document.
//
//	sim := lambdatest.Start(t, lambdatest.Config{Wrap: openapi.Validate(t)})
//
// From then on an answer that the document does not allow fails the test, and so
// does a request that the document forbids and that was answered with success.
//
// It is a package of its own so that the validator stays out of the product: only
// tests may import it.
package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	verrors "github.com/pb33f/libopenapi-validator/errors"
)

//go:embed lambda-openapi.json
var document []byte

// Document is Lambda's OpenAPI document as it was published.
func Document() []byte { return bytes.Clone(document) }

// basePath is where the operations are in the document.
const basePath = "/api/v1"

// faultHeader is on answers that the simulator was told to spoil.
const faultHeader = "X-Gpulease-Sim-Fault"

// The closed one also refuses properties that the document does not name, which
// is right for answers; requests may have more.
var load = sync.OnceValues(func() (open, closed validator.Validator) {
	build := func(text []byte) validator.Validator {
		doc, err := libopenapi.NewDocument(text)
		if err != nil {
			panic(fmt.Sprintf("openapi: read Lambda's document: %v", err))
		}
		v, errs := validator.NewValidator(doc, config.WithoutSecurityValidation(), config.WithFormatAssertions())
		if len(errs) > 0 {
			panic(fmt.Sprintf("openapi: read Lambda's document: %v", errors.Join(errs...)))
		}
		return v
	}
	return build(document), build(closeObjects(document))
})

// closeObjects forbids further properties in every object of the document that
// says nothing about them.
func closeObjects(text []byte) []byte {
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		panic(fmt.Sprintf("openapi: read Lambda's document: %v", err))
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			_, said := v["additionalProperties"]
			if _, ok := v["properties"].(map[string]any); ok && v["type"] == "object" && !said {
				v["additionalProperties"] = false
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(doc)
	out, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("openapi: write Lambda's document: %v", err))
	}
	return out
}

// Request says what the document has against a request. The body is taken for
// JSON whatever its content type says, as the service does.
func Request(r *http.Request, body []byte) error {
	open, _ := load()
	req := r.Clone(r.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	ok, errs := open.ValidateHttpRequestSync(req)
	if ok {
		return nil
	}
	return join(errs)
}

// Response says what the document has against the answer to a request.
func Response(r *http.Request, status int, header http.Header, body []byte) error {
	if !json.Valid(body) { // the validator takes an empty body for none
		return errors.New("the body is not JSON")
	}
	_, closed := load()
	resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": header["Content-Type"]},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r}
	ok, errs := closed.ValidateHttpResponse(r, resp)
	if ok {
		return nil
	}
	return join(errs)
}

func join(errs []*verrors.ValidationError) error {
	var all []error
	for _, e := range errs {
		var detail []string
		for _, s := range e.SchemaValidationErrors {
			detail = append(detail, strings.TrimSpace(s.FieldPath+" "+s.Reason))
		}
		slices.Sort(detail)
		all = append(all, fmt.Errorf("%s: %s %s", e.Message, e.Reason, strings.Join(slices.Compact(detail), "; ")))
	}
	if len(all) == 0 {
		return errors.New("the document forbids it")
	}
	return errors.Join(all...)
}

// T is the part of testing.TB that Validate needs.
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// Validate makes a handler's wrapper that checks every exchange against the
// document. What a fault has spoiled, and answers of those who stand in front of
// the API (429, 405, pages), are left out.
func Validate(t T) func(http.Handler) http.Handler { return wrap(t, false) }

// ValidateNewer is Validate for a service that has the fields that were added
// after the document was saved. Those, and no others, may be more.
func ValidateNewer(t T) func(http.Handler) http.Handler { return wrap(t, true) }

func wrap(t T, newer bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t.Helper()
			if !strings.HasPrefix(r.URL.Path, basePath+"/") {
				next.ServeHTTP(w, r)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				next.ServeHTTP(w, r)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			seen := &tee{ResponseWriter: w}
			next.ServeHTTP(seen, r) // a cut connection panics through here: nothing to check
			check(t, r, body, seen, newer)
		})
	}
}

func check(t T, r *http.Request, body []byte, a *tee, newer bool) {
	t.Helper()
	if a.Header().Get(faultHeader) != "" || a.status == http.StatusTooManyRequests || a.status == http.StatusMethodNotAllowed {
		return
	}
	if strings.HasPrefix(r.UserAgent(), "Python-urllib/") {
		return
	}
	answer := a.body.Bytes()
	path := r.URL.Path
	if newer {
		answer = older(r, answer)
		if path == basePath+"/filesystems" && r.Method == http.MethodGet {
			path = basePath + "/file-systems"
		}
	}
	known := r.Clone(r.Context())
	known.URL.Path = path
	if a.status == http.StatusNotFound && !Known(known) {
		return // a path that the document does not know is rightly not found
	}
	if err := Response(known, a.status, a.Header(), answer); err != nil {
		t.Errorf("%s %s: the answer %d is not what Lambda's document says: %v\n%s", r.Method, r.URL.Path, a.status, err, answer)
	}
	if a.status < 300 {
		if err := Request(known, body); err != nil {
			t.Errorf("%s %s: was answered %d, but Lambda's document forbids the request: %v", r.Method, r.URL.Path, a.status, err)
		}
	}
}

// Known tells whether the document has an operation for a request.
func Known(r *http.Request) bool {
	for path, ops := range paths() {
		if _, ok := ops[strings.ToLower(r.Method)]; ok && matches(path, r.URL.Path) {
			return true
		}
	}
	return false
}

var paths = sync.OnceValue(func() map[string]map[string]json.RawMessage {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		panic(fmt.Sprintf("openapi: read Lambda's document: %v", err))
	}
	return doc.Paths
})

func matches(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(p) != len(q) {
		return false
	}
	for n := range p {
		if p[n] != q[n] && (!strings.HasPrefix(p[n], "{") || q[n] == "") {
			return false
		}
	}
	return true
}

// additions are the fields that the service has gained since the document was
// saved, by the object that has them: it is known by another of its fields.
var additions = []struct{ name, beside string }{
	{"architecture", "gpu_description"},
	{"first_healthy", "ssh_key_names"},
	{"image", "ssh_key_names"},
	{"power_cycle", "cold_reboot"},
	{"workspace_id", "public_key"},
}

// older takes the additions out of an answer.
func older(r *http.Request, answer []byte) []byte {
	var v any
	if json.Unmarshal(answer, &v) != nil {
		return answer
	}
	if m, ok := v.(map[string]any); ok && strings.HasSuffix(r.URL.Path, "/instances") {
		delete(m, "page_token")
	}
	strip(v)
	out, err := json.Marshal(v)
	if err != nil {
		return answer
	}
	return out
}

func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, a := range additions {
			if _, ok := v[a.beside]; ok {
				delete(v, a.name)
			}
		}
		for _, x := range v {
			strip(x)
		}
	case []any:
		for _, x := range v {
			strip(x)
		}
	}
}

// tee keeps a copy of an answer.
type tee struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (t *tee) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *tee) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	t.body.Write(p)
	return t.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the writer below.
func (t *tee) Unwrap() http.ResponseWriter { return t.ResponseWriter }
