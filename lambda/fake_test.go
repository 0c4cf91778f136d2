package lambda_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

const testKey = "secret_test_00112233445566778899aabbccddeeff.ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"

// fake is an in-memory RoundTripper: no socket, so it works in a synctest bubble.
type fake struct {
	mu   sync.Mutex
	seen []seen
	// answer is called for each request, one at a time for each, outside the lock.
	answer func(n int, r *http.Request, body string) (*http.Response, error)
}

type seen struct {
	method, path, query, body string
	header                    http.Header
	at                        time.Time
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	f.mu.Lock()
	f.seen = append(f.seen, seen{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header.Clone(), time.Now()})
	n := len(f.seen)
	f.mu.Unlock()
	return f.answer(n, r, string(body))
}

func (f *fake) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}

func reply(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// always answers every request in the same way.
func always(status int, body string, header ...string) *fake {
	return &fake{answer: func(int, *http.Request, string) (*http.Response, error) {
		return reply(status, body, header...), nil
	}}
}

// script answers the n-th request with the n-th answer, and fails the transport after the last.
func script(answers ...func() (*http.Response, error)) *fake {
	return &fake{answer: func(n int, _ *http.Request, _ string) (*http.Response, error) {
		if n > len(answers) {
			return nil, io.ErrUnexpectedEOF
		}
		return answers[n-1]()
	}}
}

func says(status int, body string, header ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) { return reply(status, body, header...), nil }
}

func breaks(err error) func() (*http.Response, error) {
	return func() (*http.Response, error) { return nil, err }
}

// newClient is a client of f without limits and repeats, unless opts say otherwise.
func newClient(t testing.TB, f http.RoundTripper, opts ...lambda.Option) *lambda.Client {
	t.Helper()
	key, err := lambda.ParseKey(testKey)
	require.NoError(t, err)
	c, err := lambda.New(key, append([]lambda.Option{
		lambda.WithHTTPClient(&http.Client{Transport: f}), lambda.WithLimiter(lambda.NoLimit), lambda.WithRetry(lambda.NoRetry),
	}, opts...)...)
	require.NoError(t, err)
	return c
}

func envelope(code, message, suggestion string) string {
	inner := map[string]string{"code": code, "message": message}
	if suggestion != "" {
		inner["suggestion"] = suggestion
	}
	b, err := json.Marshal(map[string]any{"error": inner})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// goodLaunch is a request with every field.
func goodLaunch() lambda.LaunchRequest {
	return lambda.LaunchRequest{
		Region: "us-west-1", InstanceType: "gpu_1x_a10", SSHKeyName: "gl-l-1", Name: "gl-l-1-x", Hostname: "gl-1",
		Image: lambda.ImageRef{Family: "lambda-stack-24-04"}, UserData: lambda.NewSecret("#cloud-config\nssh_keys: very-secret-host-key\n"),
		Tags: []lambda.Tag{{Key: "gl-lease", Value: "1"}}, FileSystemNames: []string{"data"},
		FileSystemMounts: []lambda.FileSystemMount{{MountPoint: "/data/x", FileSystemID: "398578a2336b49079e74043f0bd2cfe8"}},
		FirewallRulesets: []lambda.FirewallRulesetRef{{ID: "c4d291f47f9d436fa39f58493ce3b50d"}},
	}
}

func background(t testing.TB) context.Context { return t.Context() }

// documentInstance is the example of the OpenAPI document.
const documentInstance = `{"id":"0920582c7ff041399e34823a0be62549","name":"My Instance","ip":"198.51.100.2","private_ip":"10.0.2.100",
"status":"active","ssh_key_names":["My SSH key"],"file_system_names":["my-filesystem"],
"file_system_mounts":[{"mount_point":"/lambda/nfs/my-filesystem","file_system_id":"a098b0c7ff041399e34823a0be62549"}],
"region":{"name":"us-west-1","description":"California, USA"},
"instance_type":{"name":"gpu_8x_example","description":"8x Example GPU (40 GB SXM4)","gpu_description":"Example GPU (40 GB SXM4)",
"price_cents_per_hour":1592,"specs":{"vcpus":124,"memory_gib":1800,"storage_gib":6144,"gpus":8}},
"hostname":"198.51.100.2","jupyter_token":"03b7d30d9d3e4d8fa41657bc0d478c1b",
"jupyter_url":"https://jupyter-249e1ccff1894822af39ac822637f881.lambdaspaces.com/?token=03b7d30d9d3e4d8fa41657bc0d478c1b",
"is_reserved":false,"actions":{"migrate":{"available":true},"rebuild":{"available":true},"restart":{"available":true},
"cold_reboot":{"available":false,"reason_code":"vm-is-too-old","reason_description":"Too old."},"terminate":{"available":true}},
"tags":[{"key":"key1","value":"value1"},{"key":"key2","value":"value2"}],"firewall_rulesets":[{"id":"c4d291f47f9d436fa39f58493ce3b50d"}]}`

// leanInstance is one that boots: nothing but what is required.
const leanInstance = `{"id":"1920582c7ff041399e34823a0be62549","status":"booting","ssh_key_names":["k"],"file_system_names":[],
"region":{"name":"us-west-1","description":"California, USA"},
"instance_type":{"name":"gpu_1x_a10","description":"1x A10","gpu_description":"A10","price_cents_per_hour":129,
"specs":{"vcpus":30,"memory_gib":200,"storage_gib":1400,"gpus":1}},
"actions":{"migrate":{"available":false},"rebuild":{"available":false},"restart":{"available":false},"cold_reboot":{"available":false},"terminate":{"available":true}}}`

const documentTypes = `{"data":{"gpu_8x_example":{"instance_type":{"name":"gpu_8x_example","description":"8x Example GPU (40 GB SXM4)",
"gpu_description":"Example GPU (40 GB SXM4)","price_cents_per_hour":1592,"specs":{"vcpus":124,"memory_gib":1800,"storage_gib":6144,"gpus":8}},
"regions_with_capacity_available":[{"name":"us-west-1","description":"California, USA"}]},
"cpu_4x_general":{"instance_type":{"name":"cpu_4x_general","description":"CPU only","gpu_description":"N/A","price_cents_per_hour":20,
"architecture":"x86_64","specs":{"vcpus":4,"memory_gib":16,"storage_gib":100,"gpus":0}},"regions_with_capacity_available":[]}}}`
