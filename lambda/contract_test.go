package lambda_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lambda/lambdatest/openapi"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T noname"

// simClient is a client of a simulated cloud, over a socket.
func simClient(t *testing.T, sim *lambdatest.Server, opts ...lambda.Option) *lambda.Client {
	t.Helper()
	key, err := lambda.ParseKey(sim.APIKey())
	require.NoError(t, err)
	c, err := lambda.New(key, append([]lambda.Option{lambda.WithBaseURL(sim.URL()), lambda.WithLimiter(lambda.NoLimit),
		lambda.WithRetry(lambda.NoRetry), lambda.WithTypesCache(0)}, opts...)...)
	require.NoError(t, err)
	return c
}

// Every operation, with each exchange held to Lambda's document: as it is, with the newer fields, and with nulls.
func TestContract(t *testing.T) {
	for name, cfg := range map[string]lambdatest.Config{
		"document": {Strict: true, Wrap: openapi.Validate(t)},
		"newer":    {Strict: true, Newer: true, Wrap: openapi.ValidateNewer(t)},
		"nulls":    {Strict: true, Nulls: true}, // the document has none, so it cannot be held to
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Virtual = true
			cfg.Linger = time.Hour
			sim := lambdatest.Start(t, cfg)
			driveAll(t, sim, simClient(t, sim), cfg.Newer)
			require.Empty(t, sim.Findings(), "requests hold only what the document knows")
			var seen []string
			for _, r := range sim.Requests() {
				seen = append(seen, r.Op)
			}
			for _, op := range lambdatest.Operations() {
				require.Contains(t, seen, op, "an operation that was not driven")
			}
		})
	}
}

func driveAll(t *testing.T, sim *lambdatest.Server, c *lambda.Client, newer bool) {
	ctx := t.Context()
	regions, err := c.Regions(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, regions)

	offers, err := c.InstanceTypes(ctx)
	require.NoError(t, err)
	at := slices.IndexFunc(offers, func(o lambda.InstanceTypeOffer) bool { return o.InstanceType.Name == "gpu_1x_a10" })
	require.GreaterOrEqual(t, at, 0)
	offer := offers[at]
	require.Equal(t, 129, offer.InstanceType.PriceCentsPerHour)
	require.Equal(t, 1, offer.InstanceType.Specs.GPUs)
	require.NotEmpty(t, offer.Regions)
	require.Equal(t, newer, offer.InstanceType.Architecture != "")
	region := offer.Regions[0]

	images, err := c.Images(ctx)
	require.NoError(t, err)
	image := images[slices.IndexFunc(images, func(i lambda.Image) bool { return i.Region == region && i.Architecture == lambda.ArchX86 })]
	require.False(t, image.CreatedTime.IsZero())

	key, err := c.AddSSHKey(ctx, "gl-a-1", publicKey)
	require.NoError(t, err)
	require.Equal(t, newer, key.WorkspaceID != "")
	pair, err := c.GenerateSSHKey(ctx, "made")
	require.NoError(t, err)
	require.Contains(t, pair.PrivateKey.Reveal(), "PRIVATE KEY")
	keys, err := c.SSHKeys(ctx)
	require.NoError(t, err)
	require.Len(t, keys, 2)

	fs, err := c.CreateFilesystem(ctx, "data", region.Name)
	require.NoError(t, err)
	all, err := c.Filesystems(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, region, all[0].Region)
	require.False(t, all[0].Created.IsZero())

	set, err := c.CreateFirewallRuleset(ctx, "mine", region.Name, rules)
	require.NoError(t, err)
	require.Len(t, set.Rules, 2)

	id, err := c.Launch(ctx, lambda.LaunchRequest{
		Region: region.Name, InstanceType: "gpu_1x_a10", SSHKeyName: "gl-a-1", Name: "gl-a-1-x", Hostname: "gl-1",
		Image: lambda.ImageRef{Family: image.Family}, UserData: lambda.NewSecret("#cloud-config\n"),
		Tags: []lambda.Tag{{Key: "gl-lease", Value: "1"}}, FileSystemNames: []string{"data"},
		FileSystemMounts: []lambda.FileSystemMount{{MountPoint: "/data/x", FileSystemID: fs.ID}},
		FirewallRulesets: []lambda.FirewallRulesetRef{{ID: set.ID}},
	})
	require.NoError(t, err)
	require.Equal(t, "#cloud-config\n", sim.UserData(id))
	second, err := c.Launch(ctx, lambda.LaunchRequest{Region: region.Name, InstanceType: "gpu_1x_a10", SSHKeyName: "made",
		Image: lambda.ImageRef{ID: image.ID}})
	require.NoError(t, err)

	booting, err := c.Instance(ctx, id)
	require.NoError(t, err)
	require.Equal(t, lambda.StatusBooting, booting.Status)
	require.Empty(t, booting.IP)
	require.Nil(t, booting.FirstHealthy)
	sim.Advance(time.Minute)
	instances, err := c.Instances(ctx)
	require.NoError(t, err)
	require.Len(t, instances, 2)
	i := instances[slices.IndexFunc(instances, func(i lambda.Instance) bool { return i.ID == id })]
	require.Equal(t, lambda.StatusActive, i.Status)
	require.Equal(t, "gl-a-1-x", i.Name)
	require.NotEmpty(t, i.IP)
	require.Equal(t, []string{"gl-a-1"}, i.SSHKeyNames)
	require.Equal(t, []lambda.Tag{{Key: "gl-lease", Value: "1"}}, i.Tags)
	require.Equal(t, []lambda.FileSystemMount{{MountPoint: "/data/x", FileSystemID: fs.ID}}, i.FileSystemMounts)
	require.Equal(t, []lambda.FirewallRulesetRef{{ID: set.ID}}, i.FirewallRulesets)
	require.Equal(t, region, i.Region)
	require.Equal(t, newer, i.FirstHealthy != nil)
	require.Equal(t, newer, i.Image != nil)
	require.True(t, i.Actions.Terminate.Available)

	i, err = c.RenameInstance(ctx, id, "renamed")
	require.NoError(t, err)
	require.Equal(t, "renamed", i.Name)
	restarted, err := c.Restart(ctx, id)
	require.NoError(t, err)
	require.Len(t, restarted, 1)

	driveFirewall(t, c, set)
	driveEnd(t, sim, c, id, second)

	require.NoError(t, c.DeleteFirewallRuleset(ctx, set.ID))
	require.True(t, lambda.IsNotFound(c.DeleteFirewallRuleset(ctx, set.ID)))
	require.NoError(t, c.DeleteFilesystem(ctx, fs.ID))
	require.True(t, lambda.IsNotFound(c.DeleteFilesystem(ctx, fs.ID)))
	for _, k := range keys {
		require.NoError(t, c.DeleteSSHKey(ctx, k.ID))
		require.True(t, lambda.IsNotFound(c.DeleteSSHKey(ctx, k.ID)))
	}
	var actions []string
	for e, err := range c.AuditEvents(ctx, lambda.AuditQuery{}) {
		require.NoError(t, err)
		require.False(t, e.EventTime.IsZero())
		actions = append(actions, e.ResourceName+" "+e.Action)
	}
	require.NotEmpty(t, actions)
}

func driveFirewall(t *testing.T, c *lambda.Client, set lambda.FirewallRuleset) {
	ctx := t.Context()
	got, err := c.FirewallRules(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, got)
	got, err = c.SetFirewallRules(ctx, rules)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, lambda.PortRange{22, 22}, *got[0].PortRange)
	require.Nil(t, got[1].PortRange)
	got, err = c.FirewallRules(ctx)
	require.NoError(t, err)
	require.Len(t, got, 2)

	name, none := "ours", []lambda.FirewallRule{}
	sets, err := c.FirewallRulesets(ctx)
	require.NoError(t, err)
	require.Len(t, sets, 1)
	changed, err := c.UpdateFirewallRuleset(ctx, set.ID, lambda.RulesetChange{Name: &name})
	require.NoError(t, err)
	require.Equal(t, "ours", changed.Name)
	require.Len(t, changed.Rules, 2, "the rules stay")
	changed, err = c.UpdateFirewallRuleset(ctx, set.ID, lambda.RulesetChange{Rules: &none})
	require.NoError(t, err)
	require.Equal(t, "ours", changed.Name)
	require.Empty(t, changed.Rules)
	read, err := c.FirewallRuleset(ctx, set.ID)
	require.NoError(t, err)
	require.Equal(t, changed, read)
	_, err = c.FirewallRuleset(ctx, "00000000000000000000000000000000")
	require.True(t, lambda.IsNotFound(err))

	global, err := c.GlobalFirewallRuleset(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, global.Name)
	global, err = c.UpdateGlobalFirewallRuleset(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, global.Rules)
}

func driveEnd(t *testing.T, sim *lambdatest.Server, c *lambda.Client, id, second string) {
	ctx := t.Context()
	const unknown = "00000000000000000000000000000000"
	_, err := c.Terminate(ctx, id, unknown)
	require.True(t, lambda.IsNotFound(err))
	require.True(t, lambda.IsNothingHappened(err))
	require.Len(t, sim.Running(), 2, "all or none")
	ending, err := c.Terminate(ctx, id, second)
	require.NoError(t, err)
	require.Len(t, ending, 2)
	require.Equal(t, lambda.StatusTerminating, ending[0].Status)
	sim.Advance(time.Minute)
	i, err := c.Instance(ctx, id)
	require.NoError(t, err)
	require.Equal(t, lambda.StatusTerminated, i.Status)
	sim.Advance(2 * time.Hour)
	_, err = c.Instance(ctx, id)
	require.True(t, lambda.IsNotFound(err))
	instances, err := c.Instances(ctx)
	require.NoError(t, err)
	require.Empty(t, instances)
}

func TestContractRefusals(t *testing.T) {
	order := lambda.LaunchRequest{Region: "us-west-1", InstanceType: "gpu_1x_a10", SSHKeyName: "k"}
	launch := func(change func(*lambda.LaunchRequest)) func(context.Context, *lambda.Client) error {
		return func(ctx context.Context, c *lambda.Client) error {
			r := order
			change(&r)
			_, err := c.Launch(ctx, r)
			return err
		}
	}
	for name, test := range map[string]struct {
		cfg  lambdatest.Config
		call func(context.Context, *lambda.Client) error
		code lambda.Code
	}{
		"no capacity":      {lambdatest.Config{}, launch(func(r *lambda.LaunchRequest) { r.Region = "us-south-1" }), lambda.CodeInsufficientCapacity},
		"quota":            {lambdatest.Config{Quota: 1}, launch(func(*lambda.LaunchRequest) {}), lambda.CodeQuotaExceeded},
		"no such key, 404": {lambdatest.Config{}, launch(func(r *lambda.LaunchRequest) { r.SSHKeyName = "other" }), lambda.CodeObjectDoesNotExist},
		"no such key, 400": {lambdatest.Config{LaunchNotFound: 400}, launch(func(r *lambda.LaunchRequest) { r.SSHKeyName = "other" }), lambda.CodeObjectDoesNotExist},
		"no such region":   {lambdatest.Config{}, launch(func(r *lambda.LaunchRequest) { r.Region = "mars-1" }), lambda.CodeInvalidParameters},
		"key name taken": {lambdatest.Config{}, func(ctx context.Context, c *lambda.Client) error {
			_, err := c.AddSSHKey(ctx, "k", publicKey)
			return err
		}, lambda.CodeInvalidParameters},
		"restart of nothing": {lambdatest.Config{}, func(ctx context.Context, c *lambda.Client) error { _, err := c.Restart(ctx, idInstance); return err }, lambda.CodeObjectDoesNotExist},
		"filesystem in Texas": {lambdatest.Config{}, func(ctx context.Context, c *lambda.Client) error {
			_, err := c.CreateFilesystem(ctx, "a", "mars-1")
			return err
		}, lambda.CodeInvalidParameters},
	} {
		t.Run(name, func(t *testing.T) {
			test.cfg.Virtual, test.cfg.Wrap = true, openapi.Validate(t)
			sim := lambdatest.Start(t, test.cfg)
			c := simClient(t, sim)
			_, err := c.AddSSHKey(t.Context(), "k", publicKey)
			require.NoError(t, err)
			if test.cfg.Quota > 0 {
				_, err := c.Launch(t.Context(), order)
				require.NoError(t, err)
			}
			before := sim.LaunchCount()
			err = test.call(t.Context(), c)
			require.True(t, lambda.IsCode(err, test.code), "%v", err)
			require.True(t, lambda.IsNothingHappened(err))
			require.Equal(t, before, sim.LaunchCount())
		})
	}
	t.Run("a bad key", func(t *testing.T) {
		sim := lambdatest.Start(t, lambdatest.Config{Wrap: openapi.Validate(t)})
		key, err := lambda.ParseKey("secret_other_0123.abcd")
		require.NoError(t, err)
		c, err := lambda.New(key, lambda.WithBaseURL(sim.URL()), lambda.WithLimiter(lambda.NoLimit))
		require.NoError(t, err)
		_, err = c.Instances(t.Context())
		require.True(t, lambda.IsBadKey(err), "%v", err)
	})
	t.Run("a wrong base URL is not an instance that is gone", func(t *testing.T) {
		sim := lambdatest.Start(t, lambdatest.Config{})
		c := simClient(t, sim, lambda.WithBaseURL(sim.URL()+"/v2"))
		_, err := c.Instance(t.Context(), idInstance)
		require.Error(t, err)
		require.False(t, lambda.IsNotFound(err), "%v", err)
	})
}

// Whatever goes wrong with a launch: when the client says that nothing happened, then nothing did.
func TestWhatALaunchErrorProves(t *testing.T) {
	var faults []lambdatest.Fault
	for _, status := range []int{400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504} {
		for _, body := range []string{lambdatest.BodyJSON, lambdatest.BodyHTML, lambdatest.BodyText, lambdatest.BodyEmpty} {
			for _, after := range []bool{false, true} {
				if after && body == lambdatest.BodyJSON && status < 500 && status != 408 && status != 429 {
					continue // Lambda's own refusal of what it has done is what the rule rests on not to be
				}
				faults = append(faults, lambdatest.Fault{Status: status, Body: body, AfterWork: after})
			}
		}
	}
	for _, cut := range []string{lambdatest.CutBefore, lambdatest.CutAfter, lambdatest.CutMid} {
		faults = append(faults, lambdatest.Fault{Cut: cut})
	}
	faults = append(faults, lambdatest.Fault{Hang: -1}, lambdatest.Fault{Hang: -1, AfterWork: true}, lambdatest.Fault{NoCapacity: true})

	sim := lambdatest.Start(t, lambdatest.Config{Virtual: true})
	var sent atomic.Int64
	counting := roundTripper(func(r *http.Request) (*http.Response, error) {
		sent.Add(1)
		return http.DefaultTransport.RoundTrip(r)
	})
	c := simClient(t, sim, lambda.WithTimeout(200*time.Millisecond), lambda.WithRetry(lambda.DefaultRetry),
		lambda.WithHTTPClient(&http.Client{Transport: counting}))
	_, err := c.AddSSHKey(t.Context(), "k", publicKey)
	require.NoError(t, err)
	proven := 0
	for _, f := range faults {
		f.Op, f.Count = lambdatest.OpLaunch, 1
		before, asked := sim.LaunchCount(), sent.Load()
		fault := sim.Inject(f)
		_, err := c.Launch(t.Context(), lambda.LaunchRequest{Region: "us-west-1", InstanceType: "gpu_1x_a10", SSHKeyName: "k"})
		about := fmt.Sprintf("%+v: %v", f, err)
		require.Error(t, err, about)
		require.Equal(t, 1, sim.Hits(fault), about)
		require.Equal(t, asked+1, sent.Load(), "sent once: %s", about)
		if lambda.IsNothingHappened(err) {
			proven++
			require.Equal(t, before, sim.LaunchCount(), about)
		}
	}
	require.Equal(t, 7, proven, "400, 401, 403, 404, 409 and 413 in Lambda's envelope, and no capacity")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The default pace stays within the simulator's limits, and without it they are met in either shape.
func TestThePaceIsWithinTheLimits(t *testing.T) {
	for _, html := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sim, err := lambdatest.New(lambdatest.Config{RateLimit: true, RateLimitHTML: html, Now: time.Now})
			require.NoError(t, err)
			defer func() { require.NoError(t, sim.Close()) }()
			overMemory := lambda.WithHTTPClient(&http.Client{Transport: sim.Transport()})
			hasty := simClient(t, sim, overMemory, lambda.WithBaseURL("https://lambda.test/api/v1"))
			var limited error
			for n := 0; n < 20 && limited == nil; n++ {
				_, limited = hasty.Regions(t.Context())
			}
			require.True(t, lambda.IsRateLimited(limited), "%v", limited)
			require.True(t, lambda.IsRetryable(limited))

			time.Sleep(time.Second)
			paced := simClient(t, sim, overMemory, lambda.WithBaseURL("https://lambda.test/api/v1"), lambda.WithLimiter(lambda.NewPacer(lambda.PacerConfig{})))
			_, err = paced.AddSSHKey(t.Context(), "k", publicKey)
			require.NoError(t, err)
			for range 4 {
				_, err := paced.Launch(t.Context(), lambda.LaunchRequest{Region: "us-west-1", InstanceType: "gpu_1x_a10", SSHKeyName: "k"})
				require.NoError(t, err)
				for range 8 {
					_, err := paced.Regions(t.Context())
					require.NoError(t, err)
				}
			}
		})
	}
}
