package doctor_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// clinic is an account, a state directory and the configuration to examine them.
type clinic struct {
	t      *testing.T
	sim    *lambdatest.Server
	dir    string
	keeper bool
	skip   int // requests that are not doctor's
	cfg    doctor.Config
}

func newClinic(t *testing.T, cfg lambdatest.Config) *clinic {
	t.Helper()
	c := &clinic{t: t, sim: lambdatest.Start(t, cfg), dir: t.TempDir()}
	require.NoError(t, os.Chmod(c.dir, 0o700))
	c.cfg = doctor.Config{
		APIURL: c.sim.URL(), KeySource: "LAMBDA_API_KEY", Cloud: c.client(c.sim.APIKey()),
		Policy: &policy.Source{}, PolicyPath: filepath.Join(c.dir, "policy.yaml"), Principal: "default",
		LedgerPath: filepath.Join(c.dir, "ledger.db"), StateDir: c.dir,
		KeeperRuns: func() (bool, error) { return c.keeper, nil }, Now: time.Now,
	}
	return c
}

func (c *clinic) client(key string) *lambda.Client {
	k, err := lambda.ParseKey(key)
	require.NoError(c.t, err)
	client, err := lambda.New(k, lambda.WithBaseURL(c.sim.URL()), lambda.WithLimiter(lambda.NoLimit), lambda.WithRetry(lambda.NoRetry))
	require.NoError(c.t, err)
	return client
}

func (c *clinic) run() doctor.Report {
	c.t.Helper()
	before := c.files()
	r := doctor.Run(c.t.Context(), c.cfg)
	require.Equal(c.t, before, c.files(), "doctor changes no file")
	for _, req := range c.sim.Requests()[c.skip:] {
		require.Equal(c.t, http.MethodGet, req.Method, "doctor changes nothing at Lambda")
	}
	for _, l := range r.Lines {
		require.NotContains(c.t, l.Text+l.Mend, c.sim.APIKey())
		require.NotContains(c.t, l.Text, "\n")
		if l.Finding != doctor.OK && l.Check != "unchecked" {
			require.NotEmpty(c.t, l.Mend, "%s says what mends it", l.Check)
		}
	}
	return r
}

// files are the names, modes, times and contents of the state directory's files.
func (c *clinic) files() map[string]string {
	out := map[string]string{}
	require.NoError(c.t, filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[path] = info.Mode().String()
		if !d.IsDir() {
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrPermission) {
				return nil
			}
			out[path] += info.ModTime().String() + string(b)
			return err
		}
		return nil
	}))
	return out
}

// line is the one line of a check.
func line(t *testing.T, r doctor.Report, check string) doctor.Line {
	t.Helper()
	var got []doctor.Line
	for _, l := range r.Lines {
		if l.Check == check {
			got = append(got, l)
		}
	}
	require.Len(t, got, 1, "check %q in %+v", check, r.Lines)
	return got[0]
}

func (c *clinic) policy(text string) {
	require.NoError(c.t, os.WriteFile(c.cfg.PolicyPath, []byte(text), 0o600))
	c.cfg.Policy = &policy.Source{Path: c.cfg.PolicyPath, Explicit: true}
}

// ledger makes the ledger with leases in it, and returns its name.
func (c *clinic) ledger(leases ...lease.Lease) string {
	c.t.Helper()
	ctx := context.Background()
	db, err := ledger.Open(ctx, c.cfg.LedgerPath, ledger.Options{})
	require.NoError(c.t, err)
	allow := func(policy.Usage) policy.Decision { return policy.Decision{Verdict: policy.Allow} }
	slices.SortFunc(leases, func(a, b lease.Lease) int { return a.CreatedAt.Compare(b.CreatedAt) }) // a ledger takes nothing that is older than its newest
	for _, l := range leases {
		want := l
		l.State, l.Reason, l.EndedAt = lease.Launching, "", time.Time{}
		res, err := db.Reserve(ctx, l, l.CreatedAt, lease.Periods{}, allow)
		require.NoError(c.t, err)
		if want.State != lease.Launching {
			want.Version = res.Lease.Version
			_, err = db.Update(ctx, want, "test")
			require.NoError(c.t, err)
		}
	}
	id, err := db.LedgerID(ctx)
	require.NoError(c.t, err)
	require.NoError(c.t, db.Close())
	return id
}

const (
	liveID  = lease.ID("aaaaaaaaaaaa")
	endedID = lease.ID("bbbbbbbbbbbb")
)

func (c *clinic) liveLease() lease.Lease {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return lease.Lease{
		ID: liveID, State: lease.Booting, Principal: "default", Account: c.cfg.Cloud.Account(), Type: "gpu_1x_a10", Region: "us-east-1", GPUs: 1,
		Price: policy.Cents(129), Reserved: policy.Cents(200), CreatedAt: now, LaunchSentAt: now, InstanceID: "0123", Deadline: now.Add(time.Hour),
		StopAllowance: 12 * time.Minute, HardStop: now.Add(9 * time.Hour),
	}
}

// request is a launch that waits for a person.
func (c *clinic) request() {
	c.t.Helper()
	l := c.liveLease()
	l.State, l.InstanceID, l.LaunchSentAt, l.TTL, l.DecideBy = lease.Launching, "", time.Time{}, time.Hour, l.CreatedAt.Add(time.Hour)
	c.with(func(db *ledger.DB) {
		_, err := db.Reserve(context.Background(), l, l.CreatedAt, lease.Periods{}, func(policy.Usage) policy.Decision { return policy.Decision{Verdict: policy.Ask} })
		require.NoError(c.t, err)
	})
}

// with does something to the ledger.
func (c *clinic) with(do func(*ledger.DB)) {
	c.t.Helper()
	db, err := ledger.Open(context.Background(), c.cfg.LedgerPath, ledger.Options{})
	require.NoError(c.t, err)
	do(db)
	require.NoError(c.t, db.Close())
}

func (c *clinic) endedLease() lease.Lease {
	l := c.liveLease()
	l.ID, l.State, l.Reason, l.InstanceID, l.Reserved = endedID, lease.Ended, lease.Stopped, "4567", 0
	l.CreatedAt = l.CreatedAt.Add(-time.Hour)
	l.EndedAt = l.CreatedAt.Add(time.Minute)
	return l
}

// signed is the name of an instance of ours.
func (c *clinic) signed(ledgerID string, id lease.ID, hardStop time.Time) string {
	name, err := lease.Name{Ledger: ledgerID, Lease: id, HardStop: hardStop}.Signed(c.t.Context(), testSigner{c.cfg.Cloud})
	require.NoError(c.t, err)
	return name
}

type testSigner struct{ doctor.Cloud }

func (s testSigner) Sign(_ context.Context, text string) (string, error) {
	return s.Cloud.Sign(text), nil
}

func (c *clinic) runs(name, key string) string {
	id, err := c.sim.Launch(lambdatest.Order{Name: name, Type: "gpu_1x_a10", Region: "us-east-1", Key: key})
	require.NoError(c.t, err)
	return id
}

func addKey(t *testing.T, c *clinic, name string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.sim.URL()+"/ssh-keys", strings.NewReader(`{"name":"`+name+`"}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+c.sim.APIKey())
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
