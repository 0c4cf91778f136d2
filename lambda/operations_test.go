package lambda_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

const (
	idInstance   = "0920582c7ff041399e34823a0be62549"
	idKey        = "ddf9a910ceb744a0bb95242cbba6cb50"
	idFilesystem = "398578a2336b49079e74043f0bd2cfe8"
	idRuleset    = "c4d291f47f9d436fa39f58493ce3b50d"

	documentKey        = `{"id":"ddf9a910ceb744a0bb95242cbba6cb50","name":"my-public-key","public_key":"ssh-ed25519 AAAA noname","workspace_id":"ddaedf1b7a0e41ac981711504493b242"}`
	documentPair       = `{"id":"ddf9a910ceb744a0bb95242cbba6cb50","name":"my-public-key","public_key":"ssh-rsa AAAA","private_key":"-----BEGIN RSA PRIVATE KEY-----\nxyz\n"}`
	documentFilesystem = `{"id":"398578a2336b49079e74043f0bd2cfe8","name":"my-filesystem","mount_point":"/lambda/nfs/my-filesystem","created":"2025-01-02T03:04:05Z",
"created_by":{"id":"3da5a70a57a7422ea8a7203f98b2198b","email":"me@example.com","status":"active"},"is_in_use":true,"region":{"name":"us-west-1","description":"California, USA"},"bytes_used":1099511627776}`
	documentRules   = `[{"protocol":"tcp","port_range":[22,22],"source_network":"0.0.0.0/0","description":"Allow SSH from anywhere"},{"protocol":"icmp","source_network":"1.2.3.4","description":""}]`
	documentRuleset = `{"id":"c4d291f47f9d436fa39f58493ce3b50d","name":"My Firewall Ruleset","region":{"name":"us-west-1","description":"California, USA"},"rules":` + documentRules + `,
"created":"2025-01-02T03:04:05+00:00","instance_ids":["0920582c7ff041399e34823a0be62549"]}`
	documentGlobal = `{"id":"global","name":"Default Workspace Global Rules","rules":` + documentRules + `}`
	documentImage  = `{"id":"43336648-096d-4cba-9aa2-f9bb7727639d","created_time":"2025-01-02T03:04:05.678","updated_time":"x","name":"ubuntu-24.04.01","description":"Ubuntu LTS",
"family":"ubuntu-lts","version":"24.04.01","architecture":"arm64","region":{"name":"us-west-1","description":"California, USA"}}`
	documentEvent = `{"service_name":"cloud","resource_name":"api_key","action":"created","catalog_version":"2025-09-06","event_id":"0123456789abcdef0123456789abcdef",
"event_time":"2025-09-15T10:30:45.123456Z","actor_lrn":null,"resource_lrns":["lrn:cloud:api_key:ffeeddccbbaa99887766554433221100"],
"resource_owner_lrn":"lrn:cloud:account:fedcba9876543210fedcba9876543210","request_api_key_lrn":null,"additional_details":{"instance_type":"gpu_1x_a10"}}`
)

var rules = []lambda.FirewallRule{
	{Protocol: lambda.ProtocolTCP, PortRange: &lambda.PortRange{22, 22}, SourceNetwork: "0.0.0.0/0", Description: "Allow SSH from anywhere"},
	{Protocol: lambda.ProtocolICMP, SourceNetwork: "1.2.3.4"},
}

// operation is one call with what it must send and a good answer.
type operation struct {
	op           lambda.Op
	method, path string // with the query
	body         string // JSON; "" is none
	answer       string
	call         func(context.Context, *lambda.Client) error
}

// expect makes an error of a result that is not the wanted one.
func expect[T any](got T, err error) func(want T) error {
	return func(want T) error {
		if err == nil && fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			return fmt.Errorf("got %+v, want %+v", got, want)
		}
		return err
	}
}

func operations() []operation {
	west := lambda.Region{Name: "us-west-1", Description: "California, USA"}
	created := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	key := lambda.SSHKey{ID: idKey, Name: "my-public-key", PublicKey: "ssh-ed25519 AAAA noname", WorkspaceID: "ddaedf1b7a0e41ac981711504493b242"}
	checkFS := func(f lambda.Filesystem, err error) error {
		if err != nil {
			return err
		}
		if f.BytesUsed == nil || *f.BytesUsed != 1<<40 {
			return fmt.Errorf("bytes used: %+v", f)
		}
		f.BytesUsed = nil
		return expect(f, nil)(lambda.Filesystem{ID: idFilesystem, Name: "my-filesystem", MountPoint: "/lambda/nfs/my-filesystem", Created: created,
			CreatedBy: lambda.User{ID: "3da5a70a57a7422ea8a7203f98b2198b", Email: "me@example.com", Status: "active"}, IsInUse: true, Region: west})
	}
	checkRules := func(got []lambda.FirewallRule, err error) error {
		if err != nil {
			return err
		}
		if len(got) != 2 || got[0].PortRange == nil || *got[0].PortRange != (lambda.PortRange{22, 22}) || got[1].PortRange != nil {
			return fmt.Errorf("rules: %+v", got)
		}
		return expect(got[1], nil)(rules[1])
	}
	checkSet := func(f lambda.FirewallRuleset, err error) error {
		if err := checkRules(f.Rules, err); err != nil {
			return err
		}
		f.Rules = nil
		return expect(f, nil)(lambda.FirewallRuleset{ID: idRuleset, Name: "My Firewall Ruleset", Region: west, Created: created, InstanceIDs: []string{idInstance}})
	}
	checkGlobal := func(g lambda.GlobalFirewallRuleset, err error) error {
		if err := checkRules(g.Rules, err); err != nil {
			return err
		}
		return expect(g.ID+g.Name, nil)("globalDefault Workspace Global Rules")
	}
	ids := func(all []lambda.Instance, err error) error {
		if err == nil && (len(all) != 1 || all[0].ID != idInstance) {
			return fmt.Errorf("got %+v", all)
		}
		return err
	}
	const v1 = "/api/v1"
	name, empty := "new", []lambda.FirewallRule(nil)
	wireRules := `[{"protocol":"tcp","port_range":[22,22],"source_network":"0.0.0.0/0","description":"Allow SSH from anywhere"},{"protocol":"icmp","source_network":"1.2.3.4","description":""}]`
	return []operation{
		{lambda.OpInstances, "GET", v1 + "/instances", "", `{"data":[` + documentInstance + `]}`, func(ctx context.Context, c *lambda.Client) error {
			return ids(c.Instances(ctx))
		}},
		{lambda.OpInstance, "GET", v1 + "/instances/" + idInstance, "", `{"data":` + documentInstance + `}`, func(ctx context.Context, c *lambda.Client) error {
			i, err := c.Instance(ctx, idInstance)
			return expect(i.Name, err)("My Instance")
		}},
		{lambda.OpRenameInstance, "POST", v1 + "/instances/" + idInstance, `{"name":""}`, `{"data":` + documentInstance + `}`, func(ctx context.Context, c *lambda.Client) error {
			i, err := c.RenameInstance(ctx, idInstance, "")
			return expect(i.ID, err)(idInstance)
		}},
		{lambda.OpInstanceTypes, "GET", v1 + "/instance-types", "", documentTypes, func(ctx context.Context, c *lambda.Client) error {
			o, err := c.InstanceTypes(ctx)
			return expect(o, err)([]lambda.InstanceTypeOffer{
				{InstanceType: lambda.InstanceType{Name: "cpu_4x_general", Description: "CPU only", GPUDescription: "N/A", PriceCentsPerHour: 20,
					Architecture: lambda.ArchX86, Specs: lambda.Specs{VCPUs: 4, MemoryGiB: 16, StorageGiB: 100}}},
				{InstanceType: lambda.InstanceType{Name: "gpu_8x_example", Description: "8x Example GPU (40 GB SXM4)", GPUDescription: "Example GPU (40 GB SXM4)",
					PriceCentsPerHour: 1592, Specs: lambda.Specs{VCPUs: 124, MemoryGiB: 1800, StorageGiB: 6144, GPUs: 8}}, Regions: []lambda.Region{west}},
			})
		}},
		{lambda.OpLaunch, "POST", v1 + "/instance-operations/launch", `{"region_name":"us-west-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["gl-l-1"],
			"name":"gl-l-1-x","hostname":"gl-1","image":{"family":"lambda-stack-24-04"},"user_data":"#cloud-config\nssh_keys: very-secret-host-key\n",
			"tags":[{"key":"gl-lease","value":"1"}],"file_system_names":["data"],
			"file_system_mounts":[{"mount_point":"/data/x","file_system_id":"398578a2336b49079e74043f0bd2cfe8"}],
			"firewall_rulesets":[{"id":"c4d291f47f9d436fa39f58493ce3b50d"}]}`, `{"data":{"instance_ids":["` + idInstance + `"]}}`, func(ctx context.Context, c *lambda.Client) error {
			return expect(c.Launch(ctx, goodLaunch()))(idInstance)
		}},
		{lambda.OpLaunch, "POST", v1 + "/instance-operations/launch", `{"region_name":"r","instance_type_name":"t","ssh_key_names":["k"],"image":{"id":"i"}}`,
			`{"data":{"instance_ids":["` + idInstance + `"]}}`, func(ctx context.Context, c *lambda.Client) error {
				return expect(c.Launch(ctx, lambda.LaunchRequest{Region: "r", InstanceType: "t", SSHKeyName: "k", Image: lambda.ImageRef{ID: "i"}}))(idInstance)
			}},
		{lambda.OpRestart, "POST", v1 + "/instance-operations/restart", `{"instance_ids":["` + idInstance + `"]}`, `{"data":{"restarted_instances":[` + documentInstance + `]}}`,
			func(ctx context.Context, c *lambda.Client) error { return ids(c.Restart(ctx, idInstance)) }},
		{lambda.OpTerminate, "POST", v1 + "/instance-operations/terminate", `{"instance_ids":["` + idInstance + `"]}`, `{"data":{"terminated_instances":[` + documentInstance + `]}}`,
			func(ctx context.Context, c *lambda.Client) error { return ids(c.Terminate(ctx, idInstance)) }},
		{lambda.OpSSHKeys, "GET", v1 + "/ssh-keys", "", `{"data":[` + documentKey + `]}`, func(ctx context.Context, c *lambda.Client) error {
			return expect(c.SSHKeys(ctx))([]lambda.SSHKey{key})
		}},
		{lambda.OpAddSSHKey, "POST", v1 + "/ssh-keys", `{"name":"my-public-key","public_key":"ssh-ed25519 AAAA noname"}`, `{"data":` + documentKey + `}`, func(ctx context.Context, c *lambda.Client) error {
			return expect(c.AddSSHKey(ctx, "my-public-key", "ssh-ed25519 AAAA noname"))(key)
		}},
		{lambda.OpGenerateSSHKey, "POST", v1 + "/ssh-keys", `{"name":"my-public-key"}`, `{"data":` + documentPair + `}`, func(ctx context.Context, c *lambda.Client) error {
			k, err := c.GenerateSSHKey(ctx, "my-public-key")
			return expect(k.PrivateKey.Reveal(), err)("-----BEGIN RSA PRIVATE KEY-----\nxyz\n")
		}},
		{lambda.OpDeleteSSHKey, "DELETE", v1 + "/ssh-keys/" + idKey, "", `{"data":{}}`, func(ctx context.Context, c *lambda.Client) error { return c.DeleteSSHKey(ctx, idKey) }},
		{lambda.OpFilesystems, "GET", v1 + "/file-systems", "", `{"data":[` + documentFilesystem + `]}`, func(ctx context.Context, c *lambda.Client) error {
			all, err := c.Filesystems(ctx)
			if err != nil || len(all) != 1 {
				return expect(len(all), err)(1)
			}
			return checkFS(all[0], nil)
		}},
		{lambda.OpCreateFilesystem, "POST", v1 + "/filesystems", `{"name":"my-filesystem","region":"us-west-1"}`, `{"data":` + documentFilesystem + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkFS(c.CreateFilesystem(ctx, "my-filesystem", "us-west-1"))
		}},
		{lambda.OpDeleteFilesystem, "DELETE", v1 + "/filesystems/" + idFilesystem, "", `{"data":{"deleted_ids":["` + idFilesystem + `"]}}`, func(ctx context.Context, c *lambda.Client) error {
			return c.DeleteFilesystem(ctx, idFilesystem)
		}},
		{lambda.OpImages, "GET", v1 + "/images", "", `{"data":[` + documentImage + `]}`, func(ctx context.Context, c *lambda.Client) error {
			return expect(c.Images(ctx))([]lambda.Image{{ID: "43336648-096d-4cba-9aa2-f9bb7727639d", CreatedTime: created.Add(678 * time.Millisecond), Name: "ubuntu-24.04.01",
				Description: "Ubuntu LTS", Family: "ubuntu-lts", Version: "24.04.01", Architecture: lambda.ArchARM, Region: west}})
		}},
		{lambda.OpRegions, "GET", v1 + "/regions", "", `{"data":[{"name":"us-west-1","description":"California, USA"}]}`, func(ctx context.Context, c *lambda.Client) error {
			return expect(c.Regions(ctx))([]lambda.Region{west})
		}},
		{lambda.OpFirewallRules, "GET", v1 + "/firewall-rules", "", `{"data":` + documentRules + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkRules(c.FirewallRules(ctx))
		}},
		{lambda.OpSetFirewallRules, "PUT", v1 + "/firewall-rules", `{"data":` + wireRules + `}`, `{"data":` + documentRules + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkRules(c.SetFirewallRules(ctx, rules))
		}},
		{lambda.OpFirewallRulesets, "GET", v1 + "/firewall-rulesets", "", `{"data":[` + documentRuleset + `]}`, func(ctx context.Context, c *lambda.Client) error {
			all, err := c.FirewallRulesets(ctx)
			if err != nil || len(all) != 1 {
				return expect(len(all), err)(1)
			}
			return checkSet(all[0], nil)
		}},
		{lambda.OpFirewallRuleset, "GET", v1 + "/firewall-rulesets/" + idRuleset, "", `{"data":` + documentRuleset + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkSet(c.FirewallRuleset(ctx, idRuleset))
		}},
		{lambda.OpCreateFirewallRuleset, "POST", v1 + "/firewall-rulesets", `{"name":"n","region":"us-west-1","rules":` + wireRules + `}`, `{"data":` + documentRuleset + `}`,
			func(ctx context.Context, c *lambda.Client) error {
				return checkSet(c.CreateFirewallRuleset(ctx, "n", "us-west-1", rules))
			}},
		{lambda.OpUpdateFirewallRuleset, "PATCH", v1 + "/firewall-rulesets/" + idRuleset, `{"name":"new"}`, `{"data":` + documentRuleset + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkSet(c.UpdateFirewallRuleset(ctx, idRuleset, lambda.RulesetChange{Name: &name}))
		}},
		{lambda.OpUpdateFirewallRuleset, "PATCH", v1 + "/firewall-rulesets/" + idRuleset, `{"rules":[]}`, `{"data":` + documentRuleset + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkSet(c.UpdateFirewallRuleset(ctx, idRuleset, lambda.RulesetChange{Rules: &empty}))
		}},
		{lambda.OpDeleteFirewallRuleset, "DELETE", v1 + "/firewall-rulesets/" + idRuleset, "", `{"data":{}}`, func(ctx context.Context, c *lambda.Client) error {
			return c.DeleteFirewallRuleset(ctx, idRuleset)
		}},
		{lambda.OpGlobalFirewallRuleset, "GET", v1 + "/firewall-rulesets/global", "", `{"data":` + documentGlobal + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkGlobal(c.GlobalFirewallRuleset(ctx))
		}},
		{lambda.OpUpdateGlobalRuleset, "PATCH", v1 + "/firewall-rulesets/global", `{"rules":` + wireRules + `}`, `{"data":` + documentGlobal + `}`, func(ctx context.Context, c *lambda.Client) error {
			return checkGlobal(c.UpdateGlobalFirewallRuleset(ctx, rules))
		}},
		{lambda.OpAuditEvents, "GET", v1 + "/audit-events?end=2025-09-15T10%3A30%3A45.5Z&page_token=t&resource_type=cloud.api_key&start=2025-09-01T00%3A00%3A00Z", "",
			`{"data":[` + documentEvent + `],"page_token":"next"}`, func(ctx context.Context, c *lambda.Client) error {
				all, next, err := c.AuditPage(ctx, lambda.AuditQuery{Start: time.Date(2025, 9, 1, 0, 0, 0, 0, time.UTC),
					End: time.Date(2025, 9, 15, 10, 30, 45, 500_000_000, time.UTC), ResourceType: "cloud.api_key"}, "t")
				if err != nil {
					return err
				}
				if next != "next" || len(all) != 1 || all[0].ActorLRN != "" || all[0].ResourceOwnerLRN == "" ||
					!all[0].EventTime.Equal(time.Date(2025, 9, 15, 10, 30, 45, 123456000, time.UTC)) || string(all[0].AdditionalDetails) != `{"instance_type":"gpu_1x_a10"}` {
					return fmt.Errorf("events %+v, next %q", all, next)
				}
				return nil
			}},
	}
}

// Every operation sends what the document says and reads the document's examples.
func TestOperations(t *testing.T) {
	for _, op := range operations() {
		t.Run(string(op.op), func(t *testing.T) {
			f := always(200, op.answer)
			c := newClient(t, f)
			require.NoError(t, op.call(background(t), c))
			require.Len(t, f.requests(), 1)
			r := f.requests()[0]
			path := r.path
			if r.query != "" {
				path += "?" + r.query
			}
			require.Equal(t, op.method+" "+op.path, r.method+" "+path)
			require.Equal(t, "Bearer "+testKey, r.header.Get("Authorization"))
			require.Equal(t, "application/json", r.header.Get("Accept"))
			if op.body == "" {
				require.Empty(t, r.body)
				require.Empty(t, r.header.Get("Content-Type"))
			} else {
				require.JSONEq(t, op.body, r.body)
				require.Equal(t, "application/json", r.header.Get("Content-Type"))
			}
		})
		t.Run(string(op.op)+": a refusal", func(t *testing.T) {
			err := op.call(background(t), newClient(t, always(403, envelope("global/account-inactive", "Your account is inactive.", "Pay."))))
			var e *lambda.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, op.op, e.Op)
			require.Equal(t, lambda.CodeAccountInactive, e.Code)
			require.Equal(t, "Pay.", e.Suggestion)
			require.Equal(t, lambda.NothingHappened, e.Outcome)
		})
		t.Run(string(op.op)+": an answer of another shape", func(t *testing.T) {
			for _, body := range []string{`{}`, `{"data":null}`, `{"data":7}`, `{"data":"x"}`, `[]`, `null`, ``, `{"data":[[]]}`} {
				err := op.call(background(t), newClient(t, always(200, body)))
				var e *lambda.Error
				require.ErrorAs(t, err, &e, "%s", body)
				require.Equal(t, op.method == http.MethodGet, e.Outcome == lambda.NothingHappened, "%s: %v", body, e)
			}
		})
	}
}

// What the answer says is not taken for what was asked.
func TestAnswersAreChecked(t *testing.T) {
	offers, err := newClient(t, always(200, `{"data":{"gpu_b":{"instance_type":{"name":"other"}},"gpu_a":{"instance_type":{}}}}`)).InstanceTypes(background(t))
	require.NoError(t, err)
	require.Equal(t, "gpu_a", offers[0].InstanceType.Name, "the key of the object is the name that a launch takes")
	require.Equal(t, "gpu_b", offers[1].InstanceType.Name)
	require.Zero(t, offers[0].InstanceType.PriceCentsPerHour)

	for name, body := range map[string]string{"negative price": `{"data":{"a":{"instance_type":{"price_cents_per_hour":-1}}}}`,
		"fraction": `{"data":{"a":{"instance_type":{"price_cents_per_hour":129.5}}}}`, "no name": `{"data":{"":{}}}`} {
		_, err := newClient(t, always(200, body)).InstanceTypes(background(t))
		require.ErrorContains(t, err, "cannot be read", name)
	}
	err = newClient(t, always(200, `{"data":{"deleted_ids":["other"]}}`)).DeleteFilesystem(background(t), idFilesystem)
	require.ErrorContains(t, err, "does not name")
	require.False(t, lambda.IsNothingHappened(err))
	_, err = newClient(t, always(200, `{"data":`+documentKey+`}`)).GenerateSSHKey(background(t), "n")
	require.ErrorContains(t, err, "no private key")
	_, err = newClient(t, always(200, `{"data":{"id":"other"}}`)).GlobalFirewallRuleset(background(t))
	require.ErrorContains(t, err, "not the global ruleset")
	_, err = newClient(t, always(200, `{"data":[{"protocol":"tcp","port_range":[22]}]}`)).FirewallRules(background(t))
	require.ErrorContains(t, err, "port range")
}

func TestAuditEventsWalksThroughAllPages(t *testing.T) {
	event := func(id string) string {
		return strings.Replace(documentEvent, "0123456789abcdef0123456789abcdef", id, 1)
	}
	f := script(says(200, `{"data":[`+event("a")+`,`+event("b")+`],"page_token":"2"}`), says(200, `{"data":[],"page_token":"3"}`),
		says(200, `{"data":[`+event("c")+`],"page_token":null}`))
	var got []string
	for e, err := range newClient(t, f).AuditEvents(background(t), lambda.AuditQuery{ResourceType: "cloud.instance"}) {
		require.NoError(t, err)
		got = append(got, e.EventID)
	}
	require.Equal(t, []string{"a", "b", "c"}, got)
	require.Equal(t, "page_token=3&resource_type=cloud.instance", f.requests()[2].query)

	var errs []error
	for _, err := range newClient(t, always(200, `{"data":[],"page_token":"2"}`)).AuditEvents(background(t), lambda.AuditQuery{}) {
		errs = append(errs, err)
	}
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "repeats a page")
}

func TestRequestsThatTheDocumentForbidsAreNotSent(t *testing.T) {
	long := strings.Repeat("x", 65)
	launch := func(change func(*lambda.LaunchRequest)) func(context.Context, *lambda.Client) error {
		return func(ctx context.Context, c *lambda.Client) error {
			r := goodLaunch()
			change(&r)
			_, err := c.Launch(ctx, r)
			return err
		}
	}
	rule := func(r lambda.FirewallRule) func(context.Context, *lambda.Client) error {
		return func(ctx context.Context, c *lambda.Client) error {
			_, err := c.SetFirewallRules(ctx, []lambda.FirewallRule{rules[0], r})
			return err
		}
	}
	ssh := &lambda.PortRange{22, 22}
	for name, call := range map[string]func(context.Context, *lambda.Client) error{
		"region":        launch(func(r *lambda.LaunchRequest) { r.Region = "" }),
		"type":          launch(func(r *lambda.LaunchRequest) { r.InstanceType = "" }),
		"key":           launch(func(r *lambda.LaunchRequest) { r.SSHKeyName = "" }),
		"name":          launch(func(r *lambda.LaunchRequest) { r.Name = long }),
		"hostname":      launch(func(r *lambda.LaunchRequest) { r.Hostname = "Big" }),
		"hostname dash": launch(func(r *lambda.LaunchRequest) { r.Hostname = "-a" }),
		"image twice":   launch(func(r *lambda.LaunchRequest) { r.Image = lambda.ImageRef{ID: "a", Family: "b"} }),
		"user data":     launch(func(r *lambda.LaunchRequest) { r.UserData = lambda.NewSecret(strings.Repeat("x", 1_000_001)) }),
		"tag of one":    launch(func(r *lambda.LaunchRequest) { r.Tags = []lambda.Tag{{Key: "a"}} }),
		"tag upper":     launch(func(r *lambda.LaunchRequest) { r.Tags = []lambda.Tag{{Key: "aB"}} }),
		"tag reserved":  launch(func(r *lambda.LaunchRequest) { r.Tags = []lambda.Tag{{Key: "lambda-ai-x"}} }),
		"tag value":     launch(func(r *lambda.LaunchRequest) { r.Tags = []lambda.Tag{{Key: "ab", Value: long + long}} }),
		"mount":         launch(func(r *lambda.LaunchRequest) { r.FileSystemMounts[0].MountPoint = "/etc" }),
		"mount sans fs": launch(func(r *lambda.LaunchRequest) { r.FileSystemMounts[0].FileSystemID = "" }),
		"ruleset":       launch(func(r *lambda.LaunchRequest) { r.FirewallRulesets[0].ID = "" }),
		"key name":      func(ctx context.Context, c *lambda.Client) error { _, err := c.AddSSHKey(ctx, "", "k"); return err },
		"key long name": func(ctx context.Context, c *lambda.Client) error { _, err := c.AddSSHKey(ctx, long, "k"); return err },
		"key sans key":  func(ctx context.Context, c *lambda.Client) error { _, err := c.AddSSHKey(ctx, "n", ""); return err },
		"generate":      func(ctx context.Context, c *lambda.Client) error { _, err := c.GenerateSSHKey(ctx, ""); return err },
		"rename": func(ctx context.Context, c *lambda.Client) error {
			_, err := c.RenameInstance(ctx, "a", long)
			return err
		},
		"fs name": func(ctx context.Context, c *lambda.Client) error {
			_, err := c.CreateFilesystem(ctx, "1a", "r")
			return err
		},
		"fs region": func(ctx context.Context, c *lambda.Client) error {
			_, err := c.CreateFilesystem(ctx, "a", "")
			return err
		},
		"icmp with ports":   rule(lambda.FirewallRule{Protocol: lambda.ProtocolICMP, PortRange: ssh, SourceNetwork: "0.0.0.0/0"}),
		"tcp without ports": rule(lambda.FirewallRule{Protocol: lambda.ProtocolTCP, SourceNetwork: "0.0.0.0/0"}),
		"port 0":            rule(lambda.FirewallRule{Protocol: lambda.ProtocolUDP, PortRange: &lambda.PortRange{0, 1}, SourceNetwork: "0.0.0.0/0"}),
		"ports reversed":    rule(lambda.FirewallRule{Protocol: lambda.ProtocolAll, PortRange: &lambda.PortRange{2, 1}, SourceNetwork: "0.0.0.0/0"}),
		"IPv6":              rule(lambda.FirewallRule{Protocol: lambda.ProtocolTCP, PortRange: ssh, SourceNetwork: "::/0"}),
		"protocol":          rule(lambda.FirewallRule{Protocol: "gre", PortRange: ssh, SourceNetwork: "0.0.0.0/0"}),
		"set by id global":  func(ctx context.Context, c *lambda.Client) error { return c.DeleteFirewallRuleset(ctx, "global") },
	} {
		t.Run(name, func(t *testing.T) {
			f := always(200, `{}`)
			err := call(background(t), newClient(t, f))
			require.True(t, lambda.IsCode(err, lambda.CodeInvalidParameters), "%v", err)
			require.True(t, lambda.IsNothingHappened(err))
			require.False(t, lambda.IsRetryable(err))
			require.Empty(t, f.requests())
		})
	}
}
