package lambdatest_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

const terminateOp, launchOp, listOp = lambdatest.OpTerminate, lambdatest.OpLaunch, lambdatest.OpListInstances

func TestFaultAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		fault  lambdatest.Fault
		status int
		code   string
		kind   string
		body   string // part of it
	}{
		"server error":       {lambdatest.Fault{Status: 500}, 500, lambdatest.CodeInternal, "application/json", "internal server error"},
		"page of a gateway":  {lambdatest.Fault{Status: 502, Body: lambdatest.BodyHTML}, 502, "", "text/html", "502 Bad Gateway"},
		"nothing at all":     {lambdatest.Fault{Status: 504, Body: lambdatest.BodyEmpty}, 504, "", "text/plain", ""},
		"429 in JSON":        {lambdatest.Fault{Status: 429}, 429, lambdatest.CodeRateLimited, "application/json", ""},
		"429 as a page":      {lambdatest.Fault{Status: 429, Body: lambdatest.BodyHTML}, 429, "", "text/html", "banned you temporarily"},
		"1010":               {lambdatest.Fault{Status: 403, Body: lambdatest.BodyText}, 403, "", "text/plain", "error code: 1010"},
		"account inactive":   {lambdatest.Fault{Code: lambdatest.CodeAccountInactive}, 403, lambdatest.CodeAccountInactive, "application/json", "Your account is inactive."},
		"bad address":        {lambdatest.Fault{Code: lambdatest.CodeInvalidAddress}, 403, lambdatest.CodeInvalidAddress, "application/json", "billing address"},
		"quota":              {lambdatest.Fault{Code: lambdatest.CodeQuotaExceeded}, 400, lambdatest.CodeQuotaExceeded, "application/json", ""},
		"provider":           {lambdatest.Fault{Code: lambdatest.CodeProvider, Status: 409}, 409, lambdatest.CodeProvider, "application/json", "Try again shortly"},
		"a code of its own":  {lambdatest.Fault{Code: "provider/odd", Status: 400, Message: "Odd."}, 400, "provider/odd", "application/json", "Odd."},
		"key revoked midway": {lambdatest.Fault{Status: 401}, 401, lambdatest.CodeInvalidKey, "application/json", "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, virtual(time.Minute))
			row.fault.RetryAfter = 90 * time.Second
			id := c.sim.Inject(row.fault)
			r := c.get("/instances")
			require.Equal(t, row.status, r.status)
			require.Equal(t, row.code, r.code)
			require.Contains(t, r.header.Get("Content-Type"), row.kind)
			require.Contains(t, r.raw, row.body)
			require.Equal(t, "90", r.header.Get("Retry-After"))
			require.Equal(t, 1, c.sim.Hits(id))
			c.sim.Remove(id)
			c.get("/instances").ok(t)
		})
	}
}

func TestWhichCallsAFaultHits(t *testing.T) {
	for name, row := range map[string]struct {
		fault lambdatest.Fault
		want  string // of eight list calls, one every 10 s: x fails
	}{
		"always":        {lambdatest.Fault{}, "xxxxxxxx"},
		"twice":         {lambdatest.Fault{Count: 2}, "xx......"},
		"later":         {lambdatest.Fault{Skip: 3, Count: 2}, "...xx..."},
		"in a window":   {lambdatest.Fault{After: 20 * time.Second, Until: 40 * time.Second}, "..xx...."},
		"another op":    {lambdatest.Fault{Op: launchOp}, "........"},
		"this op":       {lambdatest.Fault{Op: listOp}, "xxxxxxxx"},
		"all lists":     {lambdatest.Fault{Op: "list*"}, "xxxxxxxx"},
		"another thing": {lambdatest.Fault{Match: "gpu_8x_*"}, "........"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, virtual(time.Minute))
			row.fault.Status = 500
			c.sim.Inject(row.fault)
			got := ""
			for range row.want {
				if c.get("/instances").status == 500 {
					got += "x"
				} else {
					got += "."
				}
				c.sim.Advance(10 * time.Second)
			}
			require.Equal(t, row.want, got)
		})
	}
}

func TestProbabilityIsRepeatable(t *testing.T) {
	run := func(seed uint64) string {
		cfg := virtual(time.Minute)
		cfg.Seed = seed
		c := start(t, cfg)
		c.sim.Inject(lambdatest.Fault{Probability: 0.5, Status: 500})
		got := ""
		for range 40 {
			if c.get("/instances").status == 500 {
				got += "x"
			} else {
				got += "."
			}
		}
		return got
	}
	first := run(1)
	require.Equal(t, first, run(1))
	require.NotEqual(t, first, run(2))
	require.InDelta(t, 20, strings.Count(first, "x"), 12)
}

func TestFaultMatchesWhatItIsAbout(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	c.sim.Inject(lambdatest.Fault{Op: launchOp, Match: "gl-*", Status: 500})
	c.sim.Inject(lambdatest.Fault{Op: terminateOp, Match: "stay", Status: 500})
	require.Equal(t, 500, c.do("POST", "/instance-operations/launch", launchBody(`"name":"gl-1"`)).status)
	stay, leave := c.launch(`"name":"stay"`), c.launch(`"name":"leave"`)
	require.Equal(t, 500, c.terminate(stay).status)
	require.Equal(t, 200, c.terminate(leave).status)
}

// The call that costs money can be lost in every way: the simulator knows what
// really happened.
func TestLostLaunches(t *testing.T) {
	for name, row := range map[string]struct {
		fault    lambdatest.Fault
		launched int
		status   int // 0: no answer
	}{
		"cut before":        {lambdatest.Fault{Cut: lambdatest.CutBefore}, 0, 0},
		"cut after":         {lambdatest.Fault{Cut: lambdatest.CutAfter}, 1, 0},
		"cut in the middle": {lambdatest.Fault{Cut: lambdatest.CutMid}, 1, 0},
		"hang":              {lambdatest.Fault{Hang: -1}, 0, 0},
		"hang after":        {lambdatest.Fault{Hang: -1, AfterWork: true}, 1, 0},
		"502":               {lambdatest.Fault{Status: 502, Body: lambdatest.BodyHTML}, 0, 502},
		"502 after":         {lambdatest.Fault{Status: 502, Body: lambdatest.BodyHTML, AfterWork: true}, 1, 502},
	} {
		for _, how := range []string{"socket", "transport"} {
			t.Run(name+" over "+how, func(t *testing.T) {
				c := start(t, virtual(time.Minute))
				c.addKey("k")
				row.fault.Op = launchOp
				c.sim.Inject(row.fault)
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, "POST", c.sim.URL()+"/instance-operations/launch", strings.NewReader(launchBody("")))
				require.NoError(t, err)
				req.Header.Set("Authorization", "Bearer "+c.sim.APIKey())
				client := &http.Client{}
				if how == "transport" {
					client.Transport = c.sim.Transport()
				}
				resp, err := client.Do(req)
				status := 0
				if err == nil {
					if _, err = io.ReadAll(resp.Body); err == nil {
						status = resp.StatusCode
					}
					resp.Body.Close()
				}
				require.Equal(t, row.status, status)
				require.Equal(t, row.launched, c.sim.LaunchCount())
				require.Eventually(t, func() bool { // a hanging request is logged when it ends
					log := c.sim.Requests()
					return len(log) == 2 && log[1].Op == launchOp && len(log[1].Faults) == 1 && log[1].Status == row.status
				}, 5*time.Second, time.Millisecond)
			})
		}
	}
}

func TestHangEndsWithTheClock(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.sim.Inject(lambdatest.Fault{Op: listOp, Hang: time.Hour, Count: 1})
	c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListTypes, Delay: time.Minute})
	done := make(chan error, 2)
	go func() {
		// A client without kept connections: Go's repeats a GET that was cut on one.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", c.sim.URL()+"/instances", nil)
		if assert.NoError(t, err) {
			req.Header.Set("Authorization", "Bearer "+c.sim.APIKey())
			_, err = client.Do(req) //nolint:bodyclose // there is none
		}
		done <- err
	}()
	go func() {
		_, err := c.try("GET", "/instance-types", "")
		done <- err
	}()
	require.Eventually(t, func() bool {
		f := c.sim.Faults()
		return f[0].Hits == 1 && f[1].Hits == 1
	}, 5*time.Second, time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("answered too early: %v", err)
	default:
	}
	c.sim.Advance(time.Minute)
	require.NoError(t, <-done, "the slow one")
	c.sim.Advance(time.Hour)
	require.Error(t, <-done, "the one that hangs")
}

func TestCloseReleasesHangingRequests(t *testing.T) {
	c := start(t, lambdatest.Config{})
	c.sim.Inject(lambdatest.Fault{Hang: -1})
	done := make(chan error, 1)
	go func() {
		_, err := c.try("GET", "/instances", "")
		done <- err
	}()
	require.Eventually(t, func() bool { return c.sim.Faults()[0].Hits > 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, c.sim.Close())
	require.Error(t, <-done)
}

func TestFaultsOfTheWorld(t *testing.T) {
	const boot = 2 * time.Minute
	world := func(t *testing.T, f lambdatest.Fault) (caller, string) {
		c := start(t, virtual(boot))
		f.Count = 1
		c.sim.Inject(f)
		return c, c.launch(`"name":"w","tags":[{"key":"owner","value":"me"}]`)
	}
	status := func(c caller, id string) string {
		r := c.get("/instances/" + id)
		if r.status == 404 {
			return "404"
		}
		return r.data.(map[string]any)["status"].(string)
	}
	t.Run("slow boot", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, Boot: 25 * time.Minute})
		c.sim.Advance(24 * time.Minute)
		require.Equal(t, "booting", status(c, id))
		require.Zero(t, c.sim.Bill().Total, "a boot is free")
		c.sim.Advance(time.Minute)
		require.Equal(t, "active", status(c, id))
	})
	t.Run("never healthy", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, NeverHealthy: true})
		c.sim.Advance(boot + 30*time.Second)
		require.Equal(t, "unhealthy", status(c, id))
		require.True(t, c.sim.Instances()[0].FirstHealthy.IsZero())
		require.Equal(t, int64(1), c.sim.Bill().Lines[0].Minutes, "the worse of two reports: it is billed")
	})
	t.Run("no capacity between list and launch", func(t *testing.T) {
		c := start(t, virtual(boot))
		c.addKey("k")
		c.sim.Inject(lambdatest.Fault{Op: launchOp, NoCapacity: true, Count: 1})
		offer := c.get("/instance-types").ok(t).(map[string]any)["gpu_1x_a10"].(map[string]any)
		require.NotEmpty(t, offer["regions_with_capacity_available"])
		c.do("POST", "/instance-operations/launch", launchBody("")).refused(t, 400, lambdatest.CodeNoCapacity)
		c.launch("")
	})
	t.Run("appears late", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, LateBy: time.Minute})
		require.Equal(t, "404", status(c, id))
		require.Empty(t, c.list())
		c.terminate(id).refused(t, 404, lambdatest.CodeDoesNotExist)
		require.Equal(t, 1, c.sim.LaunchCount(), "but it is there")
		c.sim.Advance(time.Minute)
		require.Equal(t, "booting", status(c, id))
		require.Len(t, c.list(), 1)
	})
	t.Run("unlisted", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, UnlistedFor: time.Minute})
		require.Equal(t, "booting", status(c, id))
		require.Empty(t, c.list())
		c.sim.Advance(time.Minute)
		require.Len(t, c.list(), 1)
	})
	t.Run("missing from some lists", func(t *testing.T) {
		c, _ := world(t, lambdatest.Fault{Op: listOp, Omit: "w"})
		c.launch(`"name":"other"`)
		require.Len(t, c.list(), 1)
		require.Len(t, c.list(), 2)
		c.sim.Inject(lambdatest.Fault{Op: listOp, Omit: "*"})
		require.Empty(t, c.list())
	})
	t.Run("tags dropped", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, DropTags: true})
		require.NotContains(t, c.instance(id), "tags")
		require.Contains(t, c.instance(c.launch(`"tags":[{"key":"k1","value":"v"}]`)), "tags")
	})
	t.Run("price changed", func(t *testing.T) {
		c, _ := world(t, lambdatest.Fault{Op: launchOp, PriceCents: 600})
		c.sim.Advance(boot + time.Hour)
		require.Equal(t, int64(6_000_000), c.sim.Bill().Total)
		offer := c.get("/instance-types").ok(t).(map[string]any)["gpu_1x_a10"].(map[string]any)["instance_type"].(map[string]any)
		require.EqualValues(t, 600, offer["price_cents_per_hour"])
	})
	t.Run("stuck in terminating", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: terminateOp, Stuck: 24 * time.Hour})
		c.sim.Advance(boot)
		c.terminate(id).ok(t)
		c.sim.Advance(23 * time.Hour)
		require.Equal(t, "terminating", status(c, id))
		require.Zero(t, c.sim.Bill().Total, "billing ends at the call")
		c.terminate(id).ok(t)
		c.sim.Advance(time.Hour)
		require.Equal(t, "terminated", status(c, id))
	})
	t.Run("terminate ignored", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: terminateOp, Ignore: true})
		require.Empty(t, c.terminate(id).ok(t).(map[string]any)["terminated_instances"])
		require.Equal(t, "booting", status(c, id))
		c.terminate(id).ok(t)
		require.Equal(t, "terminating", status(c, id))
	})
	for _, as := range []lambdatest.Status{lambdatest.Preempted, lambdatest.Terminated} {
		t.Run("ends as "+string(as), func(t *testing.T) {
			c, id := world(t, lambdatest.Fault{Op: launchOp, DieAfter: time.Hour, DieAs: as})
			c.sim.Advance(boot + time.Hour - time.Second)
			require.Equal(t, "active", status(c, id))
			c.sim.Advance(time.Second)
			require.Equal(t, string(as), status(c, id))
			c.sim.Advance(time.Hour)
			require.Equal(t, "404", status(c, id))
			require.Equal(t, int64(60), c.sim.Bill().Lines[0].Minutes)
		})
	}
	t.Run("becomes unhealthy and is billed on", func(t *testing.T) {
		c, id := world(t, lambdatest.Fault{Op: launchOp, DieAfter: time.Hour})
		c.sim.Advance(boot + 2*time.Hour)
		require.Equal(t, "unhealthy", status(c, id))
		require.Equal(t, int64(120), c.sim.Bill().Lines[0].Minutes)
	})
	t.Run("clock skew", func(t *testing.T) {
		c, _ := world(t, lambdatest.Fault{Op: listOp, ClockSkew: -10 * time.Minute})
		date, err := http.ParseTime(c.get("/instances").header.Get("Date"))
		require.NoError(t, err)
		require.Equal(t, -10*time.Minute, date.Sub(c.sim.Now()))
		date, err = http.ParseTime(c.get("/instances").header.Get("Date"))
		require.NoError(t, err)
		require.Zero(t, date.Sub(c.sim.Now()))
	})
}

func TestMisspeltFaultsAreRefused(t *testing.T) {
	s, err := lambdatest.New(lambdatest.Config{})
	require.NoError(t, err)
	defer s.Close()
	for name, f := range map[string]lambdatest.Fault{
		"no such op":      {Op: "launch", Status: 500},
		"bad pattern":     {Match: "[", Status: 500},
		"probability":     {Probability: 2, Status: 500},
		"negative count":  {Count: -1, Status: 500},
		"no such cut":     {Cut: "during"},
		"no such body":    {Status: 500, Body: "xml"},
		"body, no status": {Body: lambdatest.BodyHTML},
		"no such gpu":     {GPU: "melted"},
		"no such death":   {DieAs: "dead"},
		"odd status":      {Status: 99},
		"unknown code":    {Code: "global/odd"},
		"empty window":    {After: time.Minute, Until: time.Second, Status: 500},
	} {
		require.Panics(t, func() { s.Inject(f) }, name)
	}
	require.Empty(t, s.Faults())
}

func TestEveryFaultIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/sim.md")
	require.NoError(t, err)
	f := reflect.TypeFor[lambdatest.Fault]()
	for n := range f.NumField() {
		name, _, _ := strings.Cut(f.Field(n).Tag.Get("yaml"), ",")
		require.NotEmpty(t, name)
		if name != "id" {
			require.Contains(t, string(page), "`"+name+"`")
		}
	}
}
