package doctor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

func TestAHealthySetUp(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{Newer: true})
	c.ledger(c.endedLease())
	r := c.run()
	require.Zero(t, r.ExitCode(), "%+v", r.Lines)
	require.Zero(t, r.Count(doctor.Warn), "%+v", r.Lines)
	var checks []string
	for _, l := range r.Lines {
		checks = append(checks, l.Check)
	}
	require.Equal(t, []string{
		"lambda", "key", "account", "clock", "policy", "ledger", "state directory", "guard", "regions", "images", "capacity", "budget",
		"firewall", "filesystems", "limits", "leftovers", "ssh keys",
	}, checks)
	require.Contains(t, line(t, r, "ledger").Text, "1 lease, 0 live")
	require.Contains(t, line(t, r, "policy").Text, "$10.00 an hour, TTL 1h, at most 8h, 2 leases at once, $25.00 a lease, $50.00 a day, $300.00 a month, ended when idle for 30m")
	require.Contains(t, line(t, r, "capacity").Text, "gpu_1x_rtx6000 $0.69/h (us-south-1)")
	require.Contains(t, line(t, r, "budget").Text, "gpu_1x_rtx6000 for 1h ($1.0005 at most) could be launched now; $50.00 of budget left")
}

func TestNothingIsThereYet(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	c.cfg.StateDir = filepath.Join(c.dir, "none")
	c.cfg.LedgerPath = filepath.Join(c.cfg.StateDir, "ledger.db")
	r := c.run()
	require.Zero(t, r.ExitCode(), "%+v", r.Lines)
	require.Contains(t, line(t, r, "ledger").Text, "none yet")
	require.NoDirExists(t, c.cfg.StateDir)
}

// The type that doctor uses has no call that changes anything: every method of
// the client that it leaves out does.
func TestTheInterfaceHasNoChangingCall(t *testing.T) {
	t.Parallel()
	cloud := reflect.TypeFor[doctor.Cloud]()
	for i := range cloud.NumMethod() {
		name := cloud.Method(i).Name
		for _, verb := range []string{"Launch", "Terminate", "Restart", "Rename", "Add", "Generate", "Delete", "Create", "Update", "Set"} {
			require.False(t, strings.HasPrefix(name, verb), name)
		}
	}
}

func TestOneFailureOfEachClass(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		class doctor.Class
		check string
		says  string
		cfg   lambdatest.Config
		ill   func(t *testing.T, c *clinic)
	}{
		{"no key", doctor.Auth, "key", "LAMBDA_API_KEY", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.cfg.Cloud, c.cfg.KeySource, c.cfg.KeyErr = nil, "", fmt.Errorf("LAMBDA_API_KEY is not set: %w", lambda.ErrNoKey)
		}},
		{"key command fails", doctor.Auth, "key", "exit status 1", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.cfg.Cloud, c.cfg.KeySource, c.cfg.KeyErr = nil, "", errors.New("run LAMBDA_API_KEY_COMMAND: exit status 1")
		}},
		{"bad key", doctor.Auth, "key", "does not accept it", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.cfg.Cloud = c.client("secret_wrong_0123") }},
		{"key of another workspace", doctor.Auth, "key", "forbidden", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListInstances, Code: lambdatest.CodeForbidden, Status: 403})
		}},
		{"inactive account", doctor.Billing, "account", "blocked", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Code: lambdatest.CodeAccountInactive})
		}},
		{"rate limited", doctor.Quota, "lambda", "no more requests", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Status: 429, Body: lambdatest.BodyHTML})
		}},
		{"proxy's 403 is not about the key", doctor.Network, "lambda", "says nothing about the key", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Status: 403, Body: lambdatest.BodyText})
		}},
		{"no connection", doctor.Network, "lambda", "not reached", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Cut: lambdatest.CutBefore})
		}},
		{"half of Lambda is down", doctor.Network, "images", "502", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpListImages, Status: 502, Body: lambdatest.BodyHTML})
		}},
		{"closed firewall", doctor.Network, "firewall", "never be reached", lambdatest.Config{}, func(t *testing.T, c *clinic) { c.rules(t) }},
		{"policy file with a mistake", doctor.Policy, "policy", "max_tll", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.policy("max_tll: 2h\n") }},
		{"policy file that was named and is missing", doctor.Policy, "policy", "policy.yaml", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.policy("max_ttl: 2h\n")
			require.NoError(t, os.Remove(c.cfg.PolicyPath))
		}},
		{"policy allows no type", doctor.Policy, "capacity", "allows none", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.policy("types: {deny: [\"*\"]}\n") }},
		{"policy allows no region", doctor.Policy, "regions", "allows none", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.policy("regions: {allow: [moon-1]}\n") }},
		{"budget is used up", doctor.Policy, "budget", "caps.per_day", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.policy("caps: {per_day: 2}\n")
			c.ledger(c.liveLease())
			c.keeper = true
		}},
		{"as many leases as may be", doctor.Policy, "budget", "there are 1 (set in: ", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.policy("max_leases: 1\n")
			c.ledger(c.liveLease())
			c.keeper = true
		}},
		{"nothing is free", doctor.Capacity, "capacity", "none of the", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.policy("types: {allow: [gpu_8x_h100_sxm5]}\nmax_price_per_hour: 100\n")
			require.NoError(t, c.sim.SetCapacity("gpu_8x_h100_sxm5", "us-south-2", 0))
		}},
		{"image is gone", doctor.Capacity, "images", doctor.ImageFamily, lambdatest.Config{Catalog: withoutImages()}, func(*testing.T, *clinic) {}},
		{"damaged ledger", doctor.State, "ledger", "cannot be used", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			require.NoError(t, os.WriteFile(c.cfg.LedgerPath, []byte(strings.Repeat("this is no database\n", 500)), 0o600))
		}},
		{"ledger of a newer version", doctor.State, "ledger", "newer", lambdatest.Config{}, func(t *testing.T, c *clinic) { c.alterLedger(t, "PRAGMA user_version = 99") }},
		{"ledger that somebody changed", doctor.State, "ledger", "not what was written", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.alterLedger(t, "UPDATE leases SET price = 1 WHERE state <> 'ended'")
			c.keeper = true
		}},
		{"lost ledger", doctor.State, "ledger", "was lost", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			require.NoError(t, os.WriteFile(c.cfg.LedgerPath+"-wal", nil, 0o600))
		}},
		{"nobody guards", doctor.State, "guard", "nobody enforces", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.ledger(c.liveLease()) }},
		{"nobody guards, and a reaper was here an hour ago", doctor.State, "guard", "nobody enforces the deadlines of 1 live lease; gpulease reap was seen on cron1 60 min ago", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.ledger(c.liveLease())
			c.beats("reap cron1", time.Hour)
		}},
		{"lease past its deadline", doctor.State, "lease aaaaaaaaaaaa", "deadline", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			l := c.liveLease()
			l.Deadline = l.CreatedAt.Add(-13 * time.Minute)
			c.ledger(l)
			c.keeper = true
		}},
		{"lease of another key", doctor.State, "lease aaaaaaaaaaaa", "another API key", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			l := c.liveLease()
			l.Account = "somebodyelse1234"
			c.ledger(l)
			c.keeper = true
		}},
		{"machine of an ended lease", doctor.State, "leftovers", "lease bbbbbbbbbbbb", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.runs(c.signed(c.ledger(c.endedLease()), endedID, time.Now().Add(time.Hour)), "k")
		}},
		{"machine of another ledger past its hard stop", doctor.State, "leftovers", "lease cccccccccccc of ledger wxyz", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.runs(c.signed("wxyz", "cccccccccccc", time.Now().Add(-time.Hour)), "k")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newClinic(t, tt.cfg)
			tt.ill(t, c)
			r := c.run()
			l := line(t, r, tt.check)
			require.Equal(t, doctor.Fail, l.Finding, "%+v", l)
			require.Equal(t, tt.class, l.Class)
			require.Contains(t, l.Text, tt.says)
			require.Equal(t, tt.class.ExitCode(), r.ExitCode(), "%+v", r.Lines)
		})
	}
}

func TestSSHKeysAreUsedUp(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	for i := range 1024 {
		_, err := c.sim.Launch(lambdatest.Order{Type: "gpu_1x_a10", Region: "us-east-1", Key: fmt.Sprint("k", i)})
		require.NoError(t, err)
	}
	l := line(t, c.run(), "limits")
	require.Equal(t, doctor.Fail, l.Finding)
	require.Equal(t, doctor.Quota, l.Class)
	require.Contains(t, l.Text, "1024 of 1024 SSH keys")
}

func TestExitCodesAreTheClassesAndTheFirstToMendCounts(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{0: true, 1: true, 2: true, 3: true}
	for _, c := range doctor.Classes() {
		require.False(t, seen[c.ExitCode()], "%s has a code of its own", c)
		seen[c.ExitCode()] = true
		require.Contains(t, doctor.ExitCodes(), fmt.Sprintf("%d %s", c.ExitCode(), c))
	}
	r := doctor.Report{Lines: []doctor.Line{
		{Class: doctor.Capacity, Finding: doctor.Fail}, {Class: doctor.Billing, Finding: doctor.Fail}, {Class: doctor.Network, Finding: doctor.Warn},
	}}
	require.Equal(t, doctor.Billing.ExitCode(), r.ExitCode())
}

func TestReportAsTextAndJSON(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	c.sim.Inject(lambdatest.Fault{Status: 403, Body: lambdatest.BodyText})
	c.cfg.Redact = func(s string) string { return strings.ReplaceAll(s, "127.0.0.1", "[redacted]") }
	r := c.run()
	var text strings.Builder
	require.NoError(t, r.Print(&text))
	require.Contains(t, text.String(), "mend: ")
	require.Contains(t, text.String(), "1 failure, 1 warning; mend network first (exit code 10)\n")
	require.Contains(t, text.String(), "[redacted]")
	require.NotContains(t, text.String(), "127.0.0.1")

	b, err := json.Marshal(r)
	require.NoError(t, err)
	var got struct {
		Version int    `json:"version"`
		Finding string `json:"finding"`
		Class   string `json:"class"`
		Exit    int    `json:"exit_code"`
		Checks  []doctor.Line
	}
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, 1, got.Version)
	require.Equal(t, "fail", got.Finding)
	require.Equal(t, "network", got.Class)
	require.Equal(t, 10, got.Exit)
	require.Len(t, got.Checks, len(r.Lines))
}

func withoutImages() *lambdatest.Catalog {
	c := lambdatest.DefaultCatalog()
	for i := range c.Images {
		c.Images[i].Family = "other-" + c.Images[i].Family
	}
	return c
}

func TestALiveLeaseIsNotLeftOver(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	id := c.ledger(c.liveLease())
	c.keeper = true
	c.runs(c.signed(id, liveID, time.Now().Add(time.Hour)), "gl-"+id+"-"+string(liveID))
	c.runs(c.signed("wxyz", "cccccccccccc", time.Now().Add(time.Hour)), "gl-wxyz-cccccccccccc")
	r := c.run()
	require.Zero(t, r.ExitCode(), "%+v", r.Lines)
	require.Zero(t, r.Count(doctor.Warn), "%+v", r.Lines)
	require.Contains(t, line(t, r, "leftovers").Text, "1 machine of live leases here; of other ledgers and within their time: ")
}

var _ lease.Signer = testSigner{}
