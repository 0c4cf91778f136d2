package machine_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

// cloudConfig is a document that gives the machine a host key, and then more.
func cloudConfig(key keyPair, more string) string {
	indented := "    " + strings.ReplaceAll(strings.TrimSuffix(key.pem, "\n"), "\n", "\n    ")
	return "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n" +
		indented + "\n  ed25519_public: " + key.authorized + more
}

func booted(t *testing.T, userData string, change ...func(*machine.Config)) *host {
	t.Helper()
	h := start(t, append(change, func(c *machine.Config) { c.UserData = userData })...)
	eventually(t, "cloud-init ends", h.CloudInitDone)
	return h
}

func TestHostKeyByCloudInit(t *testing.T) {
	given := newKey(t)
	release := filepath.Join(t.TempDir(), "release")
	h := start(t, func(c *machine.Config) {
		c.CloudInitDelay = 150 * time.Millisecond
		c.UserData = cloudConfig(given, "runcmd:\n- while [ ! -e "+release+" ]; do sleep 0.01; done\n")
	})
	own := h.HostKey()
	require.NotEqual(t, given.signer.PublicKey(), own)
	require.Equal(t, machine.CloudInitRunning, h.CloudInit())
	early := h.dial(t) // verifies the machine's own key

	pinned := h.config()
	pinned.HostKeyCallback = ssh.FixedHostKey(given.signer.PublicKey())
	_, err := connect(h.Addr(), pinned)
	require.ErrorContains(t, err, "host key mismatch", "not ready, not wrong")
	eventually(t, "the given key shows", func() bool {
		c, err := connect(h.Addr(), pinned)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	require.False(t, h.CloudInitDone(), "a command is still running")
	require.Equal(t, "status: running\n", run(t, early, "cloud-init status", nil).stdout)

	waiting := make(chan result)
	go func() { waiting <- run(t, early, "cloud-init status --wait", nil) }()
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	r := <-waiting
	require.Zero(t, r.code)
	require.True(t, strings.HasSuffix(r.stdout, "status: done\n"), r.stdout)
	require.True(t, h.CloudInitDone())
}

func TestWithoutDelayTheKeyIsThereAtOnce(t *testing.T) {
	given := newKey(t)
	h := start(t, func(c *machine.Config) { c.UserData = cloudConfig(given, "") })
	require.Equal(t, given.signer.PublicKey(), h.HostKey())
	require.Equal(t, machine.CloudInitDone, h.CloudInit())
}

func TestUserData(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("unpacked"))
	require.NoError(t, z.Close())
	second := newKey(t)
	h := booted(t, `#cloud-config
ssh_authorized_keys: []
users:
- default
- name: ubuntu
  ssh_authorized_keys:
  - `+second.authorized+`
package_update: true
write_files:
- path: /home/ubuntu/work/run.sh
  permissions: "0755"
  content: |
    #!/bin/sh
    echo ran
- path: /etc/motd
  content: one
- path: /etc/motd
  append: true
  content: two
- path: /home/ubuntu/secret
  permissions: 0600
  encoding: b64
  content: `+base64.StdEncoding.EncodeToString([]byte("s3cret"))+`
- path: /opt/packed
  encoding: gz+b64
  content: `+base64.StdEncoding.EncodeToString(packed.Bytes())+`
- path: ../../../../escape
  content: kept inside
runcmd:
- x=1
- echo "$x $(basename "$PWD") $USER" >ran
- [sh, -c, 'echo "$0 $1" >>ran', "it's", "two words"]
- "false"
- ./work/run.sh
`)
	require.Equal(t, machine.CloudInitDone, h.CloudInit())
	root := filepath.Join(filepath.Dir(h.Home()), "root")
	for path, want := range map[string]string{
		filepath.Join(h.Home(), "ran"):                       "1 home ubuntu\nit's two words\n",
		filepath.Join(h.Home(), "secret"):                    "s3cret",
		filepath.Join(root, "etc/motd"):                      "onetwo",
		filepath.Join(root, "opt/packed"):                    "unpacked",
		filepath.Join(root, "escape"):                        "kept inside",
		filepath.Join(root, "var/log/cloud-init-output.log"): "ran\n",
	} {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(got), path)
	}
	for path, want := range map[string]os.FileMode{"work/run.sh": 0o755, "secret": 0o600} {
		info, err := os.Stat(filepath.Join(h.Home(), path))
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), path)
	}
	require.Equal(t, "onetwo", h.run(t, `cat "$GPULEASE_SIM_ROOT/etc/motd"`).stdout)
	for _, key := range []keyPair{h.key, second} {
		c := h.config()
		c.Auth = []ssh.AuthMethod{ssh.PublicKeys(key.signer)}
		client, err := connect(h.Addr(), c)
		require.NoError(t, err)
		client.Close()
	}
}

func TestUserDataScript(t *testing.T) {
	h := booted(t, "#!/bin/sh\necho hello >script\n")
	require.Equal(t, machine.CloudInitDone, h.CloudInit())
	require.Equal(t, "hello\n", h.run(t, "cat script").stdout)
}

// TestBadUserData: the machine answers with its own key, cloud-init says "error",
// and nothing secret is in what it says.
func TestBadUserData(t *testing.T) {
	key := newKey(t)
	secret := strings.Split(key.pem, "\n")[1]
	second := newKey(t)
	for name, tc := range map[string]struct{ userData, detail string }{
		"NotYAML":          {"#cloud-config\nssh_keys:\n  ed25519_private: |\n" + key.pem, "line"},
		"Tabs":             {cloudConfig(key, "write_files:\n\t- x\n"), "line"},
		"WrongType":        {cloudConfig(key, "runcmd: 7\n"), "not a cloud-config document"},
		"NotCloudConfig":   {"hello", "begins neither"},
		"NoFinalNewline":   {strings.Replace(cloudConfig(key, ""), "private: |\n", "private: |-\n", 1), "newline"},
		"NotAKey":          {"#cloud-config\nssh_keys:\n  ed25519_private: |\n    " + secret + "\n", "not an ed25519"},
		"WrongHalf":        {strings.Replace(cloudConfig(key, ""), key.authorized, second.authorized, 1), "public half"},
		"BadAuthorized":    {cloudConfig(key, "ssh_authorized_keys: [nonsense]\n"), "authorized key 1"},
		"BadBase64":        {cloudConfig(key, "write_files:\n- path: /x\n  encoding: b64\n  content: '***'\n"), "write_files[0]"},
		"BadPermissions":   {cloudConfig(key, "write_files:\n- path: /x\n  permissions: rwx\n"), "octal"},
		"BadCommand":       {cloudConfig(key, "runcmd:\n- {a: b}\n"), "runcmd[0]"},
		"LastCommandFails": {"#cloud-config\nruncmd:\n- exit 3\n", "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			h := booted(t, tc.userData)
			require.Equal(t, machine.CloudInitError, h.CloudInit())
			require.NotEqual(t, key.signer.PublicKey(), h.HostKey())
			r := h.run(t, "cloud-init status --format json")
			require.Equal(t, 1, r.code)
			var status struct {
				Status string
				Errors []string
			}
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &status), r.stdout)
			require.Equal(t, "error", status.Status)
			require.Len(t, status.Errors, 1)
			require.Contains(t, status.Errors[0], tc.detail)
			require.NotContains(t, r.stdout, secret)
			long := h.run(t, "cloud-init status --long")
			require.Contains(t, long.stdout, "simulated")
			require.NotContains(t, long.stdout, secret)
		})
	}
}

func TestHostKeysDeleted(t *testing.T) {
	t.Run("NewOne", func(t *testing.T) {
		h := start(t, func(c *machine.Config) {
			c.CloudInitDelay = 50 * time.Millisecond
			c.UserData = "#cloud-config\nssh_deletekeys: true\n"
		})
		own := h.HostKey()
		eventually(t, "cloud-init ends", h.CloudInitDone)
		require.NotEqual(t, own, h.HostKey())
		require.Zero(t, h.runAnew(t, "true").code)
	})
	t.Run("None", func(t *testing.T) {
		h := booted(t, "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\n")
		require.Nil(t, h.HostKey())
		c := h.config()
		c.HostKeyCallback = ssh.InsecureIgnoreHostKey()
		_, err := connect(h.Addr(), c)
		require.Error(t, err)
	})
}

func TestSecretsStayOut(t *testing.T) {
	key := newKey(t)
	c := machine.Config{ID: "quiet", UserData: cloudConfig(key, "")}
	secret := strings.Split(key.pem, "\n")[1]
	var mu sync.Mutex
	var log strings.Builder
	h := start(t, func(c *machine.Config) {
		c.UserData = cloudConfig(key, "")
		c.Logf = func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			log.WriteString(fmt.Sprintf(format, args...))
		}
	})
	for _, format := range []string{"%s", "%v", "%+v", "%#v"} {
		require.NotContains(t, fmt.Sprintf(format, c), secret)
		require.NotContains(t, fmt.Sprintf(format, h.Machine), secret)
	}
	require.NoError(t, h.Close())
	require.NotContains(t, log.String(), secret)
	require.NotEmpty(t, log.String())
}
