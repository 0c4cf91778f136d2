package lambdatest_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// What clients of the real service have stumbled over, one test each. Those that
// are a fault to inject are in fault_test.go.

func TestDefaultPythonAgentIsTurnedAway(t *testing.T) {
	c := start(t, virtual(time.Minute))
	r := c.do("GET", "/instances", "", "User-Agent", "Python-urllib/3.12")
	require.Equal(t, http.StatusForbidden, r.status)
	require.Equal(t, "error code: 1010", r.raw, "not JSON, and not about the key")
	require.Contains(t, r.header.Get("Content-Type"), "text/plain")
}

func TestLaunchIsNotIdempotent(t *testing.T) {
	c := start(t, virtual(time.Minute))
	a, b := c.launch(`"name":"same"`), c.launch(`"name":"same"`)
	require.NotEqual(t, a, b)
	require.Equal(t, 2, c.sim.LaunchCount())
	require.Len(t, c.list(), 2, "names are not unique")
	require.NotEqual(t, c.sim.Instances()[0].IP, c.sim.Instances()[1].IP)
}

func TestNewerFieldsComeWithTheSwitch(t *testing.T) {
	look := func(newer bool) (caller, map[string]any, map[string]any, map[string]any) {
		cfg := virtual(time.Minute)
		cfg.Newer = newer
		c := start(t, cfg)
		id := c.launch("")
		booting := c.instance(id)
		c.sim.Advance(time.Minute)
		return c, booting, c.instance(id), c.get("/ssh-keys").ok(t).([]any)[0].(map[string]any)
	}
	c, _, i, key := look(false)
	require.NotContains(t, i, "first_healthy")
	require.NotContains(t, i, "image")
	require.NotContains(t, i["instance_type"], "architecture")
	require.NotContains(t, i["actions"], "power_cycle")
	require.NotContains(t, key, "workspace_id")
	require.NotContains(t, c.get("/instances").raw, "page_token")
	require.Equal(t, http.StatusMethodNotAllowed, c.get("/filesystems").status)

	c, booting, i, key := look(true)
	require.Contains(t, booting, "first_healthy")
	require.Nil(t, booting["first_healthy"], "null until it is healthy")
	require.Equal(t, c.sim.Instances()[0].FirstHealthy.Format("2006-01-02T15:04:05.000000Z"), i["first_healthy"])
	require.Equal(t, "lambda-stack-22-04", i["image"].(map[string]any)["family"])
	require.Equal(t, "x86_64", i["instance_type"].(map[string]any)["architecture"])
	require.Contains(t, i["actions"], "power_cycle")
	require.Len(t, key["workspace_id"], 32)
	c.get("/filesystems").ok(t)
	require.Equal(t, "arm64", c.get("/instance-types").ok(t).(map[string]any)["gpu_1x_gh200"].(map[string]any)["instance_type"].(map[string]any)["architecture"])
}

func TestPagesOfInstances(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Newer = true
	c := start(t, cfg)
	var ids []string
	for range 5 {
		ids = append([]string{c.launch("")}, ids...) // newest first
	}
	page := func(query string) (got []string, next string) {
		r := c.get("/instances" + query)
		for _, i := range r.ok(t).([]any) {
			got = append(got, i.(map[string]any)["id"].(string))
		}
		var tail struct {
			PageToken string `json:"page_token"`
		}
		require.NoError(t, json.Unmarshal([]byte(r.raw), &tail))
		return got, tail.PageToken
	}
	all, token := page("")
	require.Equal(t, ids, all, "without page_size all come at once")
	require.Empty(t, token)
	first, token := page("?page_size=2")
	require.Equal(t, ids[:2], first)
	c.launch("") // a new one does not shift the pages
	second, token2 := page("?page_size=2&page_token=" + token)
	require.Equal(t, ids[2:4], second)
	third, end := page("?page_size=2&page_token=" + token2)
	require.Equal(t, ids[4:], third)
	require.Empty(t, end)
	c.get("/instances?page_token=odd").refused(t, 400, lambdatest.CodeInvalidParameters)
	c.get("/instances?page_size=0").refused(t, 400, lambdatest.CodeInvalidParameters)
}

func TestTwoSpellingsOfFilesystems(t *testing.T) {
	c := start(t, virtual(time.Minute))
	require.Equal(t, http.StatusMethodNotAllowed, c.do("POST", "/file-systems", `{"name":"a","region":"us-east-1"}`).status)
	id := c.do("POST", "/filesystems", `{"name":"a","region":"us-east-1"}`).ok(t).(map[string]any)["id"].(string)
	c.do("DELETE", "/file-systems/"+id, "").refused(t, 404, lambdatest.CodeNotFound)
	require.Len(t, c.get("/file-systems").ok(t), 1)
	require.Equal(t, map[string]any{"deleted_ids": []any{id}}, c.do("DELETE", "/filesystems/"+id, "").ok(t))
}

func TestRenameIsAPost(t *testing.T) {
	c := start(t, virtual(time.Minute))
	id := c.launch(`"name":"before"`)
	require.Equal(t, http.StatusMethodNotAllowed, c.do("PATCH", "/instances/"+id, `{"name":"x"}`).status)
	require.Equal(t, "after", c.do("POST", "/instances/"+id, `{"name":"after"}`).ok(t).(map[string]any)["name"])
	require.Equal(t, "after", c.do("POST", "/instances/"+id, `{}`).ok(t).(map[string]any)["name"])
	require.NotContains(t, c.do("POST", "/instances/"+id, `{"name":""}`).ok(t), "name", "an empty name is absent")
}

func TestShapesThatClientsGetWrong(t *testing.T) {
	c := start(t, virtual(time.Minute))
	i := c.instance(c.launch(`"tags":[{"key":"owner","value":"me"}]`))
	require.IsType(t, map[string]any{}, i["region"])
	require.Equal(t, []any{map[string]any{"key": "owner", "value": "me"}}, i["tags"])
	require.NotContains(t, i, "instance_type_name")
	require.Equal(t, []any{"k"}, i["ssh_key_names"], "names, not ids")
	types := c.get("/instance-types").ok(t).(map[string]any)
	require.IsType(t, map[string]any{}, types["gpu_1x_a10"].(map[string]any)["regions_with_capacity_available"].([]any)[0])
	require.Equal(t, []any{}, types["gpu_8x_b200_sxm6"].(map[string]any)["regions_with_capacity_available"], "empty, not absent")
	require.Equal(t, map[string]any{}, c.do("DELETE", "/ssh-keys/"+c.sim.Keys()[0].ID, "").ok(t))
}

func TestNoPrivateAddressInOneRegion(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	r := c.do("POST", "/instance-operations/launch", `{"region_name":"us-south-1","instance_type_name":"gpu_1x_a6000","ssh_key_names":["k"]}`)
	id := r.ok(t).(map[string]any)["instance_ids"].([]any)[0].(string)
	c.sim.Advance(time.Minute)
	require.Contains(t, c.instance(id), "ip")
	require.NotContains(t, c.instance(id), "private_ip")
}

func TestDefaultImageDependsOnTheRegion(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.launch("")
	c.do("POST", "/instance-operations/launch", `{"region_name":"us-west-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["k"]}`).ok(t)
	c.do("POST", "/instance-operations/launch", `{"region_name":"us-east-3","instance_type_name":"gpu_1x_gh200","ssh_key_names":["k"],"image":{"family":"gpu-base-22-04"}}`).ok(t)
	got := c.sim.Instances()
	require.Equal(t, "lambda-stack-22-04", got[0].Image)
	require.Equal(t, "lambda-stack-24-04", got[1].Image)
	require.Equal(t, "gpu-base-22-04", got[2].Image)
}

func TestTooManyFirewallRulesFailLaunches(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	rule := `{"protocol":"icmp","source_network":"0.0.0.0/0","description":""}`
	set := func(n int) {
		c.do("PUT", "/firewall-rules", `{"data":[`+strings.TrimSuffix(strings.Repeat(rule+",", n), ",")+`]}`).ok(t)
	}
	set(21)
	c.do("POST", "/instance-operations/launch", launchBody("")).refused(t, 400, lambdatest.CodeInvalidParameters)
	set(20)
	c.launch("")
}

func TestDefaultFirewallIsOpenForSSH(t *testing.T) {
	c := start(t, virtual(time.Minute))
	require.Contains(t, c.get("/firewall-rules").ok(t), map[string]any{"protocol": "tcp", "port_range": []any{22.0, 22.0},
		"source_network": "0.0.0.0/0", "description": "Allow SSH from anywhere"})
	require.Equal(t, c.get("/firewall-rules").data, c.get("/firewall-rulesets/global").ok(t).(map[string]any)["rules"])
}

func TestJupyterSecretsAreOnEveryListing(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.launch("")
	c.sim.Advance(time.Minute)
	i := c.list()[0].(map[string]any)
	require.Len(t, i["jupyter_token"], 32)
	require.Contains(t, i["jupyter_url"], i["jupyter_token"])
}

func TestKeyWithoutPublicHalfIsGenerated(t *testing.T) {
	c := start(t, virtual(time.Minute))
	k := c.do("POST", "/ssh-keys", `{"name":"made"}`).ok(t).(map[string]any)
	require.True(t, strings.HasPrefix(k["private_key"].(string), "-----BEGIN RSA PRIVATE KEY-----"))
	require.NotContains(t, c.get("/ssh-keys").raw, "PRIVATE KEY", "it is not kept")
	stored := c.do("POST", "/ssh-keys", `{"name":"stored","public_key":"`+testPublicKey+`"}`).ok(t)
	require.NotContains(t, stored, "private_key")
}

func TestKeyNamesAreUnique(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	r := c.do("POST", "/ssh-keys", `{"name":"k","public_key":"`+testPublicKey+`"}`)
	r.refused(t, 400, lambdatest.CodeInvalidParameters)
	require.Contains(t, r.msg, "name must be unique")
	c.do("POST", "/ssh-keys", `{"name":"odd","public_key":"not a key"}`).refused(t, 400, lambdatest.CodeInvalidParameters)
}

func TestFilesystemStaysInUseForAWhile(t *testing.T) {
	c := start(t, virtual(time.Minute))
	fs := c.do("POST", "/filesystems", `{"name":"data","region":"us-east-1"}`).ok(t).(map[string]any)
	require.Equal(t, "/lambda/nfs/data", fs["mount_point"])
	id := c.launch(`"file_system_names":["data"]`)
	require.Equal(t, []any{"data"}, c.instance(id)["file_system_names"])
	c.terminate(id).ok(t)
	path := "/filesystems/" + fs["id"].(string)
	c.do("DELETE", path, "").refused(t, 400, lambdatest.CodeFilesystemInUse)
	c.sim.Advance(time.Minute)
	c.do("DELETE", path, "").refused(t, 400, lambdatest.CodeFilesystemInUse)
	c.sim.Advance(time.Minute)
	c.do("DELETE", path, "").ok(t)
}

func TestFilesystemInAnotherRegion(t *testing.T) {
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	fs := c.do("POST", "/filesystems", `{"name":"far","region":"us-west-1"}`).ok(t).(map[string]any)["id"].(string)
	for _, more := range []string{`"file_system_names":["far"]`, `"file_system_mounts":[{"file_system_id":"` + fs + `","mount_point":"/data"}]`} {
		c.do("POST", "/instance-operations/launch", launchBody(more)).refused(t, 400, lambdatest.CodeWrongRegion)
	}
}

func TestWhatDoesNotExistAtLaunch(t *testing.T) {
	for _, status := range []int{0, 400} {
		cfg := virtual(time.Minute)
		cfg.LaunchNotFound = status
		c := start(t, cfg)
		want := status
		if want == 0 {
			want = 404
		}
		c.addKey("k")
		for name, body := range map[string]string{
			"type":       `{"region_name":"us-east-1","instance_type_name":"gpu_9x","ssh_key_names":["k"]}`,
			"key":        `{"region_name":"us-east-1","instance_type_name":"gpu_1x_a10","ssh_key_names":["other"]}`,
			"filesystem": launchBody(`"file_system_names":["other"]`),
			"mount":      launchBody(`"file_system_mounts":[{"file_system_id":"other","mount_point":"/data"}]`),
			"image":      launchBody(`"image":{"family":"other"}`),
			"image id":   launchBody(`"image":{"id":"other"}`),
			"ruleset":    launchBody(`"firewall_rulesets":[{"id":"other"}]`),
		} {
			r := c.do("POST", "/instance-operations/launch", body)
			require.Equal(t, want, r.status, name)
			require.Equal(t, lambdatest.CodeDoesNotExist, r.code, name)
			require.Contains(t, r.raw, `"suggestion"`, name)
		}
	}
}

func TestUndocumentedFields(t *testing.T) {
	// A launch as some clients send it: flat image, mounts of their own, a quantity.
	body := launchBody(`"quantity":1,"image_family":"lambda-stack-22-04","image":{"family":"lambda-stack-22-04","name":"x"},"tags":[{"key":"k1","value":"v","color":"red"}]`)
	fields := func(c caller) (out []string) {
		for _, f := range c.sim.Findings() {
			require.Equal(t, launchOp, f.Op)
			out = append(out, f.Field)
		}
		return out
	}
	want := []string{"image.name", "image_family", "quantity", "tags.0.color"}

	c := start(t, virtual(time.Minute))
	c.addKey("k")
	c.do("POST", "/instance-operations/launch", body).ok(t)
	require.ElementsMatch(t, want, fields(c), "reported")

	cfg := virtual(time.Minute)
	cfg.Strict = true
	c = start(t, cfg)
	c.addKey("k")
	r := c.do("POST", "/instance-operations/launch", body)
	r.refused(t, 400, lambdatest.CodeInvalidParameters)
	for _, name := range want {
		require.Contains(t, r.msg, name)
	}
	require.ElementsMatch(t, want, fields(c), "refused and reported")
	require.Zero(t, c.sim.LaunchCount())
}

func TestNullsOfTheOlderAPI(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Nulls = true
	c := start(t, cfg)
	id := c.launch(`"name":null,"file_system_names":null,"quantity":1`)
	i := c.instance(id)
	for _, name := range []string{"name", "ip", "private_ip", "hostname", "jupyter_token", "jupyter_url"} {
		require.Contains(t, i, name)
		require.Nil(t, i[name], name)
	}
}

func TestAuthentication(t *testing.T) {
	c := start(t, virtual(time.Minute))
	key := c.sim.APIKey()
	require.Regexp(t, `^secret_sim_[0-9a-f]{32}\.[A-Za-z0-9]{32}$`, key)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, row := range map[string]struct {
		header, message string
	}{
		"bearer":               {"Bearer " + key, ""},
		"bearer, small":        {"bearer " + key, ""},
		"basic":                {"Basic " + b64(key+":"), ""},
		"basic, raw":           {"Basic " + key, ""},
		"basic, raw colon":     {"Basic " + key + ":", ""},
		"none":                 {"", "No API key was provided."},
		"wrong":                {"Bearer x", "API key was invalid, expired, or deleted."},
		"part of it":           {"Bearer " + key[:20], "API key was invalid, expired, or deleted."},
		"empty":                {"Bearer ", "API key was invalid, expired, or deleted."},
		"as password":          {"Basic " + b64(":"+key), "API key was invalid, expired, or deleted."},
		"another scheme":       {"Digest " + key, "API key was invalid, expired, or deleted."},
		"without any a scheme": {key, "API key was invalid, expired, or deleted."},
	} {
		r := c.do("GET", "/instances", "", "Authorization", row.header)
		if row.message == "" {
			require.Equal(t, 200, r.status, name)
			continue
		}
		require.Equal(t, 401, r.status, name)
		require.Equal(t, lambdatest.CodeInvalidKey, r.code, name)
		require.Equal(t, row.message, r.msg, name)
		require.NotContains(t, r.raw, key[:20])
	}
}

func TestJSONWithoutItsContentType(t *testing.T) {
	c := start(t, virtual(time.Minute))
	for n, kind := range []string{"", "application/x-www-form-urlencoded", "text/plain"} {
		name := string(rune('a' + n))
		c.do("POST", "/ssh-keys", `{"name":"`+name+`","public_key":"`+testPublicKey+`"}`, "Content-Type", kind).ok(t)
	}
}
