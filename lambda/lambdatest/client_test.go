package lambdatest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// caller speaks to a simulator as a client would that knows nothing but HTTP.
type caller struct {
	t   *testing.T
	sim *lambdatest.Server
}

// reply is an answer, its JSON decoded.
type reply struct {
	status int
	header http.Header
	raw    string
	data   any
	code   string
	msg    string
}

func start(t *testing.T, cfg lambdatest.Config) caller {
	t.Helper()
	return caller{t, lambdatest.Start(t, cfg)}
}

func (c caller) try(method, path, body string, headers ...string) (reply, error) {
	c.t.Helper()
	url := c.sim.URL() + path
	if strings.HasPrefix(path, "/_sim") {
		url = strings.TrimSuffix(c.sim.URL(), "/api/v1") + path
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, url, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header.Set("Authorization", "Bearer "+c.sim.APIKey())
	req.Header.Set("User-Agent", "lambdatest-test")
	for n := 0; n < len(headers); n += 2 {
		if req.Header.Del(headers[n]); headers[n+1] != "" {
			req.Header.Set(headers[n], headers[n+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	var envelope struct {
		Data  any
		Error struct{ Code, Message string }
	}
	if json.NewDecoder(bytes.NewReader(raw)).Decode(&envelope) == nil {
		r.data, r.code, r.msg = envelope.Data, envelope.Error.Code, envelope.Error.Message
	}
	return r, nil
}

func (c caller) do(method, path, body string, headers ...string) reply {
	c.t.Helper()
	r, err := c.try(method, path, body, headers...)
	require.NoError(c.t, err, "%s %s", method, path)
	return r
}

func (c caller) get(path string) reply { c.t.Helper(); return c.do("GET", path, "") }

// ok wants a 200 and returns its data.
func (r reply) ok(t *testing.T) any {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, r.raw)
	return r.data
}

func (r reply) refused(t *testing.T, status int, code string) {
	t.Helper()
	require.Equal(t, status, r.status, r.raw)
	require.Equal(t, code, r.code, r.raw)
}

const testPublicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T noname"

func (c caller) addKey(name string) string {
	c.t.Helper()
	body, _ := json.Marshal(map[string]string{"name": name, "public_key": testPublicKey})
	return c.do("POST", "/ssh-keys", string(body)).ok(c.t).(map[string]any)["id"].(string)
}

// launchBody is a launch of the cheapest ordinary machine, with further fields.
func launchBody(more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["k"]` + more + `}`
}

// launch adds the key "k" if need be and launches.
func (c caller) launch(more string) string {
	c.t.Helper()
	if len(c.sim.Keys()) == 0 {
		c.addKey("k")
	}
	data := c.do("POST", "/instance-operations/launch", launchBody(more)).ok(c.t).(map[string]any)
	ids := data["instance_ids"].([]any)
	require.Len(c.t, ids, 1)
	return ids[0].(string)
}

func (c caller) terminate(ids ...string) reply {
	c.t.Helper()
	body, _ := json.Marshal(map[string]any{"instance_ids": ids})
	return c.do("POST", "/instance-operations/terminate", string(body))
}

func (c caller) instance(id string) map[string]any {
	c.t.Helper()
	return c.get("/instances/" + id).ok(c.t).(map[string]any)
}

func (c caller) list() []any { c.t.Helper(); return c.get("/instances").ok(c.t).([]any) }
