package doctor_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// beats has a guard say that it was here.
func (c *clinic) beats(guard string, ago time.Duration) {
	c.t.Helper()
	c.with(func(db *ledger.DB) {
		require.NoError(c.t, db.Beat(context.Background(), guard, time.Now().Add(-ago)))
	})
}

// rules replaces the account's firewall rules, through a client that is not
// doctor's, and forgets the request.
func (c *clinic) rules(t *testing.T, rules ...lambda.FirewallRule) {
	t.Helper()
	_, err := c.client(c.sim.APIKey()).SetFirewallRules(t.Context(), rules)
	require.NoError(t, err)
	c.changed()
}

// changed makes the requests so far count as somebody else's.
func (c *clinic) changed() { c.skip = len(c.sim.Requests()) }

// alterLedger changes a ledger with one live and one ended lease behind our back.
func (c *clinic) alterLedger(t *testing.T, statement string) {
	t.Helper()
	c.ledger(c.liveLease(), c.endedLease())
	db, err := sql.Open("sqlite", c.cfg.LedgerPath)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		class doctor.Class
		check string
		says  string
		mend  string
		cfg   lambdatest.Config
		ill   func(t *testing.T, c *clinic)
	}{
		{"clock is behind", doctor.State, "clock", "2m0s behind Lambda's", "timedatectl", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{ClockSkew: 2 * time.Minute})
		}},
		{"clock is ahead", doctor.State, "clock", "ahead of Lambda's", "timedatectl", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.sim.Inject(lambdatest.Fault{ClockSkew: -30 * time.Second})
		}},
		{"state directory is open", doctor.State, "state directory", "others on this computer", "chmod -R go= ", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			require.NoError(t, os.Chmod(c.dir, 0o755))
		}},
		{"key file is open", doctor.Auth, "key file", "may read", "chmod 600 ", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.cfg.KeyFile = filepath.Join(t.TempDir(), "key")
			require.NoError(t, os.WriteFile(c.cfg.KeyFile, []byte("x"), 0o644))
		}},
		{"firewall is narrow", doctor.Network, "firewall", "203.0.113.0/24 only", "public address", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.rules(t, lambda.FirewallRule{Protocol: lambda.ProtocolTCP, PortRange: &lambda.PortRange{20, 30}, SourceNetwork: "203.0.113.0/24"},
				lambda.FirewallRule{Protocol: lambda.ProtocolTCP, PortRange: &lambda.PortRange{80, 443}, SourceNetwork: "0.0.0.0/0"},
				lambda.FirewallRule{Protocol: lambda.ProtocolUDP, PortRange: &lambda.PortRange{22, 22}, SourceNetwork: "0.0.0.0/0"})
		}},
		{"idle filesystem", doctor.Billing, "filesystems", "data in us-east-1", "console", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			_, err := c.client(c.sim.APIKey()).CreateFilesystem(t.Context(), "data", "us-east-1")
			require.NoError(t, err)
			c.changed()
		}},
		{"untracked machine", doctor.Billing, "untracked", `1 machine that no gpulease with this key has launched, $1.29/h in all`, "console", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.runs("gl-abcd-aaaaaaaaaaaa-t0t0t0-0123456789abcdef", "k") // the name alone proves nothing
		}},
		{"key of an ended lease", doctor.State, "ssh keys", "keys of ended leases", "gpulease serve", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			addKey(t, c, "gl-"+c.ledger(c.endedLease())+"-"+string(endedID))
			c.changed()
		}},
		{"key of another ledger", doctor.State, "ssh keys", "gl-wxyz-cccccccccccc", "console", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			addKey(t, c, "gl-wxyz-cccccccccccc")
			c.changed()
		}},
		{"private key of an ended lease", doctor.State, "key files", "bbbbbbbbbbbb.key", "rm /", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.ledger(c.endedLease())
			file := filepath.Join(c.dir, "keys", string(endedID)+".key")
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
			require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
			old := time.Now().Add(-time.Hour)
			require.NoError(t, os.Chtimes(file, old, old))
		}},
		{"stop not confirmed", doctor.State, "lease aaaaaaaaaaaa", "not confirmed", "gpulease stop aaaaaaaaaaaa", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			l := c.liveLease()
			l.State, l.Reason = lease.Stopping, lease.Stopped
			c.ledger(l)
			c.keeper = true
		}},
		{"only a server guards", doctor.State, "guard", "server 4711", "gpulease leases", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.ledger(c.liveLease())
			c.beats("server 4711", 0)
			c.beats("leader 0123456789abcdef", 0)
		}},
		{"only a timer reaps", doctor.State, "guard", "only when a timer starts gpulease reap; gpulease reap was seen on cron1 4 min ago", "gpulease leases", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.ledger(c.liveLease())
			c.beats("reap cron1", 4*time.Minute)
			c.beats("leader 0123456789abcdef", 0)
		}},
		{"frozen", doctor.Policy, "freeze", "by ann: look at the bill", "gpulease unfreeze", lambdatest.Config{}, func(t *testing.T, c *clinic) {
			c.with(func(db *ledger.DB) {
				require.NoError(t, db.Freeze(context.Background(), lease.Freeze{At: time.Now(), By: "ann", Why: "look at the bill"}))
			})
		}},
		{"a request waits", doctor.Policy, "approval", "1 request waits for a person: aaaaaaaaaaaa (gpu_1x_a10 for 1h, $1.548 at most, until ", "gpulease approve", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.request()
		}},
		{"approval is needed", doctor.Policy, "budget", "approval", "approve_above", lambdatest.Config{}, func(_ *testing.T, c *clinic) { c.policy("approve_above: 0\n") }},
		{"misspelt type in the policy", doctor.Policy, "regions", "types gpu_1x_a01", "gpulease policy show", lambdatest.Config{}, func(_ *testing.T, c *clinic) {
			c.policy("types: {allow: [gpu_1x_a10, gpu_1x_a01, \"gpu_8x_*\"]}\n")
		}},
		{"image is missing in a region", doctor.Policy, "images", "missing in", "policy", lambdatest.Config{Newer: true, Catalog: oneRegionOnly()}, func(*testing.T, *clinic) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newClinic(t, tt.cfg)
			tt.ill(t, c)
			r := c.run()
			l := line(t, r, tt.check)
			require.Equal(t, doctor.Warn, l.Finding, "%+v", l)
			require.Equal(t, tt.class, l.Class)
			require.Contains(t, l.Text, tt.says)
			require.Contains(t, l.Mend, tt.mend)
			require.Zero(t, r.ExitCode(), "a warning is no failure: %+v", r.Lines)
		})
	}
}

func oneRegionOnly() *lambdatest.Catalog {
	c := lambdatest.DefaultCatalog()
	for i := range c.Images {
		if c.Images[i].Architecture == "x86_64" {
			c.Images[i].Regions = []string{"us-east-1"}
		}
	}
	return c
}

func TestALedgerThatIsInUseIsReadAndLeftAlone(t *testing.T) {
	t.Parallel()
	c := newClinic(t, lambdatest.Config{})
	db, err := ledger.Open(t.Context(), c.cfg.LedgerPath, ledger.Options{})
	require.NoError(t, err)
	require.NoError(t, db.Beat(t.Context(), "server 1", time.Now())) // now there is a write-ahead log
	copied, err := doctor.CopyLedger(t.Context(), c.cfg.LedgerPath)
	require.NoError(t, err)
	guards, err := copied.Guards(t.Context())
	require.NoError(t, err)
	require.Len(t, guards, 1, "what stands only in the write-ahead log is in the copy")
	require.NoError(t, copied.Close())
	require.NoError(t, db.Beat(t.Context(), "server 2", time.Now()), "the ledger itself goes on")
	require.NoError(t, db.Close())
}

func TestPasswordsInAddressesAreNotRepeated(t *testing.T) {
	t.Parallel()
	for address, mend := range map[string]string{
		"postgres://me:hunter2@127.0.0.1:1/gpulease":   "start the PostgreSQL server",
		"postgresql://me:hunter2@127.0.0.1:1/gpulease": "start the PostgreSQL server",
		"postgres://me:hunter2/@127.0.0.1:1/gpulease":  "correct GPULEASE_LEDGER",
	} {
		c := newClinic(t, lambdatest.Config{})
		c.cfg.LedgerPath = address
		l := line(t, c.run(), "ledger")
		require.Equal(t, doctor.Fail, l.Finding)
		require.Contains(t, l.Mend, mend)
		require.NotContains(t, l.Text+l.Mend, "hunter2")
	}
}
