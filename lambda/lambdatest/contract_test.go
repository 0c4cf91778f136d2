package lambdatest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lambda/lambdatest/openapi"
)

// modes are the shapes of answers that the document covers.
func modes(t *testing.T) map[string]lambdatest.Config {
	plain, newer := virtual(time.Minute), virtual(time.Minute)
	plain.Wrap = openapi.Validate(t)
	newer.Newer, newer.Wrap = true, openapi.ValidateNewer(t)
	return map[string]lambdatest.Config{"as documented": plain, "newer": newer}
}

func TestEveryOperationAnswersAsDocumented(t *testing.T) {
	for name, cfg := range modes(t) {
		t.Run(name, func(t *testing.T) {
			c := start(t, cfg)
			everyOperation(c)
			answered := map[string]bool{}
			for _, r := range c.sim.Requests() {
				if r.Status == http.StatusOK {
					answered[r.Op] = true
				}
			}
			for _, op := range lambdatest.Operations() {
				require.True(t, answered[op], "%s was not answered once", op)
			}
			require.Empty(t, c.sim.Findings())
		})
	}
}

// everyOperation calls each operation with success, instances in each status,
// and asks for things that are not there.
func everyOperation(c caller) {
	t := c.t
	key := c.addKey("k")
	generated := c.do("POST", "/ssh-keys", `{"name":"made"}`).ok(t).(map[string]any)
	require.Contains(t, generated["private_key"], "RSA PRIVATE KEY")
	fs := c.do("POST", "/filesystems", `{"name":"data","region":"us-east-1"}`).ok(t).(map[string]any)["id"].(string)
	second := c.do("POST", "/filesystems", `{"name":"second","region":"us-east-1"}`).ok(t).(map[string]any)["id"].(string)
	rules := `[{"protocol":"tcp","port_range":[22,22],"source_network":"1.2.3.4","description":"me"},{"protocol":"icmp","source_network":"0.0.0.0/0","description":""}]`
	rs := c.do("POST", "/firewall-rulesets", `{"name":"r","region":"us-east-1","rules":`+rules+`}`).ok(t).(map[string]any)["id"].(string)
	images := c.get("/images").ok(t).([]any)
	image := ""
	for _, i := range images {
		m := i.(map[string]any)
		if m["region"].(map[string]any)["name"] == "us-east-1" {
			image = m["id"].(string)
		}
	}

	id := c.launch(fmt.Sprintf(`"name":"all","hostname":"headnode1","image":{"id":%q},"user_data":"#cloud-config\n","tags":[{"key":"k1","value":"v"}],
		"file_system_names":["data","second"],"file_system_mounts":[{"file_system_id":%q,"mount_point":"/data/x"}],"firewall_rulesets":[{"id":%q}]`, image, fs, rs))
	bare := c.launch("")
	sick := c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, NeverHealthy: true})
	c.launch(`"image":{"family":"gpu-base-24-04"}`)
	c.sim.Remove(sick)
	look := func() {
		c.get("/instances").ok(t)
		c.get("/instances/" + id).ok(t)
		c.get("/file-systems").ok(t)
		c.get("/firewall-rulesets").ok(t)
		c.get("/firewall-rulesets/" + rs).ok(t)
	}
	look()
	c.sim.Advance(30 * time.Second) // an address
	look()
	c.sim.Advance(30 * time.Second) // active, and one unhealthy
	look()
	m := c.instance(id)
	require.Len(t, m["file_system_mounts"], 2)
	require.Contains(t, m["file_system_mounts"], map[string]any{"mount_point": "/data/x", "file_system_id": fs})

	c.get("/instance-types").ok(t)
	c.get("/regions").ok(t)
	c.get("/ssh-keys").ok(t)
	c.get("/firewall-rules").ok(t)
	c.do("PUT", "/firewall-rules", `{"data":`+rules+`}`).ok(t)
	c.get("/firewall-rulesets/global").ok(t)
	c.do("PATCH", "/firewall-rulesets/global", `{}`).ok(t)
	c.do("PATCH", "/firewall-rulesets/global", `{"rules":[]}`).ok(t)
	c.do("PATCH", "/firewall-rulesets/"+rs, `{"name":"other"}`).ok(t)
	c.do("POST", "/instances/"+bare, `{"name":"renamed"}`).ok(t)
	c.do("POST", "/instances/"+bare, `{"name":""}`).ok(t)
	c.do("POST", "/instance-operations/restart", `{"instance_ids":["`+bare+`"]}`).ok(t)
	c.do("POST", "/instance-operations/restart", `{"instance_ids":["`+bare+`"]}`).refused(t, 409, lambdatest.CodeConflict)
	c.get("/instances?cluster_id=ddaedf1b7a0e41ac981711504493b242").ok(t)
	c.do("DELETE", "/filesystems/"+fs, "").refused(t, 400, lambdatest.CodeFilesystemInUse)
	c.do("DELETE", "/firewall-rulesets/"+rs, "").refused(t, 400, lambdatest.CodeRulesetInUse)
	c.do("POST", "/filesystems", `{"name":"data","region":"us-east-1"}`).refused(t, 400, lambdatest.CodeDuplicate)

	require.NoError(t, c.sim.Become(bare, lambdatest.Preempted))
	c.terminate(id).ok(t)
	look()
	c.sim.Advance(time.Minute)
	look()
	c.sim.Advance(time.Minute)
	c.do("DELETE", "/filesystems/"+fs, "").ok(t)
	c.do("DELETE", "/filesystems/"+second, "").ok(t)
	c.do("DELETE", "/firewall-rulesets/"+rs, "").ok(t)
	c.do("DELETE", "/ssh-keys/"+key, "").ok(t)
	c.get("/audit-events").ok(t)
	c.get("/audit-events?start=2020-01-01T00:00:00Z&resource_type=cloud.instance").ok(t)

	for _, r := range []struct{ method, path, body, code string }{
		{"GET", "/instances/" + id, "", lambdatest.CodeDoesNotExist},
		{"POST", "/instances/" + id, `{"name":"x"}`, lambdatest.CodeDoesNotExist},
		{"POST", "/instance-operations/terminate", `{"instance_ids":["` + id + `"]}`, lambdatest.CodeDoesNotExist},
		{"POST", "/instance-operations/restart", `{"instance_ids":["` + id + `"]}`, lambdatest.CodeDoesNotExist},
		{"DELETE", "/ssh-keys/" + key, "", lambdatest.CodeNotFound},
		{"DELETE", "/filesystems/" + fs, "", lambdatest.CodeDoesNotExist},
		{"GET", "/firewall-rulesets/" + rs, "", lambdatest.CodeDoesNotExist},
		{"PATCH", "/firewall-rulesets/" + rs, `{"name":"x"}`, lambdatest.CodeDoesNotExist},
		{"DELETE", "/firewall-rulesets/" + rs, "", lambdatest.CodeDoesNotExist},
		{"GET", "/nowhere", "", lambdatest.CodeNotFound},
	} {
		c.do(r.method, r.path, r.body).refused(t, http.StatusNotFound, r.code)
	}
}

// Every operation refuses a missing and a bad key in the documented shape.
func TestEveryOperationWantsTheKey(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Wrap = openapi.Validate(t)
	c := start(t, cfg)
	for path, methods := range documentedOperations(t) {
		for _, method := range methods {
			for _, key := range []string{"", "Bearer wrong", "Basic d3Jvbmc6"} {
				r := c.do(method, strings.ReplaceAll(path, "{id}", "0"), "{}", "Authorization", key)
				r.refused(t, http.StatusUnauthorized, lambdatest.CodeInvalidKey)
			}
		}
	}
}

// documentedOperations are the methods by path, without tickets and fabric.
func documentedOperations(t *testing.T) map[string][]string {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	require.NoError(t, json.Unmarshal(openapi.Document(), &doc))
	out := map[string][]string{}
	for path, ops := range doc.Paths {
		short := strings.TrimPrefix(path, "/api/v1")
		if strings.HasPrefix(short, "/tickets") || strings.HasPrefix(short, "/fabric") {
			continue
		}
		for method := range ops {
			out[short] = append(out[short], strings.ToUpper(method))
		}
	}
	require.GreaterOrEqual(t, len(out), 16)
	return out
}

// The ids that faults are named by are the document's, and none is missing.
func TestOperationsAreThoseOfTheDocument(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	require.NoError(t, json.Unmarshal(openapi.Document(), &doc))
	var want []string
	for path, ops := range doc.Paths {
		if !strings.Contains(path, "/tickets") && !strings.Contains(path, "/fabric") {
			for _, op := range ops {
				want = append(want, op.OperationID)
			}
		}
	}
	require.ElementsMatch(t, want, lambdatest.Operations())
}

// What the document forbids, the simulator refuses; the document is asked too, so
// that no row of the table is our invention.
func TestForbiddenRequestsAreRefused(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Wrap = openapi.Validate(t)
	c := start(t, cfg)
	c.addKey("k")
	id := c.launch("")
	rs := c.do("POST", "/firewall-rulesets", `{"name":"r","region":"us-east-1","rules":[]}`).ok(t).(map[string]any)["id"].(string)
	long := func(n int) string { return strings.Repeat("a", n) }
	rule := func(more string) string { return `{"source_network":"0.0.0.0/0","description":"d",` + more + `}` }
	rows := []struct{ name, method, path, body string }{
		{"no body", "POST", "/instance-operations/launch", ``},
		{"not JSON", "POST", "/instance-operations/launch", `{"region_name"`},
		{"a list", "POST", "/instance-operations/launch", `[]`},
		{"null", "POST", "/instance-operations/launch", `null`},
		{"no region", "POST", "/instance-operations/launch", `{"instance_type_name":"gpu_1x_a10","ssh_key_names":["k"]}`},
		{"no type", "POST", "/instance-operations/launch", `{"region_name":"us-east-1","ssh_key_names":["k"]}`},
		{"no keys", "POST", "/instance-operations/launch", `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10"}`},
		{"keys not a list", "POST", "/instance-operations/launch", `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":"k"}`},
		{"key not a string", "POST", "/instance-operations/launch", `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":[1]}`},
		{"region as an object", "POST", "/instance-operations/launch", `{"region_name":{"name":"us-east-1"},"instance_type_name":"gpu_1x_a10","ssh_key_names":["k"]}`},
		{"name too long", "POST", "/instance-operations/launch", launchBody(`"name":"` + long(65) + `"`)},
		{"name null", "POST", "/instance-operations/launch", launchBody(`"name":null`)},
		{"hostname with capitals", "POST", "/instance-operations/launch", launchBody(`"hostname":"Head"`)},
		{"hostname with a dash first", "POST", "/instance-operations/launch", launchBody(`"hostname":"-head"`)},
		{"hostname empty", "POST", "/instance-operations/launch", launchBody(`"hostname":""`)},
		{"hostname too long", "POST", "/instance-operations/launch", launchBody(`"hostname":"` + long(64) + `"`)},
		{"image as a string", "POST", "/instance-operations/launch", launchBody(`"image":"lambda-stack-22-04"`)},
		{"image of nothing", "POST", "/instance-operations/launch", launchBody(`"image":{}`)},
		{"user data as an object", "POST", "/instance-operations/launch", launchBody(`"user_data":{}`)},
		{"tags as a map", "POST", "/instance-operations/launch", launchBody(`"tags":{"a1":"b"}`)},
		{"tag key of one letter", "POST", "/instance-operations/launch", launchBody(`"tags":[{"key":"a","value":"b"}]`)},
		{"tag key with a capital", "POST", "/instance-operations/launch", launchBody(`"tags":[{"key":"Ab","value":"b"}]`)},
		{"tag key too long", "POST", "/instance-operations/launch", launchBody(`"tags":[{"key":"` + long(56) + `","value":"b"}]`)},
		{"tag value too long", "POST", "/instance-operations/launch", launchBody(`"tags":[{"key":"ab","value":"` + long(129) + `"}]`)},
		{"tag without value", "POST", "/instance-operations/launch", launchBody(`"tags":[{"key":"ab"}]`)},
		{"mount elsewhere", "POST", "/instance-operations/launch", launchBody(`"file_system_mounts":[{"file_system_id":"x","mount_point":"/etc"}]`)},
		{"mount too long", "POST", "/instance-operations/launch", launchBody(`"file_system_mounts":[{"file_system_id":"x","mount_point":"/data/` + long(260) + `"}]`)},
		{"mount without id", "POST", "/instance-operations/launch", launchBody(`"file_system_mounts":[{"mount_point":"/data/x"}]`)},
		{"filesystems not a list", "POST", "/instance-operations/launch", launchBody(`"file_system_names":"data"`)},
		{"ruleset without id", "POST", "/instance-operations/launch", launchBody(`"firewall_rulesets":[{}]`)},
		{"ruleset as a string", "POST", "/instance-operations/launch", launchBody(`"firewall_rulesets":["x"]`)},
		{"terminate nothing", "POST", "/instance-operations/terminate", `{}`},
		{"terminate a string", "POST", "/instance-operations/terminate", `{"instance_ids":"` + id + `"}`},
		{"restart nothing", "POST", "/instance-operations/restart", `{}`},
		{"restart a number", "POST", "/instance-operations/restart", `{"instance_ids":[1]}`},
		{"rename too long", "POST", "/instances/" + id, `{"name":"` + long(65) + `"}`},
		{"rename to a number", "POST", "/instances/" + id, `{"name":5}`},
		{"rename without body", "POST", "/instances/" + id, ``},
		{"key without name", "POST", "/ssh-keys", `{"public_key":"` + testPublicKey + `"}`},
		{"key with empty name", "POST", "/ssh-keys", `{"name":""}`},
		{"key with long name", "POST", "/ssh-keys", `{"name":"` + long(65) + `"}`},
		{"key empty", "POST", "/ssh-keys", `{"name":"x","public_key":""}`},
		{"key too long", "POST", "/ssh-keys", `{"name":"x","public_key":"` + testPublicKey + long(4096) + `"}`},
		{"filesystem without region", "POST", "/filesystems", `{"name":"a"}`},
		{"filesystem with a digit first", "POST", "/filesystems", `{"name":"1a","region":"us-east-1"}`},
		{"filesystem with a space", "POST", "/filesystems", `{"name":"a b","region":"us-east-1"}`},
		{"filesystem with a long name", "POST", "/filesystems", `{"name":"` + long(61) + `","region":"us-east-1"}`},
		{"rules without data", "PUT", "/firewall-rules", `[]`},
		{"rules with another wrapper", "PUT", "/firewall-rules", `{"rules":[]}`},
		{"rule with no protocol", "PUT", "/firewall-rules", `{"data":[{"source_network":"0.0.0.0/0","description":"","port_range":[1,2]}]}`},
		{"rule of another protocol", "PUT", "/firewall-rules", `{"data":[` + rule(`"protocol":"sctp","port_range":[1,2]`) + `]}`},
		{"rule with port 0", "PUT", "/firewall-rules", `{"data":[` + rule(`"protocol":"tcp","port_range":[0,2]`) + `]}`},
		{"rule with port 65536", "PUT", "/firewall-rules", `{"data":[` + rule(`"protocol":"tcp","port_range":[1,65536]`) + `]}`},
		{"rule with one port", "PUT", "/firewall-rules", `{"data":[` + rule(`"protocol":"tcp","port_range":[22]`) + `]}`},
		{"rule with half a port", "PUT", "/firewall-rules", `{"data":[` + rule(`"protocol":"tcp","port_range":[22.5,23]`) + `]}`},
		{"rule with a long description", "PUT", "/firewall-rules", `{"data":[{"protocol":"icmp","source_network":"0.0.0.0/0","description":"` + long(129) + `"}]}`},
		{"ruleset without rules", "POST", "/firewall-rulesets", `{"name":"r","region":"us-east-1"}`},
		{"ruleset with long name", "POST", "/firewall-rulesets", `{"name":"` + long(65) + `","region":"us-east-1","rules":[]}`},
		{"ruleset renamed too long", "PATCH", "/firewall-rulesets/" + rs, `{"name":"` + long(65) + `"}`},
		{"ruleset rules as object", "PATCH", "/firewall-rulesets/" + rs, `{"rules":{}}`},
		{"global rules as string", "PATCH", "/firewall-rulesets/global", `{"rules":"none"}`},
		{"audit from no time", "GET", "/audit-events?start=yesterday", ``},
		{"audit to no time", "GET", "/audit-events?end=2025-09-15", ``},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), row.method, c.sim.URL()+row.path, nil)
			require.NoError(t, err)
			require.Error(t, openapi.Request(req, []byte(row.body)), "the document does not forbid this")
			before := c.sim.LaunchCount()
			c.do(row.method, row.path, row.body).refused(t, http.StatusBadRequest, lambdatest.CodeInvalidParameters)
			require.Equal(t, before, c.sim.LaunchCount())
		})
	}
	require.Len(t, c.sim.Running(), 1)
}

// What only the document's prose forbids.
func TestProseIsKept(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	c.addKey("k2")
	for name, body := range map[string]string{
		"no SSH key":          `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":[]}`,
		"two SSH keys":        `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["k","k2"]}`,
		"user data over 1 MB": launchBody(`"user_data":"` + strings.Repeat("a", 1_000_001) + `"`),
		"a reserved tag":      launchBody(`"tags":[{"key":"lambda-ai-x","value":"b"}]`),
		"two of them":         launchBody(`"quantity":2`),
		"none of them":        launchBody(`"quantity":0`),
		"unknown region":      `{"region_name":"moon-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["k"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			c.do("POST", "/instance-operations/launch", body).refused(t, 400, lambdatest.CodeInvalidParameters)
		})
	}
	c.launch(`"user_data":"` + strings.Repeat("a", 1_000_000) + `"`)
	for name, rule := range map[string]string{
		"icmp with ports":   `{"protocol":"icmp","port_range":[1,2],"source_network":"0.0.0.0/0","description":""}`,
		"tcp without ports": `{"protocol":"tcp","source_network":"0.0.0.0/0","description":""}`,
		"all without ports": `{"protocol":"all","source_network":"0.0.0.0/0","description":""}`,
		"ports reversed":    `{"protocol":"tcp","port_range":[23,22],"source_network":"0.0.0.0/0","description":""}`,
		"IPv6":              `{"protocol":"icmp","source_network":"::/0","description":""}`,
		"no network":        `{"protocol":"icmp","source_network":"everywhere","description":""}`,
	} {
		t.Run(name, func(t *testing.T) {
			c.do("PUT", "/firewall-rules", `{"data":[`+rule+`]}`).refused(t, 400, lambdatest.CodeInvalidParameters)
		})
	}
	rules := c.do("PUT", "/firewall-rules", `{"data":[{"protocol":"udp","port_range":[1,65535],"source_network":"1.2.3.4","description":""}]}`).ok(t).([]any)
	require.Equal(t, "1.2.3.4/32", rules[0].(map[string]any)["source_network"], "a bare address is a network of one")
}
