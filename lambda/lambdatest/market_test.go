package lambdatest_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func (c caller) regions(typ string) []string {
	c.t.Helper()
	out := []string{}
	for _, r := range c.get("/instance-types").ok(c.t).(map[string]any)[typ].(map[string]any)["regions_with_capacity_available"].([]any) {
		out = append(out, r.(map[string]any)["name"].(string))
	}
	return out
}

func TestCapacityIsUsedUpAndGivenBack(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	require.NoError(t, c.sim.SetCapacity("gpu_1x_a10", "us-east-1", 1))
	require.NoError(t, c.sim.SetCapacity("gpu_1x_a10", "us-west-1", 0))
	require.Error(t, c.sim.SetCapacity("gpu_1x_a10", "moon-1", 1))
	require.Equal(t, []string{"us-east-1"}, c.regions("gpu_1x_a10"))
	id := c.launch("")
	require.Empty(t, c.regions("gpu_1x_a10"))
	c.do("POST", "/instance-operations/launch", launchBody("")).refused(t, http.StatusBadRequest, lambdatest.CodeNoCapacity)
	c.terminate(id).ok(t)
	require.Empty(t, c.regions("gpu_1x_a10"), "not before it has ended")
	c.sim.Advance(time.Minute)
	require.Equal(t, []string{"us-east-1"}, c.regions("gpu_1x_a10"))
	c.launch("")
}

func TestCapacityUnderContention(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	require.NoError(t, c.sim.SetCapacity("gpu_1x_a10", "us-east-1", 5))
	var launched, refused atomic.Int32
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			r, err := c.try("POST", "/instance-operations/launch", launchBody(""))
			if assert.NoError(t, err) && r.status == 200 {
				launched.Add(1)
			} else if assert.Equal(t, lambdatest.CodeNoCapacity, r.code) {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, launched.Load())
	require.EqualValues(t, 25, refused.Load())
	require.Equal(t, 5, c.sim.LaunchCount())
}

func TestQuota(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Quota = 1
	c := start(t, cfg)
	id := c.launch("")
	c.do("POST", "/instance-operations/launch", launchBody("")).refused(t, http.StatusBadRequest, lambdatest.CodeQuotaExceeded)
	c.terminate(id).ok(t)
	c.launch("")
}

func TestRateLimit(t *testing.T) {
	for name, html := range map[string]bool{"envelope": false, "page": true} {
		t.Run(name, func(t *testing.T) {
			cfg := virtual(time.Minute)
			cfg.RateLimit, cfg.RateLimitHTML = true, html
			c := start(t, cfg)
			c.addKey("k")
			for range 4 {
				require.Equal(t, 200, c.get("/instances").status, "a burst of five")
			}
			r := c.get("/instances")
			require.Equal(t, 429, r.status)
			require.Equal(t, "1", r.header.Get("Retry-After"))
			if html {
				require.Contains(t, r.raw, "banned you temporarily")
				require.Empty(t, r.code)
			} else {
				require.Equal(t, lambdatest.CodeRateLimited, r.code)
			}
			c.sim.Advance(time.Second)
			require.Equal(t, 200, c.get("/instances").status, "a refused one has cost nothing")
			require.Equal(t, 429, c.get("/instances").status)

			c.sim.Advance(5 * time.Second)
			c.launch("")
			r = c.do("POST", "/instance-operations/launch", launchBody(""))
			require.Equal(t, 429, r.status, "one launch in twelve seconds")
			require.Equal(t, 1, c.sim.LaunchCount())
			require.Equal(t, "12", r.header.Get("Retry-After"))
			c.sim.Advance(12 * time.Second)
			c.launch("")
		})
	}
}

func TestBillOfOthers(t *testing.T) {
	c := start(t, virtual(time.Minute))
	_, err := c.sim.Launch(lambdatest.Order{Type: "gpu_9x", Region: "us-east-1"})
	require.Error(t, err)
	id, err := c.sim.Launch(lambdatest.Order{Name: "somebody's", Type: "gpu_8x_a100", Region: "us-midwest-1"})
	require.NoError(t, err)
	require.Empty(t, c.sim.Requests(), "not over the API")
	require.Equal(t, "somebody's", c.instance(id)["name"])
	c.sim.Advance(time.Minute + time.Hour)
	require.NoError(t, c.sim.Terminate(id))
	c.sim.Advance(time.Hour)
	line, ok := c.sim.Bill().Of("somebody's")
	require.True(t, ok)
	require.Equal(t, int64(15_920_000), line.MicroDollars)
	require.False(t, line.Running)
	require.Error(t, c.sim.Terminate(id))
}

func TestBillIsRoundedUp(t *testing.T) {
	for _, row := range []struct {
		ran     time.Duration // after the boot
		minutes int64
		micros  int64 // at 129 cents an hour: 21,500 a minute
	}{
		{-time.Second, 0, 0}, {0, 0, 0}, {1, 1, 21_500}, {time.Minute, 1, 21_500},
		{time.Minute + 1, 2, 43_000}, {24 * time.Hour, 1440, 30_960_000},
	} {
		c := start(t, virtual(time.Hour))
		id := c.launch("")
		c.sim.Advance(time.Hour + row.ran)
		running := c.sim.Bill()
		require.Equal(t, row.micros, running.Total)
		require.True(t, running.Lines[0].Running)
		c.terminate(id).ok(t)
		c.sim.Advance(100 * time.Hour)
		bill := c.sim.Bill()
		require.Equal(t, row.micros, bill.Total, "nothing after the terminate call")
		require.Equal(t, row.minutes, bill.Lines[0].Minutes)
	}
	// 199 cents an hour is no whole number of micro-dollars a minute: up.
	c := start(t, virtual(0))
	id, err := c.sim.Launch(lambdatest.Order{Type: "gpu_1x_a100_sxm4", Region: "us-east-1"})
	require.NoError(t, err)
	c.sim.Advance(3*time.Second + time.Minute)
	require.NoError(t, c.sim.Terminate(id))
	require.Equal(t, int64(33_167), c.sim.Bill().Total)
}

func TestUnhealthyMayBeFree(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.UnhealthyFree = true
	c := start(t, cfg)
	c.sim.Inject(lambdatest.Fault{NeverHealthy: true})
	c.launch("")
	c.sim.Advance(time.Hour)
	require.Zero(t, c.sim.Bill().Total)
}

func TestTerminateTwice(t *testing.T) {
	c := start(t, virtual(time.Minute))
	id := c.launch("")
	first := c.terminate(id).ok(t)
	c.sim.Advance(30 * time.Second)
	require.Equal(t, first, c.terminate(id).ok(t), "the same answer, and no second life")
	c.sim.Advance(30 * time.Second)
	require.Equal(t, "terminated", c.instance(id)["status"])

	cfg := virtual(time.Minute)
	cfg.TerminateOnce = true
	c = start(t, cfg)
	id = c.launch("")
	c.terminate(id).ok(t)
	c.terminate(id).refused(t, 400, lambdatest.CodeUnknown)
}

func TestRestartWantsAnInstanceThatRuns(t *testing.T) {
	c := start(t, virtual(time.Minute))
	id := c.launch("")
	restart := func() reply { return c.do("POST", "/instance-operations/restart", `{"instance_ids":["`+id+`"]}`) }
	restart().refused(t, 409, lambdatest.CodeConflict)
	c.sim.Advance(time.Minute)
	ip := c.instance(id)["ip"]
	i := restart().ok(t).(map[string]any)["restarted_instances"].([]any)[0].(map[string]any)
	require.Equal(t, "vm-action-in-progress", i["actions"].(map[string]any)["restart"].(map[string]any)["reason_code"])
	restart().refused(t, 409, lambdatest.CodeConflict)
	c.sim.Advance(time.Minute)
	require.Equal(t, ip, c.instance(id)["ip"])
	require.Equal(t, int64(1), c.sim.Bill().Lines[0].Minutes, "billing goes on")
	c.terminate(id).ok(t)
	restart().refused(t, 409, lambdatest.CodeConflict)
}

func TestAuditEvents(t *testing.T) {
	c := start(t, virtual(time.Minute))
	id := c.launch("")
	begun := c.sim.Now()
	c.sim.Advance(time.Hour)
	c.terminate(id).ok(t)
	events := c.get("/audit-events?resource_type=cloud.instance").ok(t).([]any)
	require.Len(t, events, 2)
	require.Equal(t, "launched", events[0].(map[string]any)["action"])
	require.Equal(t, []any{"lrn:cloud:instance:" + id}, events[1].(map[string]any)["resource_lrns"])
	require.Len(t, c.get("/audit-events?resource_type=cloud.instance&end="+begun.Format(time.RFC3339)).ok(t), 1)
	require.Len(t, c.get("/audit-events?resource_type=cloud.instance&start="+begun.Add(time.Second).Format(time.RFC3339)).ok(t), 1)
	for range 100 {
		c.launch("")
	}
	first := c.get("/audit-events")
	require.Len(t, first.ok(t), 100)
	token := strings.Split(strings.Split(first.raw, `"page_token":"`)[1], `"`)[0]
	rest := c.get("/audit-events?page_token=" + token)
	require.Len(t, rest.ok(t), 3, "a key, 101 launches, an end")
	require.Contains(t, rest.raw, `"page_token":null`)
}

func TestRequestLogHasNoSecrets(t *testing.T) {
	var lines strings.Builder
	cfg := virtual(time.Minute)
	cfg.Logf = func(format string, args ...any) { lines.WriteString(strings.ToLower(format)); _ = args }
	c := start(t, cfg)
	id := c.launch(`"user_data":"hush","name":"n"`)
	require.Equal(t, "hush", c.sim.UserData(id))
	log := c.sim.Requests()
	require.Len(t, log, 2)
	require.Equal(t, []string{"instance_type_name", "name", "region_name", "ssh_key_names", "user_data"}, log[1].BodyKeys)
	require.Equal(t, launchOp, log[1].Op)
	require.Equal(t, 200, log[1].Status)
	require.True(t, log[1].Time.Equal(c.sim.Now()))
	c.get("/nowhere?secret=hush")
	require.Equal(t, "/api/v1/nowhere", c.sim.Requests()[2].Path)
	c.terminate(id).ok(t)
	c.sim.Advance(time.Hour)
	c.list()
	require.Empty(t, c.sim.UserData(id), "not kept longer than the instance")
}
