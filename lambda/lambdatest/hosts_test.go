package lambdatest_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

func newSigner(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	return signer, string(pem.EncodeToMemory(block))
}

func authorized(s ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

// hostUserData makes cloud-init install a host key.
func hostUserData(private, public string) string {
	return "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(private), "\n", "\n    ") + "\n  ed25519_public: " + public + "\n"
}

// sshTo runs a command on an instance whose host key must be the given one.
func (c caller) sshTo(id string, login ssh.Signer, host ssh.PublicKey, command string) (string, error) {
	i, _ := c.sim.Instance(id)
	client, err := ssh.Dial("tcp", net.JoinHostPort(i.IP, strconv.Itoa(c.sim.SSHPort())), &ssh.ClientConfig{
		User: "ubuntu", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, Timeout: 10 * time.Second,
		HostKeyCallback: ssh.FixedHostKey(host),
	})
	if err != nil {
		return "", err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	out, err := session.Output(command)
	return strings.TrimSpace(string(out)), err
}

// sshCloud has one instance with a known host key, booted unless the clock is real.
func sshCloud(t *testing.T, cfg lambdatest.Config) (c caller, id string, login, host ssh.Signer) {
	t.Helper()
	cfg.SSHHosts = true
	c = start(t, cfg)
	login, _ = newSigner(t)
	host, private := newSigner(t)
	key, _ := json.Marshal(map[string]string{"name": "k", "public_key": authorized(login)})
	c.do("POST", "/ssh-keys", string(key)).ok(t)
	data, _ := json.Marshal(hostUserData(private, authorized(host)))
	id = c.launch(`"name":"ssh","user_data":` + string(data))
	if cfg.Virtual {
		c.sim.Advance(cfg.BootTime)
	}
	return c, id, login, host
}

func TestInstanceIsAnSSHHost(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.Dir = filepath.Join(t.TempDir(), "machines")
	c, id, login, host := sshCloud(t, cfg)
	out, err := c.sshTo(id, login, host.PublicKey(), "whoami >/dev/null; nvidia-smi -L; echo kept >file; echo $((6*7))")
	require.NoError(t, err)
	require.Contains(t, out, "NVIDIA A10")
	require.Contains(t, out, "42")
	stranger, _ := newSigner(t)
	_, err = c.sshTo(id, stranger, host.PublicKey(), "true")
	require.ErrorContains(t, err, "unable to authenticate")

	// A restart cuts off, ends what runs and keeps the files and the address.
	before, _ := c.sim.Instance(id)
	_, err = c.sshTo(id, login, host.PublicKey(), "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(c.sim.Machine(id).Processes()) > 0 }, 5*time.Second, 10*time.Millisecond)
	c.do("POST", "/instance-operations/restart", `{"instance_ids":["`+id+`"]}`).ok(t)
	c.sim.Advance(time.Second)
	_, err = c.sshTo(id, login, host.PublicKey(), "true")
	require.Error(t, err, "it is restarting")
	require.Empty(t, c.sim.Machine(id).Processes())
	c.sim.Advance(time.Minute)
	out, err = c.sshTo(id, login, host.PublicKey(), "cat file")
	require.NoError(t, err)
	require.Equal(t, "kept", out)
	after, _ := c.sim.Instance(id)
	require.Equal(t, before.IP, after.IP)

	require.NoError(t, c.sim.ChangeHostKey(id))
	_, err = c.sshTo(id, login, host.PublicKey(), "true")
	require.ErrorContains(t, err, "host key mismatch")

	c.terminate(id).ok(t)
	c.sim.Advance(time.Second)
	require.Nil(t, c.sim.Machine(id))
	_, err = c.sshTo(id, login, host.PublicKey(), "true")
	var refused *net.OpError
	require.True(t, errors.As(err, &refused), "the machine is gone at the terminate call: %v", err)
	entries, err := os.ReadDir(cfg.Dir)
	require.NoError(t, err)
	require.Empty(t, entries, "and so are its files")
}

// With the real clock a machine is reachable before the instance is active, and
// shows another host key until cloud-init has run.
func TestBootOverRealTime(t *testing.T) {
	c, id, login, host := sshCloud(t, lambdatest.Config{BootTime: 1500 * time.Millisecond})
	other, active, ready := false, false, false
	deadline := time.Now().Add(15 * time.Second)
	for !(ready && active) && time.Now().Before(deadline) {
		i := c.instance(id)
		if active = i["status"] == "active"; i["ip"] == nil {
			require.Nil(t, c.sim.Machine(id), "no machine before the address")
			continue
		}
		_, err := c.sshTo(id, login, host.PublicKey(), "true")
		ready = err == nil
		other = other || err != nil && strings.Contains(err.Error(), "host key mismatch")
	}
	require.True(t, ready && active)
	require.True(t, other, "the first host key was never shown")
}

func TestFaultsOfMachines(t *testing.T) {
	cfg := virtual(time.Minute)
	cfg.SSHHosts = true
	sc := &lambdatest.Scenario{Faults: []lambdatest.Fault{
		{Op: lambdatest.OpLaunch, Match: "ssh", GPU: "missing", HostKeyAfter: time.Hour, DieAfter: 2 * time.Hour},
	}}
	cfg.Scenario = sc
	c, id, login, host := sshCloud(t, cfg)
	out, err := c.sshTo(id, login, host.PublicKey(), "nvidia-smi -L; true")
	require.NoError(t, err)
	require.NotContains(t, out, "NVIDIA A10", "one of one is missing")
	c.sim.Advance(time.Hour)
	_, err = c.sshTo(id, login, host.PublicKey(), "true")
	require.ErrorContains(t, err, "host key mismatch")
	c.sim.Advance(time.Hour)
	require.Equal(t, "unhealthy", c.instance(id)["status"])
	_, err = c.sshTo(id, login, host.PublicKey(), "true")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "host key", "nobody answers")

	sick := c.sim.Inject(lambdatest.Fault{Op: lambdatest.OpLaunch, NeverHealthy: true})
	second := c.launch("")
	c.sim.Remove(sick)
	c.sim.Advance(time.Minute)
	require.Equal(t, "unhealthy", c.instance(second)["status"])
	require.Nil(t, c.sim.Machine(second))
	third := c.launch("")
	c.sim.Advance(time.Minute)
	require.NotNil(t, c.sim.Machine(third))
	require.NotEqual(t, c.instance(second)["ip"], c.instance(third)["ip"])

	temp := filepath.Dir(c.sim.Machine(third).Home())
	require.DirExists(t, temp)
	require.NoError(t, c.sim.Close())
	require.NoDirExists(t, temp)
}

func TestSSHPortFollowsTheFirewall(t *testing.T) {
	c, id, login, host := sshCloud(t, virtual(time.Minute))
	in := func() bool {
		t.Helper()
		_, err := c.sshTo(id, login, host.PublicKey(), "true")
		return err == nil
	}
	global := func(rules string) { c.do("PUT", "/firewall-rules", `{"data":[`+rules+`]}`).ok(t) }
	require.True(t, in(), "a new account is open")
	for _, closed := range []string{
		"", `{"protocol":"icmp","source_network":"0.0.0.0/0","description":""}`, `{"protocol":"udp","port_range":[1,65535],"source_network":"0.0.0.0/0","description":""}`,
		`{"protocol":"tcp","port_range":[23,65535],"source_network":"0.0.0.0/0","description":""}`, `{"protocol":"tcp","port_range":[22,22],"source_network":"192.0.2.0/24","description":""}`,
	} {
		global(closed)
		require.False(t, in(), "%s", closed)
	}
	global(`{"protocol":"all","port_range":[1,65535],"source_network":"127.0.0.0/8","description":""}`)
	require.True(t, in())

	// Of the rulesets only those count that it was launched with.
	global("")
	const ssh = `"rules":[{"protocol":"tcp","port_range":[22,22],"source_network":"0.0.0.0/0","description":""}]`
	c.do("POST", "/firewall-rulesets", `{"name":"open","region":"us-east-1",`+ssh+`}`).ok(t)
	require.False(t, in())
}
