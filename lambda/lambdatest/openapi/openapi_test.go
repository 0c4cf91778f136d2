package openapi_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest/openapi"
)

const (
	region   = `{"name":"us-east-1","description":"Virginia, USA"}`
	typ      = `{"name":"a","description":"b","gpu_description":"c","price_cents_per_hour":1,"specs":{"vcpus":1,"memory_gib":1,"storage_gib":1,"gpus":0}}`
	actions  = `{"migrate":{"available":true},"rebuild":{"available":true},"restart":{"available":true},"cold_reboot":{"available":true},"terminate":{"available":true}}`
	instance = `{"id":"x","status":"active","ssh_key_names":[],"file_system_names":[],"region":` + region + `,"instance_type":` + typ + `,"actions":` + actions
)

// The checks must be able to fail: each of these is a mistake that some client or
// fake has made.
func TestWrongAnswersAreFound(t *testing.T) {
	unauthorized := `{"error":{"code":"global/invalid-api-key","message":"m","suggestion":"s"}}`
	for _, row := range []struct {
		name, method, path string
		status             int
		body               string
		right              bool
	}{
		{"an instance", "GET", "/instances/x", 200, `{"data":` + instance + `}}`, true},
		{"an error", "GET", "/instances", 401, unauthorized, true},
		{"an empty answer", "DELETE", "/ssh-keys/x", 200, `{"data":{}}`, true},
		{"no envelope", "GET", "/instances", 200, `[]`, false},
		{"more beside data", "GET", "/instances", 200, `{"data":[],"page_token":null}`, false},
		{"a status of our own", "GET", "/instances", 200, `{"data":[` + strings.Replace(instance, "active", "running", 1) + `}]}`, false},
		{"region as a string", "GET", "/instances/x", 200, `{"data":` + strings.Replace(instance, region, `"us-east-1"`, 1) + `}}`, false},
		{"tags as a map", "GET", "/instances/x", 200, `{"data":` + instance + `,"tags":{}}}`, false},
		{"null for absent", "GET", "/instances/x", 200, `{"data":` + instance + `,"name":null}}`, false},
		{"an undocumented field", "GET", "/instances/x", 200, `{"data":` + instance + `,"created_at":"now"}}`, false},
		{"a field missing", "GET", "/instances/x", 200, `{"data":` + strings.Replace(instance, `"file_system_names":[],`, "", 1) + `}}`, false},
		{"regions as strings", "GET", "/instance-types", 200, `{"data":{"a":{"instance_type":` + typ + `,"regions_with_capacity_available":["us-east-1"]}}}`, false},
		{"types as a list", "GET", "/instance-types", 200, `{"data":[]}`, false},
		{"a price with cents", "GET", "/instance-types", 200, `{"data":{"a":{"instance_type":` + strings.Replace(typ, ":1,", ":1.5,", 1) + `,"regions_with_capacity_available":[]}}}`, false},
		{"something in an empty answer", "DELETE", "/ssh-keys/x", 200, `{"data":{"id":"x"}}`, false},
		{"an undocumented status", "GET", "/instances", 418, unauthorized, false},
		{"a code at the wrong status", "GET", "/instances", 400, unauthorized, false},
		{"a created time that is none", "GET", "/file-systems", 200, `{"data":[{"id":"x","name":"n","mount_point":"/m","created":"yesterday",
			"created_by":{"id":"u","email":"e","status":"active"},"is_in_use":false,"region":` + region + `}]}`, false},
		{"nothing at all", "GET", "/instances", 200, ``, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			failures := exchange(t, row.method, row.path, "", row.status, row.body)
			if row.right {
				require.Empty(t, failures)
			} else {
				require.NotEmpty(t, failures)
			}
		})
	}
}

// An answer of success to a forbidden request is the server's mistake.
func TestSuccessForForbiddenRequestIsFound(t *testing.T) {
	done := `{"data":{"instance_ids":["x"]}}`
	require.NotEmpty(t, exchange(t, "POST", "/instance-operations/launch", `{"instance_type_name":"a"}`, 200, done))
	require.Empty(t, exchange(t, "POST", "/instance-operations/launch",
		`{"region_name":"r","instance_type_name":"a","ssh_key_names":["k"]}`, 200, done))
}

// What a fault spoiled and what the document does not cover is left alone.
func TestSpoiltAnswersAreLeftAlone(t *testing.T) {
	require.Empty(t, exchange(t, "GET", "/instances", "", 429, `<html>`))
	require.Empty(t, exchange(t, "GET", "/nowhere", "", 404, `anything`))
	require.NotEmpty(t, exchange(t, "GET", "/nowhere", "", 200, `{"data":{}}`), "a path of our own must not work")
}

func TestAdditionsAreAllowedOnlyWhenAsked(t *testing.T) {
	body := `{"data":[` + instance + `,"first_healthy":null,"image":{"id":"i"}}],"page_token":null}`
	plain, newer := &failures{}, &failures{}
	serve(t, openapi.Validate(plain), "GET", "/instances", "", 200, body)
	serve(t, openapi.ValidateNewer(newer), "GET", "/instances", "", 200, body)
	require.NotEmpty(t, plain.all)
	require.Empty(t, newer.all)
	other := &failures{}
	serve(t, openapi.ValidateNewer(other), "GET", "/instances", "", 200, strings.Replace(body, "first_healthy", "firsthealthy", 1))
	require.NotEmpty(t, other.all)
}

// The README vouches for the document with its hash.
func TestDocumentIsTheOneInTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	sum := sha256.Sum256(openapi.Document())
	require.Contains(t, string(readme), hex.EncodeToString(sum[:]))
	require.Contains(t, string(readme), fmt.Sprintf("%d bytes", len(openapi.Document())))
}

type failures struct{ all []string }

func (f *failures) Helper() {}
func (f *failures) Errorf(format string, args ...any) {
	f.all = append(f.all, fmt.Sprintf(format, args...))
}

func exchange(t *testing.T, method, path, request string, status int, answer string) []string {
	f := &failures{}
	serve(t, openapi.Validate(f), method, path, request, status, answer)
	return f.all
}

func serve(t *testing.T, wrap func(http.Handler) http.Handler, method, path, request string, status int, answer string) {
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, request, string(got), "the handler must see the whole body")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://cloud.lambda.ai/api/v1"+path, strings.NewReader(request)))
	require.Equal(t, answer, w.Body.String())
}
