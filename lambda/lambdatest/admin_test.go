package lambdatest_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// admin asks the simulator itself, without a key.
func (c caller) admin(method, path, body string) any {
	c.t.Helper()
	r := c.do(method, "/_sim"+path, body, "Authorization", "")
	require.Equal(c.t, http.StatusOK, r.status, r.raw)
	require.Equal(c.t, "1", r.header.Get("X-Gpulease-Sim"))
	require.NotContains(c.t, r.raw, c.sim.APIKey())
	var v any
	require.NoError(c.t, json.Unmarshal([]byte(r.raw), &v))
	return v
}

func TestAdminAPI(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	require.Contains(t, c.admin("GET", "", "").(map[string]any)["simulator"], "not Lambda Cloud")

	id := c.admin("POST", "/faults", `{"op":"launchInstance","count":1,"cut":"after","delay":"0s"}`).(map[string]any)["id"].(string)
	_, err := c.try("POST", "/instance-operations/launch", launchBody(`"name":"lost"`))
	require.Error(t, err)
	fault := c.admin("GET", "/faults", "").([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{"id": id, "op": "launchInstance", "count": 1.0, "cut": "after", "seen": 1.0, "hits": 1.0}, fault)
	c.admin("DELETE", "/faults/"+id, "")
	require.Empty(t, c.admin("GET", "/faults", ""))
	c.admin("POST", "/faults", "status: 500\nbody: html\n") // YAML as well
	require.Equal(t, 500, c.get("/instances").status)
	c.admin("DELETE", "/faults", "")
	c.list()

	lost := c.admin("GET", "/instances", "").([]any)[0].(map[string]any)
	require.Equal(t, "lost", lost["name"])
	require.Equal(t, "booting", lost["status"])
	now, err := time.Parse(time.RFC3339, c.admin("POST", "/advance", `{"by":"61s"}`).(map[string]any)["now"].(string))
	require.NoError(t, err)
	require.Equal(t, c.sim.Now(), now)
	require.EqualValues(t, 21_500, c.admin("GET", "/bill", "").(map[string]any)["total_micro_dollars"])

	c.admin("POST", "/capacity", `{"type":"gpu_1x_a10","region":"us-east-1","count":0}`)
	require.Equal(t, []string{"us-west-1"}, c.regions("gpu_1x_a10"))
	c.admin("POST", "/price", `{"type":"gpu_1x_a10","cents_per_hour":200}`)
	require.Contains(t, c.get("/instance-types").raw, `"price_cents_per_hour":200`)
	c.admin("POST", "/instances/"+lost["id"].(string)+"/become", `{"status":"unhealthy"}`)
	require.Equal(t, "unhealthy", c.instance(lost["id"].(string))["status"])
	c.admin("POST", "/instances/"+lost["id"].(string)+"/terminate", "")
	require.Equal(t, "terminating", c.instance(lost["id"].(string))["status"])

	c.do("POST", "/ssh-keys", `{"name":"x","public_key":"`+testPublicKey+`","colour":"red"}`).ok(t)
	require.Equal(t, "colour", c.admin("GET", "/findings", "").([]any)[0].(map[string]any)["field"])
	require.Len(t, c.admin("GET", "/keys", ""), 2)
	log := c.admin("GET", "/requests", "").([]any)
	require.Equal(t, "addSSHKey", log[0].(map[string]any)["op"])
	require.Len(t, log, len(c.sim.Requests()), "its own requests are not in the log")
}

func TestAdminRefusesNonsense(t *testing.T) {
	c := start(t, virtual(time.Minute))
	for name, row := range map[string]struct{ path, body, says string }{
		"unknown word":    {"/faults", `{"ops":"launchInstance"}`, "ops"},
		"unknown op":      {"/faults", `{"op":"launch"}`, "launchInstance"},
		"bad duration":    {"/faults", `{"hang":5}`, "Duration"},
		"bad scenario":    {"/scenario", `{"steps":[{"capacity":{"gpu_9x":{"us-east-1":1}}}]}`, "step 1"},
		"bad fault in it": {"/scenario", "faults:\n- cut: never\n", "fault 1"},
		"backwards":       {"/advance", `{"by":"-1s"}`, "forward"},
		"no count":        {"/capacity", `{"type":"gpu_1x_a10","region":"us-east-1"}`, "count"},
		"no such type":    {"/capacity", `{"type":"gpu_9x","region":"us-east-1","count":1}`, "gpu_9x"},
		"no price":        {"/price", `{"type":"gpu_1x_a10"}`, "gpu_1x_a10"},
		"no instance":     {"/instances/x/become", `{"status":"unhealthy"}`, "x"},
		"no machine":      {"/instances/x/host-key", ``, "no machine"},
	} {
		r := c.do("POST", "/_sim"+row.path, row.body, "Authorization", "")
		require.Equal(t, http.StatusBadRequest, r.status, name)
		require.Contains(t, r.raw, row.says, name)
	}
	require.Empty(t, c.sim.Faults())
	require.Equal(t, http.StatusNotFound, c.do("GET", "/_sim/secrets", "").status)
}

// A web page must not steer a simulator whose machines run real commands.
func TestAdminIsNotForWebPages(t *testing.T) {
	c := start(t, virtual(time.Minute))
	require.Equal(t, 403, c.do("POST", "/_sim/faults", `{"status":500}`, "Origin", "https://example.com").status)
	require.Equal(t, 403, c.do("GET", "/_sim/instances", "", "Sec-Fetch-Site", "cross-site").status)
	require.Empty(t, c.sim.Faults())
}

func TestScenario(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scenario.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
faults:
  - op: launchInstance
    count: 1
    status: 502
    body: html
    after_work: true
  - op: "list*"
    after: 10m
    until: 11m
    code: global/account-inactive
steps:
  - capacity: {gpu_1x_a10: {us-east-1: 1, us-west-1: 0}}
  - at: 5m
    capacity: {gpu_8x_b200_sxm6: {us-east-1: -1}}
    price_cents: {gpu_8x_b200_sxm6: 9999}
`), 0o600))
	sc, err := lambdatest.LoadScenario(path)
	require.NoError(t, err)
	cfg := virtual(time.Minute)
	cfg.Scenario = sc
	c := start(t, cfg)
	c.addKey("k")
	require.Equal(t, []string{"us-east-1"}, c.regions("gpu_1x_a10"))
	require.Equal(t, 502, c.do("POST", "/instance-operations/launch", launchBody("")).status)
	require.Equal(t, 1, c.sim.LaunchCount())
	require.Empty(t, c.regions("gpu_8x_b200_sxm6"))
	c.sim.Advance(5 * time.Minute)
	require.Equal(t, []string{"us-east-1"}, c.regions("gpu_8x_b200_sxm6"))
	require.Contains(t, c.get("/instance-types").raw, `"price_cents_per_hour":9999`)
	c.sim.Advance(5 * time.Minute)
	c.get("/instances").refused(t, 403, lambdatest.CodeAccountInactive)
	c.sim.Advance(time.Minute)
	c.list()

	require.NoError(t, os.WriteFile(path, []byte("faults:\n  - op: launchInstance\n    cuts: after\n"), 0o600))
	_, err = lambdatest.LoadScenario(path)
	require.ErrorContains(t, err, "[3:5]", "the line and column")
	_, err = lambdatest.New(lambdatest.Config{Scenario: &lambdatest.Scenario{Faults: []lambdatest.Fault{{Op: "nothing"}}}})
	require.Error(t, err)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = lambdatest.LoadScenario(path)
	require.NoError(t, err, "an empty one does nothing")
}
