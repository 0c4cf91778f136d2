package lambdatest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func TestStateSurvivesARestart(t *testing.T) {
	clock := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	cfg := virtual(time.Minute)
	cfg.Now = func() time.Time { return clock }
	cfg.StateFile = filepath.Join(t.TempDir(), "sim.json")
	c := start(t, cfg)
	key := c.sim.APIKey()
	done, kept := c.launch(`"name":"done"`), c.launch(`"name":"kept","tags":[{"key":"k1","value":"v"}],"user_data":"hush"`)
	c.do("POST", "/filesystems", `{"name":"data","region":"us-east-1"}`).ok(t)
	c.do("PUT", "/firewall-rules", `{"data":[]}`).ok(t)
	c.sim.Advance(11 * time.Minute)
	c.terminate(done).ok(t)
	require.NoError(t, c.sim.SetCapacity("gpu_1x_a10", "us-east-1", 3))
	c.sim.Advance(time.Minute)
	instances, bill := c.sim.Instances(), c.sim.Bill()
	require.Equal(t, int64(10+11), bill.Lines[0].Minutes+bill.Lines[1].Minutes)
	info, err := os.Stat(cfg.StateFile)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "there are keys in it")
	}

	_, err = lambdatest.New(cfg)
	require.ErrorContains(t, err, "another simulator has it")
	require.NoError(t, c.sim.Close())

	clock = clock.Add(30 * time.Minute) // it was off for so long; the instances ran on
	c = start(t, cfg)
	require.Equal(t, key, c.sim.APIKey())
	require.Equal(t, instances[1].LaunchedAt, c.sim.Instances()[1].LaunchedAt)
	require.Equal(t, "active", c.instance(kept)["status"])
	require.Equal(t, instances[1].IP, c.instance(kept)["ip"])
	require.Equal(t, []any{map[string]any{"key": "k1", "value": "v"}}, c.instance(kept)["tags"])
	require.Equal(t, "hush", c.sim.UserData(kept))
	require.Equal(t, lambdatest.Gone, c.sim.Instances()[0].Status)
	require.Len(t, c.get("/file-systems").ok(t), 1)
	require.Empty(t, c.get("/firewall-rules").ok(t))
	require.Equal(t, "k", c.sim.Keys()[0].Name)
	after := c.sim.Bill()
	require.Equal(t, int64(10), after.Lines[0].Minutes)
	require.Equal(t, int64(11+30), after.Lines[1].Minutes)
	for range 3 {
		c.launch("")
	}
	c.do("POST", "/instance-operations/launch", launchBody("")).refused(t, 400, lambdatest.CodeNoCapacity)
	ips := map[string]bool{}
	for _, i := range c.sim.Instances() {
		require.False(t, ips[i.IP], "an address was given twice")
		ips[i.IP] = true
	}
}

func TestBrokenStateIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sim.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"Instances":`), 0o600))
	_, err := lambdatest.New(lambdatest.Config{StateFile: path})
	require.ErrorContains(t, err, "sim.json")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"Instances":`, string(raw), "and is not overwritten")
	require.NoError(t, os.WriteFile(path, []byte(`{}`), 0o600))
	s, err := lambdatest.New(lambdatest.Config{StateFile: path})
	require.NoError(t, err, "the lock was given back")
	require.NoError(t, s.Close())
}

// A machine is started again after a restart of the simulator: at its address and
// with the host key from its user data.
func TestMachinesComeBack(t *testing.T) {
	cfg := lambdatest.Config{BootTime: -1, StateFile: filepath.Join(t.TempDir(), "sim.json")}
	c, id, login, host := sshCloud(t, cfg)
	reachable := func() bool {
		_, err := c.sshTo(id, login, host.PublicKey(), "true")
		return err == nil
	}
	require.Eventually(t, reachable, 10*time.Second, 10*time.Millisecond)
	port := c.sim.SSHPort()
	before, _ := c.sim.Instance(id)
	require.NoError(t, c.sim.Close())
	require.False(t, reachable())
	require.NoDirExists(t, cfg.StateFile+".machines")

	cfg.SSHHosts = true
	c = start(t, cfg)
	require.Equal(t, port, c.sim.SSHPort())
	require.Eventually(t, reachable, 10*time.Second, 10*time.Millisecond)
	after, _ := c.sim.Instance(id)
	require.Equal(t, before.IP, after.IP)
	require.Equal(t, before.FirstHealthy.Unix(), after.FirstHealthy.Unix())
}

func TestCatalogFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "catalog.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	cat, err := lambdatest.LoadCatalog(write(`{"regions":[{"name":"moon-1","description":"Moon"}],
		"types":[{"name":"gpu_1x_moon","description":"1x Moon","gpu_description":"Moon","price_cents_per_hour":777,
			"specs":{"vcpus":1,"memory_gib":2,"storage_gib":3,"gpus":1},"capacity":{"moon-1":2}}]}`))
	require.NoError(t, err)
	cfg := virtual(time.Minute)
	cfg.Catalog = cat
	c := start(t, cfg)
	c.addKey("k")
	require.Equal(t, []string{"moon-1"}, c.regions("gpu_1x_moon"))
	require.Len(t, c.get("/regions").ok(t), 1)
	for range 2 {
		c.do("POST", "/instance-operations/launch", `{"region_name":"moon-1","instance_type_name":"gpu_1x_moon","ssh_key_names":["k"]}`).ok(t)
	}
	require.Empty(t, c.regions("gpu_1x_moon"))
	require.Equal(t, 2, cat.Types[0].Capacity["moon-1"], "the caller's copy is left alone")

	for name, text := range map[string]string{
		"not JSON":       `{`,
		"unknown field":  `{"zones":[]}`,
		"no price":       `{"types":[{"name":"a"}]}`,
		"unknown region": `{"types":[{"name":"a","price_cents_per_hour":1,"capacity":{"moon-1":1}}]}`,
		"twice":          `{"types":[{"name":"a","price_cents_per_hour":1},{"name":"a","price_cents_per_hour":1}]}`,
		"architecture":   `{"types":[{"name":"a","price_cents_per_hour":1,"architecture":"z80"}]}`,
		"nameless":       `{"regions":[{"description":"x"}]}`,
	} {
		_, err := lambdatest.LoadCatalog(write(text))
		require.ErrorContains(t, err, "catalog.json", name)
	}
	_, err = lambdatest.LoadCatalog(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The default catalogue is what the service offers: a few facts of it.
func TestDefaultCatalog(t *testing.T) {
	c := start(t, virtual(time.Minute))
	types := c.get("/instance-types").ok(t).(map[string]any)
	require.Len(t, types, 25)
	for name, cents := range map[string]float64{"gpu_1x_a10": 129, "gpu_8x_h100_sxm5": 3192, "gpu_1x_gh200": 229, "cpu_4x_general": 20} {
		require.Equal(t, cents, types[name].(map[string]any)["instance_type"].(map[string]any)["price_cents_per_hour"], name)
	}
	require.EqualValues(t, 0, types["cpu_4x_general"].(map[string]any)["instance_type"].(map[string]any)["specs"].(map[string]any)["gpus"])
	require.Len(t, c.get("/regions").ok(t), 20)
	ids := map[string]bool{}
	for _, i := range c.get("/images").ok(t).([]any) {
		m := i.(map[string]any)
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$`, m["id"])
		require.False(t, ids[m["id"].(string)])
		ids[m["id"].(string)] = true
	}
	require.Len(t, ids, 4*20+4)
}

func TestThousandInstancesAreSmall(t *testing.T) {
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := memory()
	c := start(t, virtual(time.Minute))
	c.addKey("k")
	data := strings.Repeat("x", 4096)
	for range 1000 {
		c.launch(`"name":"one of many","tags":[{"key":"k1","value":"v"}],"user_data":"` + data + `"`)
	}
	c.sim.Advance(time.Minute)
	require.Len(t, c.list(), 1000)
	require.Len(t, c.sim.Running(), 1000)
	require.Less(t, memory()-before, uint64(50<<20))
	require.Equal(t, 1000, c.sim.LaunchCount())
}

// TestHelperSimulator is not a test: it is the simulator that the next one kills.
func TestHelperSimulator(t *testing.T) {
	path := os.Getenv("LAMBDATEST_HELPER_STATE")
	if path == "" {
		t.Skip("started by TestMachinesOutliveAKill")
	}
	o := lambdatest.Options{StateFile: path, BootTime: -1, ScenarioFile: path + ".yaml"}
	require.NoError(t, lambdatest.Run(t.Context(), o, os.Stdout))
}

// A simulator that is killed finds its machines again: same address, host key and
// files.
func TestMachinesOutliveAKill(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs an address for each machine")
	}
	path := filepath.Join(t.TempDir(), "sim.json")
	require.NoError(t, os.WriteFile(path+".yaml", []byte("faults: [{op: launchInstance, match: ends, die_after: 30m, die_as: terminated}]"), 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperSimulator$")
	cmd.Env = append(os.Environ(), "LAMBDATEST_HELPER_STATE="+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	var r ready
	require.NoError(t, json.Unmarshal(line, &r))

	login, _ := newSigner(t)
	post := func(path string, body any) {
		data, _ := json.Marshal(body)
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.APIURL+path, bytes.NewReader(data))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+r.APIKey)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
	}
	post("/ssh-keys", map[string]string{"name": "k", "public_key": authorized(login)})
	for _, name := range []string{"stays", "ends"} {
		post("/instance-operations/launch", map[string]any{"name": name, "region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": []string{"k"}})
	}
	var addrs []string
	state, err := os.ReadFile(path)
	require.NoError(t, err)
	var kept struct{ Instances []struct{ ID, IP string } }
	require.NoError(t, json.Unmarshal(state, &kept))
	for _, i := range kept.Instances {
		addrs = append(addrs, net.JoinHostPort(i.IP, strconv.Itoa(r.SSHPort)))
	}
	dial := func(addr string, command string) (key ssh.PublicKey, out string) {
		require.Eventually(t, func() bool {
			client, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{User: "ubuntu", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, Timeout: 5 * time.Second,
				HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error { key = k; return nil }})
			if err != nil {
				return false
			}
			defer client.Close()
			session, err := client.NewSession()
			if err != nil {
				return false
			}
			data, err := session.Output(command)
			out = strings.TrimSpace(string(data))
			return err == nil
		}, 15*time.Second, 20*time.Millisecond)
		return key, out
	}
	before, _ := dial(addrs[0], "echo mine >file")
	_, pid := dial(addrs[1], "setsid sleep 900 >/dev/null 2>&1 </dev/null & echo $!")
	kill()

	// The second instance ends by itself while nobody simulates anything.
	later := func() time.Time { return time.Now().Add(time.Hour) }
	c := start(t, lambdatest.Config{StateFile: path, BootTime: -1, SSHHosts: true, Now: later})
	after, got := dial(addrs[0], "cat file")
	require.Equal(t, "mine", got)
	require.Equal(t, before.Marshal(), after.Marshal())
	require.Len(t, c.sim.Running(), 1)
	require.NoDirExists(t, filepath.Join(path+".machines", kept.Instances[1].ID))
	cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline") // empty for one that nobody has waited for
	require.Empty(t, string(cmdline), "what ran on the ended one was ended")
}
