package lambdatest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func virtual(boot time.Duration) lambdatest.Config {
	return lambdatest.Config{Virtual: true, BootTime: boot, TerminateTime: time.Minute, Linger: time.Minute}
}

func TestLifeOfAnInstance(t *testing.T) {
	c := start(t, virtual(200*time.Second))
	id := c.launch(`"name":"one"`)
	require.Len(t, id, 32)

	i := c.instance(id)
	require.Equal(t, "booting", i["status"])
	require.NotContains(t, i, "ip", "the address comes later")
	require.NotContains(t, i, "jupyter_url")
	require.Len(t, c.list(), 1, "booting ones are listed")

	c.sim.Advance(60 * time.Second)
	i = c.instance(id)
	require.Equal(t, "booting", i["status"])
	require.NotEmpty(t, i["ip"])

	c.sim.Advance(140 * time.Second)
	i = c.instance(id)
	require.Equal(t, "active", i["status"])
	require.Equal(t, map[string]any{"name": "us-east-1", "description": "Virginia, USA"}, i["region"])
	require.Equal(t, "gpu_1x_a10", i["instance_type"].(map[string]any)["name"])

	c.sim.Advance(61 * time.Second)
	ended := c.terminate(id).ok(t).(map[string]any)["terminated_instances"].([]any)
	require.Len(t, ended, 1)
	require.Equal(t, "terminating", ended[0].(map[string]any)["status"])
	require.Len(t, c.list(), 1)

	c.sim.Advance(time.Minute)
	require.Equal(t, "terminated", c.instance(id)["status"])
	require.Len(t, c.list(), 1, "terminated ones are listed for a while")

	c.sim.Advance(time.Minute)
	c.get("/instances/"+id).refused(t, http.StatusNotFound, lambdatest.CodeDoesNotExist)
	require.Empty(t, c.list())
	c.terminate(id).refused(t, http.StatusNotFound, lambdatest.CodeDoesNotExist)

	bill := c.sim.Bill()
	require.Equal(t, int64(2), bill.Lines[0].Minutes, "61 s are two begun minutes")
	require.Equal(t, int64(43_000), bill.Total, "2 of 60 parts of $1.29")
	require.Equal(t, 1, c.sim.LaunchCount())
	got := c.sim.Instances()[0]
	require.Equal(t, lambdatest.Gone, got.Status)
	require.Equal(t, 61*time.Second, got.StopCalledAt.Sub(got.FirstHealthy))
	require.Equal(t, time.Minute, got.TerminatedAt.Sub(got.StopCalledAt))
}

func TestTerminateIsAllOrNothing(t *testing.T) {
	c := start(t, virtual(time.Minute))
	a, b := c.launch(""), c.launch("")
	c.terminate(a, "0123456789abcdef0123456789abcdef", b).refused(t, http.StatusNotFound, lambdatest.CodeDoesNotExist)
	require.Len(t, c.sim.Running(), 2)
	require.Len(t, c.terminate(a, b, a).ok(t).(map[string]any)["terminated_instances"], 2)
	require.Empty(t, c.sim.Running())
}
